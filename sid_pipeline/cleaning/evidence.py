"""The truth rule: a value that the product's own text does not support is dropped and named.

Every cleaner passes its result through `verify`, whatever extracted it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sid_pipeline.cleaning.markup import MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS, drop_instructions, strip_markup
from sid_pipeline.cleaning.model import Attributes, ProductText, Size, Support, Unsupported
from sid_pipeline.cleaning.schema import FieldSpec
from sid_pipeline.cleaning.sizes import read_size
from sid_pipeline.cleaning.tags import Claims, merge_claims, read_claims
from sid_pipeline.cleaning.text import stem, stems, words
from sid_pipeline.cleaning.vocabulary import AUDIENCES, FORMATS

A = TypeVar("A", bound=Attributes)

NEAR = 8
"""Words of one value stand at most this many words apart: `tomato sauce` in `sauce of sun-ripened tomatoes`."""
_SIZE_TOLERANCE = 0.02

_AUDIENCE_STEMS: dict[str, set[str]] = {}
for _word, _canonical in AUDIENCES.items():
    _AUDIENCE_STEMS.setdefault(_canonical, set()).add(stem(_word.replace("'", "")))
_FORMAT_STEMS: dict[str, set[str]] = {}
for _word, _canonical in FORMATS.items():
    _FORMAT_STEMS.setdefault(_canonical, set()).update(stems(_word))


@dataclass(frozen=True)
class Evidence:
    """What a product's text supports: its words (as stems), its claims and its readable sizes.

    `runs` holds the stems of each part of the text in their order; with it, the words of a value must also stand
    near each other. Without it (a value that was cut out of the text, as the rules do) their presence is enough.
    """

    stems: frozenset[str]
    claims: Claims
    sizes: tuple[Size, ...]
    runs: tuple[tuple[str, ...], ...] | None = None

    @classmethod
    def of(cls, texts: Iterable[str], claims: Claims, sizes: Iterable[Size | None]) -> Evidence:
        """From the normalised texts of one product and what was read in them."""
        found = set(words("\n".join(texts)))
        return cls(frozenset(map(stem, found)), claims, tuple(size for size in sizes if size is not None))

    @classmethod
    def of_product(cls, product: ProductText) -> Evidence:
        """From a product's text as it came, for values that a model proposes.

        Sentences that instruct a machine support nothing: what they want to plant is not in the product.
        """
        fields = (product.title[:MAX_TITLE_CHARS], product.brand, product.size)
        texts = [drop_instructions(strip_markup(field)) for field in fields if field]
        description = (product.description or "")[:MAX_DESCRIPTION_CHARS]
        texts += [part for part in drop_instructions(strip_markup(description)).split("\n") if part]
        sentences = [sentence for text in texts for sentence in text.split(". ")]
        claims = merge_claims([read_claims(text) for text in texts])
        sizes = [reading.size for reading in map(read_size, sentences) if reading.size is not None]
        runs = tuple(map(stems, texts))
        return cls(frozenset(key for run in runs for key in run), claims, tuple(sizes), runs)

    def holds(self, value: str) -> bool:
        """True where every word of the value is in the text, whatever its number, case and accents."""
        keys = stems(value)
        if not keys or not self.stems.issuperset(keys):
            return False
        return len(keys) == 1 or self.runs is None or any(_near(keys, run) for run in self.runs)

    def measures(self, size: Size) -> bool:
        """True where the text names that size, rounding aside, or the whole of a multipack for its part."""
        return size in self.sizes or any(_same(size, stated) for stated in self.sizes)

    def supports(self, kind: Support, value: str) -> bool:
        """Whether the text supports a value of a field of that kind."""
        if kind is Support.WORDS:
            return self.holds(value)
        if kind is Support.FORMAT:
            return self._names(_FORMAT_STEMS, value)
        if kind is Support.AUDIENCE:
            return self._names(_AUDIENCE_STEMS, value)
        if value in self.claims.denied:
            return False
        if kind is Support.CLAIM:
            return value in self.claims.dietary or (self.runs is not None and value in self.claims.other)
        return value in self.claims.other or self.holds(value)

    def _names(self, variants: dict[str, set[str]], value: str) -> bool:
        """True where the text holds a word that stands for the canonical value."""
        if variants.get(value, set()) & self.stems or self.holds(value):
            return True
        return any(variants[part] & self.stems for part in _BROAD_AUDIENCES.get(value, ()) if part in variants)


_BROAD_AUDIENCES = {
    "unisex": ("men", "women"),
    "kids": ("boys", "girls", "toddlers"),
}


def verify(attributes: A, evidence: Evidence, fields: Sequence[FieldSpec]) -> tuple[A, tuple[Unsupported, ...]]:
    """The attributes without the values that the text does not support, and those values with reasons."""
    dropped: list[Unsupported] = []
    kept: dict[str, Any] = {}
    for field in fields:
        value = getattr(attributes, field.name)
        if value is None or value == ():
            continue
        if field.kind == "size":
            if evidence.measures(value):
                continue
            dropped.append(Unsupported(field.name, str(value), "not in the text"))
            kept[field.name] = None
            continue
        values = value if field.kind == "list" else (value,)
        supported = tuple(item for item in values if evidence.supports(field.support, item))
        if len(supported) == len(values):
            continue
        for item in values:
            if item not in supported:
                reason = "the text denies it" if item in evidence.claims.denied else "not in the text"
                dropped.append(Unsupported(field.name, item, reason))
        kept[field.name] = supported if field.kind == "list" else None
    return (attributes.model_copy(update=kept) if dropped else attributes), tuple(dropped)


def _near(keys: Sequence[str], run: Sequence[str]) -> bool:
    """True where all keys stand within NEAR words of a place of the first one."""
    wanted = set(keys)
    if not wanted.issubset(run):
        return False
    return any(word == keys[0] and wanted.issubset(run[max(0, i - NEAR) : i + NEAR + 1]) for i, word in enumerate(run))


def _same(size: Size, stated: Size) -> bool:
    if size.unit != stated.unit:
        return False
    amounts = {(stated.amount, stated.count), (stated.amount * stated.count, 1)}
    return any(
        size.count == count and abs(size.amount - amount) <= _SIZE_TOLERANCE * amount for amount, count in amounts
    )
