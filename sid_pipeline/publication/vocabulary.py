"""The token vocabulary of a codebook: one token per level and codeword, `<a_35>`, `<b_7>`, `<c_120>`, `<d_184>`.

Where the collision policy appends a further token, it has a level of its own after the others (`<e_0>`, `<e_1>`), whose
size only grows and ends the list: no token ever changes its offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.keys import LEVEL_LETTERS, MAX_TOKENS

FURTHER_AT_LEAST = 16  # room for a while, so that a consumer's embedding table need not grow every night


@dataclass(frozen=True)
class Vocabulary:
    """Tokens of SIDs, coarse to fine.

    Attributes:
        levels: codewords of a base SID.
        codebook_size: codewords per level.
        further: tokens of the further level; 0 when the collision policy has none.
    """

    levels: int
    codebook_size: int
    further: int = 0

    def __post_init__(self) -> None:
        if len(self.sizes) > MAX_TOKENS:
            raise ValueError(f"{len(self.sizes)} levels, but token letters exist for {MAX_TOKENS}")

    @property
    def sizes(self) -> list[int]:
        """Tokens per level, the further one included."""
        return [self.codebook_size] * self.levels + ([self.further] if self.further else [])

    @property
    def offsets(self) -> list[int]:
        """Offset of each level's code 0: the token of code c at level l stands at offsets[l] + c."""
        return [level * self.codebook_size for level in range(len(self.sizes))]

    @property
    def tokens(self) -> list[str]:
        """All tokens, each at its offset."""
        return [f"<{LEVEL_LETTERS[level]}_{code}>" for level, size in enumerate(self.sizes) for code in range(size)]

    def to_dict(self) -> dict[str, Any]:
        """What vocabulary.json holds."""
        return {
            "levels": self.levels,
            "codebook_size": self.codebook_size,
            "further_tokens": self.further,
            "sizes": self.sizes,
            "offsets": self.offsets,
            "tokens": self.tokens,
        }

    def added_tokens(self) -> list[dict[str, Any]]:
        """Keyword arguments of one `AddedToken` each; never split, normalised or stripped by the tokenizer."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        return [{"content": token, **flags} for token in self.tokens]

    def vectors(self, codewords: NDArray[np.float32]) -> NDArray[np.float32]:
        """One vector per token, to warm-start token embeddings: its codeword; zeros for further tokens.

        Args:
            codewords: (levels, codebook_size, D).
        """
        rows = codewords.reshape(self.levels * self.codebook_size, -1)
        return np.concatenate([rows, np.zeros((self.further, rows.shape[1]), rows.dtype)]).astype(np.float32)


def further_tokens(largest: int, before: int) -> int:
    """Size of the further level for codes 0..largest: a power of two with room, never less than it was before."""
    return max(before, FURTHER_AT_LEAST, 1 << largest.bit_length())
