"""The token vocabulary of a codebook: one token per level and codeword, `<a_35>`, `<b_7>`, `<c_120>`, `<d_184>`."""

from __future__ import annotations

from collections.abc import Sequence

LEVEL_LETTERS = "abcdefgh"


def tokens(levels: int, codebook_size: int) -> list[str]:
    """All tokens, level by level; the token of code c at level l has offset `l * codebook_size + c`.

    Raises:
        ValueError: more levels than there are letters for.
    """
    if levels > len(LEVEL_LETTERS):
        raise ValueError(f"{levels} levels, but token letters exist for {len(LEVEL_LETTERS)}")
    return [f"<{LEVEL_LETTERS[level]}_{code}>" for level in range(levels) for code in range(codebook_size)]


def sid_tokens(codes: Sequence[int]) -> str:
    """A SID as its tokens, joined: (35, 7, 120, 184) is `<a_35><b_7><c_120><d_184>`."""
    return "".join(f"<{LEVEL_LETTERS[level]}_{code}>" for level, code in enumerate(codes))
