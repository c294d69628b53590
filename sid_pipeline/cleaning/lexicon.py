"""What one catalogue teaches: its brands, its head nouns and compounds, the names of its leaves.

A lexicon is learned once and then frozen as an artefact: a cleaner that relearned it nightly would give new keys, and
new costs, to texts that did not change. Words that hold for every catalogue belong to `vocabulary`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sid_pipeline.cleaning.markup import MAX_TITLE_CHARS, strip_markup
from sid_pipeline.cleaning.model import ProductText
from sid_pipeline.cleaning.phrases import (
    QUALIFIERS,
    Span,
    Word,
    brand_key,
    brand_keys,
    find_brand,
    split_phrases,
    title_words,
)
from sid_pipeline.cleaning.sizes import read_size
from sid_pipeline.cleaning.tags import read_audience, read_claims
from sid_pipeline.cleaning.text import fold, stem, words
from sid_pipeline.cleaning.vocabulary import INGREDIENTS, PLACEHOLDERS, SELLING_WORDS

FORMAT_VERSION = 1
MAX_LEARNED_ROWS = 200_000
MAX_BRAND_WORDS = 5

_LEAF_SEPARATOR = re.compile(r"\s*(?:[,/&>()|]|\band\b|\s-\s)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Lexicon:
    """The frozen knowledge of a catalogue; equal content has an equal `id`.

    brands: key of a brand (stems) -> its commonest spelling, only where a title that holds the words is mostly
        always of that brand.
    leading_brands: the same for brands that are trusted only at the start of a title.
    spellings: key of a brand that the catalogue spells in several ways -> the commonest one.
    words: stem -> [times seen in titles, times it ended a phrase].
    types: stems of a product type, one to three words -> its commonest surface form.
    leaves: stems of the parts of category names.
    """

    brands: dict[str, str]
    leading_brands: dict[str, str]
    spellings: dict[str, str]
    words: dict[str, list[int]]
    types: dict[str, str]
    leaves: dict[str, str]

    @classmethod
    def empty(cls) -> Lexicon:
        """A lexicon that knows nothing: the cleaner then relies on the fixed vocabulary alone."""
        return cls({}, {}, {}, {}, {}, {})

    @classmethod
    def learn(cls, rows: Iterable[ProductText], category_names: Iterable[str]) -> Lexicon:
        """Learns from a catalogue. The result does not depend on the order of the rows.

        Of more than 200,000 rows a sample is used: those with the smallest hash of title and brand.
        """
        sample = _sample(rows)
        leaves = _leaf_phrases(category_names)
        titles = [strip_markup(row.title[:MAX_TITLE_CHARS]).replace("\n", " ") for row in sample]
        title_word_lists = [title_words(title) for title in titles]
        brands, leading, spellings = _learn_brands(sample, title_word_lists)
        word_counts, types = _learn_types(sample, titles, title_word_lists, brands, leading, leaves)
        return cls(brands, leading, spellings, word_counts, types, leaves)

    @cached_property
    def id(self) -> str:
        """A hash of the content, 16 hexadecimal digits."""
        return hashlib.blake2b(self._json().encode(), digest_size=8).hexdigest()

    @cached_property
    def leaf_heads(self) -> frozenset[str]:
        """The last words of the category names' parts, as stems."""
        return frozenset(key.rpartition(" ")[2] for key in self.leaves)

    def save(self, path: str | Path) -> None:
        """Writes the lexicon as JSON with sorted keys: equal lexicons give equal bytes."""
        Path(path).write_text(self._json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Lexicon:
        """Reads what `save` wrote.

        Raises:
            ValueError: the file is no lexicon, or one of another format version.
        """
        mend = "learn the lexicon again"
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            version = content["format_version"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no lexicon ({error}); {mend}.") from error
        if version != FORMAT_VERSION:
            raise ValueError(f"{path} is a lexicon of format {version}, this program reads {FORMAT_VERSION}; {mend}.")
        return cls(**{field: content[field] for field in _FIELDS})

    def _json(self) -> str:
        content = {"format_version": FORMAT_VERSION, **{field: getattr(self, field) for field in _FIELDS}}
        return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


_FIELDS = ("brands", "leading_brands", "spellings", "words", "types", "leaves")


def _sample(rows: Iterable[ProductText]) -> list[ProductText]:
    """Up to MAX_LEARNED_ROWS rows, chosen and ordered by hash, in bounded memory."""
    kept: list[tuple[bytes, str, str, ProductText]] = []
    for row in rows:
        if not row.title:
            continue
        brand = row.brand or ""
        digest = hashlib.blake2b(f"{row.title}\x00{brand}".encode("utf-8", "replace"), digest_size=8).digest()
        kept.append((digest, row.title, brand, row))
        if len(kept) >= 2 * MAX_LEARNED_ROWS:
            kept = sorted(kept, key=lambda entry: entry[:3])[:MAX_LEARNED_ROWS]
    return [entry[3] for entry in sorted(kept, key=lambda entry: entry[:3])[:MAX_LEARNED_ROWS]]


def _leaf_phrases(category_names: Iterable[str]) -> dict[str, str]:
    """`Bath & Shower` -> bath, shower. A name without a separator stays one phrase."""
    leaves: dict[str, str] = {}
    for name in sorted(set(category_names)):
        for part in _LEAF_SEPARATOR.split(strip_markup(name)):
            part_words = words(part)
            if 1 <= len(part_words) <= 4 and not part_words[-1].isdigit():
                leaves.setdefault(" ".join(map(stem, part_words)), " ".join(part_words).lower())
    return leaves


def is_placeholder(brand: str) -> bool:
    """True for a brand field that names no brand: `N/A`, `unknown`, `-`."""
    key = fold(brand).strip()
    return not any(c.isalnum() for c in key) or key in PLACEHOLDERS


def _learn_brands(
    sample: list[ProductText], title_word_lists: list[list[Word]]
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Brands whose words name that brand four times in five; those that do at a title's start; spellings."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    row_keys: list[str] = []
    for row in sample:
        brand = strip_markup(row.brand).replace("\n", " ") if row.brand else ""
        key = "" if not brand or is_placeholder(brand) else brand_key(brand)
        if key.count(" ") >= MAX_BRAND_WORDS or key.isdigit():
            key = ""
        if key:
            spellings[key][brand] += 1
        row_keys.append(key)
    display = {
        key: min(counter, key=lambda spelling: (-counter[spelling], spelling)) for key, counter in spellings.items()
    }
    anywhere, leading = _Agreement(), _Agreement()
    for row_key, title in zip(row_keys, title_word_lists, strict=True):
        if not row_key:
            continue
        keyed = [word.key for word in title if word.text not in ("and", "the")]
        present: set[str] = set()
        for length in range(1, MAX_BRAND_WORDS + 1):
            for i in range(len(keyed) - length + 1):
                gram = " ".join(keyed[i : i + length])
                if gram in display:
                    present.add(gram)
                    if i == 0:
                        leading.count(gram, gram == row_key)
        for gram in present:
            anywhere.count(gram, gram == row_key)
    brands = {
        key: display[key]
        for key in sorted(display)
        if len(key) > 1 and (anywhere.trusted(key) or (not anywhere.seen[key] and _distinctive(key, spellings[key])))
    }
    leading_brands = {
        key: display[key] for key in sorted(display) if len(key) > 1 and key not in brands and leading.trusted(key)
    }
    varied = {key: display[key] for key in sorted(display) if len(spellings[key]) > 1}
    return brands, leading_brands, varied


class _Agreement:
    """How often a title that holds the words of a brand is of that brand."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.right: Counter[str] = Counter()

    def count(self, key: str, right: bool) -> None:
        self.seen[key] += 1
        self.right[key] += right

    def trusted(self, key: str) -> bool:
        return self.seen[key] > 0 and self.right[key] >= 0.8 * self.seen[key]


def _distinctive(key: str, spellings: Counter[str]) -> bool:
    """A brand never seen in a title is trusted there only if it cannot be a common word."""
    return " " in key and sum(spellings.values()) >= 3 and not any(word in SELLING_WORDS for word in key.split())


def _learn_types(
    sample: list[ProductText],
    titles: list[str],
    title_word_lists: list[list[Word]],
    brands: dict[str, str],
    leading_brands: dict[str, str],
    leaves: dict[str, str],
) -> tuple[dict[str, list[int]], dict[str, str]]:
    total: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    grams: Counter[str] = Counter()
    surfaces: dict[str, Counter[str]] = defaultdict(Counter)
    for row, title, title_word_list in zip(sample, titles, title_word_lists, strict=True):
        masked = _mask(title, title_word_list, row.brand, brands, leading_brands)
        for number, phrase in enumerate(split_phrases(title, title_word_list, masked)):
            keys = [word.key for word in phrase.words]
            total.update(keys)
            if number or phrase.led_by:
                continue
            ends[keys[-1]] += 1
            for length in range(1, min(3, len(keys)) + 1):
                gram = " ".join(keys[-length:])
                grams[gram] += 1
                surfaces[gram][" ".join(word.text for word in phrase.words[-length:])] += 1
    types: dict[str, str] = dict(leaves)
    compounds = {
        gram for gram, count in grams.items() if " " in gram and _is_compound(gram, count, total, ends, leaves)
    }
    for gram in compounds:
        tail = gram.split(" ", 1)[1]
        if " " in tail and tail not in compounds and tail not in leaves:
            continue
        types[gram] = _commonest(surfaces[gram])
    for word, count in ends.items():
        if count >= 2:
            types[word] = _commonest(surfaces[word])
    counts = {word: [count, ends[word]] for word, count in total.items() if count >= 2}
    return counts, types


def _commonest(surfaces: Counter[str]) -> str:
    return min(surfaces, key=lambda surface: (-surfaces[surface], surface))


def _is_compound(gram: str, count: int, total: Counter[str], ends: Counter[str], leaves: dict[str, str]) -> bool:
    """True where the words belong together: the first calls for the last, or is a common kind of it."""
    if gram in leaves:
        return True
    first, _, rest = gram.partition(" ")
    last = rest.rpartition(" ")[2]
    if count < 3 or first in SELLING_WORDS or first in QUALIFIERS or not first.isalpha() or len(first) < 3:
        return False
    calls_for = count / total[first]
    kind_of = count / ends[last]
    if (first,) in INGREDIENTS:
        return calls_for >= 0.25
    return (calls_for >= 0.2 and kind_of >= 0.02) or kind_of >= 0.08


def _mask(
    title: str,
    title_word_list: list[Word],
    brand: str | None,
    brands: dict[str, str],
    leading: dict[str, str],
) -> list[Span]:
    """The spans of a title that are brand, amounts, claims or audience: no part of a product type."""
    spans: list[Span] = [*read_size(title).spans, *read_claims(title).spans, *read_audience(title)[1]]
    if brand and not is_placeholder(brand):
        found = find_brand(title_word_list, brand_keys(brand), {}, MAX_BRAND_WORDS)
    else:
        found = find_brand(title_word_list, brands, leading, MAX_BRAND_WORDS)
    if found:
        spans += found[1]
    return spans
