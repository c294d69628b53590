"""The truth rule: a value that the product's own text does not support is dropped and named.

Every cleaner passes its result through `verify`, whatever extracted it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sid_pipeline.cleaning.model import CleanedAttributes, Size, Unsupported
from sid_pipeline.cleaning.tags import Claims
from sid_pipeline.cleaning.text import stem, stems, words
from sid_pipeline.cleaning.vocabulary import AUDIENCES, FORMATS

_AUDIENCE_STEMS: dict[str, set[str]] = {}
for _word, _canonical in AUDIENCES.items():
    _AUDIENCE_STEMS.setdefault(_canonical, set()).add(stem(_word.replace("'", "")))
_FORMAT_STEMS: dict[str, set[str]] = {}
for _word, _canonical in FORMATS.items():
    _FORMAT_STEMS.setdefault(_canonical, set()).update(stems(_word))


@dataclass(frozen=True)
class Evidence:
    """What a product's text supports: its words (as stems), its claims and its readable sizes."""

    stems: frozenset[str]
    claims: Claims
    sizes: tuple[Size, ...]

    @classmethod
    def of(cls, texts: Iterable[str], claims: Claims, sizes: Iterable[Size | None]) -> Evidence:
        """From the normalised texts of one product and what was read in them."""
        found = {word for text in texts for word in words(text)}
        return cls(frozenset(map(stem, found)), claims, tuple(size for size in sizes if size is not None))

    def holds(self, value: str) -> bool:
        """True where every word of the value is in the text, whatever its number, case and accents."""
        keys = stems(value)
        return bool(keys) and self.stems.issuperset(keys)


def verify(attributes: CleanedAttributes, evidence: Evidence) -> tuple[CleanedAttributes, tuple[Unsupported, ...]]:
    """The attributes without the values that the text does not support, and those values with reasons."""
    dropped: list[Unsupported] = []

    def keep(field: str, value: str, supported: bool) -> bool:
        if not supported:
            denied = value in evidence.claims.denied
            dropped.append(Unsupported(field, value, "the text denies it" if denied else "not in the text"))
        return supported

    def text(field: str, value: str | None, supported: bool) -> str | None:
        return value if value is None or keep(field, value, supported) else None

    a, claims = attributes, evidence.claims
    kept = CleanedAttributes.model_construct(
        product_type=text("product_type", a.product_type, evidence.holds(a.product_type or "")),
        brand=text("brand", a.brand, evidence.holds(a.brand or "")),
        key_ingredients=tuple(v for v in a.key_ingredients if keep("key_ingredients", v, evidence.holds(v))),
        dietary_tags=tuple(v for v in a.dietary_tags if keep("dietary_tags", v, v in claims.dietary)),
        tags=tuple(v for v in a.tags if keep("tags", v, v in claims.other or evidence.holds(v))),
        format=text("format", a.format, _names(_FORMAT_STEMS, a.format, evidence)),
        size=a.size if a.size is None or keep("size", str(a.size), a.size in evidence.sizes) else None,
        audience=text("audience", a.audience, _names(_AUDIENCE_STEMS, a.audience, evidence)),
    )
    return (attributes if not dropped else kept), tuple(dropped)


_BROAD_AUDIENCES = {
    "unisex": ("men", "women"),
    "kids": ("boys", "girls", "toddlers"),
}


def _names(variants: dict[str, set[str]], value: str | None, evidence: Evidence) -> bool:
    """True where the text holds a word that stands for the canonical value."""
    if value is None:
        return True
    if variants.get(value, set()) & evidence.stems or evidence.holds(value):
        return True
    return any(variants[part] & evidence.stems for part in _BROAD_AUDIENCES.get(value, ()) if part in variants)
