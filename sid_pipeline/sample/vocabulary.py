"""Reads the vocabulary of the fictional retailer: leaves with their words, brands, marketing lines.

The words themselves stand in ``text/*.txt`` (one heading level per taxonomy level, ``key: value`` lines that
children inherit); this module only parses and checks them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

TEXT_DIR = Path(__file__).parent / "text"
LEAF_FILES = ("fresh.txt", "pantry.txt", "drinks_frozen.txt", "home.txt")
LANGUAGES = ("fr", "de", "it", "es", "pl", "sv", "pt")
_KEYS = frozenset(
    (
        "types",
        "variants",
        "made",
        "about",
        "uses",
        "packs",
        "pairs",
        "tags",
        "seg",
        "storage",
        "price",
        "swap",
        "clash",
    )
) | frozenset(LANGUAGES)


@dataclass(frozen=True)
class Leaf:
    """A leaf of the taxonomy and the words its products are made from."""

    path: tuple[str, ...]
    types: tuple[str, ...]
    variants: tuple[str, ...]
    made: str  # ingredients or materials; "{v}" stands for the variant
    about: tuple[str, ...]
    uses: tuple[str, ...]
    packs: tuple[str, ...]
    pairs: tuple[str, ...]  # names of leaves that are bought with this one
    tags: tuple[tuple[tuple[str, ...], str], ...]  # (tags, ingredients that replace `made` or "")
    segment: str
    storage: str
    price_cents: tuple[int, int]
    swap: bool  # sibling leaves are substitutes
    foreign: tuple[tuple[str, str], ...]  # (language, product name)
    clashes: tuple[tuple[str, tuple[str, ...]], ...]  # (variant or end of a pack, parts of types it cannot go with)

    @property
    def name(self) -> str:
        return self.path[-1]

    def fits(self, kind: str, variant: str, pack: str) -> bool:
        """Whether a product of this type can come in this variant and pack: no 750 ml of dryer sheets."""
        return not any(
            (left == variant or pack.endswith(left)) and any(part in kind for part in parts)
            for left, parts in self.clashes
        )


@dataclass(frozen=True)
class Brand:
    name: str
    segments: tuple[str, ...]
    language: str
    story: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    leaves: tuple[Leaf, ...]
    brands: tuple[Brand, ...]
    marketing: dict[str, tuple[str, ...]]

    def brands_of(self, segment: str) -> list[Brand]:
        return [brand for brand in self.brands if segment in brand.segments]


def _items(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split("|") if part.strip())


def _tags(value: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    out = []
    for item in _items(value):
        names, _, made = item.partition("=")
        out.append((tuple(name.strip() for name in names.split(",")), made.strip()))
    return tuple(out)


def _clashes(value: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    out = []
    for item in _items(value):
        left, _, parts = item.partition(" ~ ")
        out.append((left, tuple(part.strip() for part in parts.split(","))))
    return tuple(out)


def _sections(text: str) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """(heading path, own keys) of each heading; a deeper heading extends the path of the one above."""
    path: tuple[str, ...] = ()
    keys: dict[str, str] = {}
    for line in text.splitlines():
        if heading := re.match(r"(#+) (.+)", line):
            if path:
                yield path, keys
            path = (*path[: len(heading[1]) - 1], heading[2].strip())
            keys = {}
        elif line.strip():
            key, _, value = line.partition(": ")
            if key in keys:
                raise ValueError(f"{' > '.join(path)}: key {key!r} is given twice")
            keys[key] = value.strip()
    if path:
        yield path, keys


def _leaf(path: tuple[str, ...], keys: dict[str, str]) -> Leaf:
    low, _, high = keys.get("price", "0.9-6.5").partition("-")
    return Leaf(
        path=path,
        types=_items(keys["types"]),
        variants=_items(keys["variants"]),
        made=keys["made"],
        about=_items(keys["about"]),
        uses=_items(keys["uses"]),
        packs=tuple(pack.strip() for pack in keys["packs"].split(",")),
        pairs=tuple(name.strip() for name in re.split(r", (?=[A-Z])", keys["pairs"])),
        tags=_tags(keys["tags"]),
        segment=keys["seg"],
        storage=keys["storage"],
        price_cents=(round(float(low) * 100), round(float(high) * 100)),
        swap=keys.get("swap") == "yes",
        foreign=tuple((language, keys[language]) for language in LANGUAGES if language in keys),
        clashes=_clashes(keys.get("clash", "")),
    )


def _read_leaves() -> tuple[Leaf, ...]:
    leaves = []
    for file_name in LEAF_FILES:
        inherited: dict[tuple[str, ...], dict[str, str]] = {}
        for path, own in _sections((TEXT_DIR / file_name).read_text(encoding="utf-8")):
            if unknown := own.keys() - _KEYS:
                raise ValueError(f"{file_name}, {' > '.join(path)}: unknown keys {sorted(unknown)}")
            keys = {**inherited.get(path[:-1], {}), **own}
            inherited[path] = keys
            if "types" in own:
                leaves.append(_leaf(path, keys))
    names = [leaf.name for leaf in leaves]
    if len(set(names)) != len(names):
        raise ValueError(f"leaf names used twice: {sorted({n for n in names if names.count(n) > 1})}")
    for leaf in leaves:
        if unknown_pairs := set(leaf.pairs) - set(names):
            raise ValueError(f"{leaf.name}: pairs with unknown leaves {sorted(unknown_pairs)}")
    return tuple(leaves)


def _read_brands() -> tuple[Brand, ...]:
    sections = _sections((TEXT_DIR / "brands.txt").read_text(encoding="utf-8").replace("## ", "# "))
    return tuple(
        Brand(
            name=path[0],
            segments=tuple(part.strip() for part in keys["segs"].split(",")),
            language=keys.get("lang", "en"),
            story=_items(keys["story"]),
        )
        for path, keys in sections
    )


def _read_marketing() -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    name = ""
    for line in (TEXT_DIR / "marketing.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            name = line[2:]
            groups[name] = []
        elif line:
            groups[name].append(line)
    return {key: tuple(lines) for key, lines in groups.items()}


@lru_cache(maxsize=1)
def load() -> Vocabulary:
    """The whole vocabulary, read and checked once.

    Raises ValueError that names the heading where a key is unknown or given twice, or a leaf name is used
    twice or is paired with a leaf that does not exist.
    """
    return Vocabulary(_read_leaves(), _read_brands(), _read_marketing())
