"""Parts a title into phrases and finds its brand, ingredients and head noun.

Belongs here: what needs the order of a title's words. The knowledge it uses comes from `lexicon` and
`vocabulary`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sid_pipeline.cleaning.text import WORD, fold, stem, word_set
from sid_pipeline.cleaning.vocabulary import FORMATS, INGREDIENTS, SELLING_WORDS

Span = tuple[int, int]

_PREPOSITIONS = word_set("with w in for from by without featuring at on per mit avec con sans to")
_JOINERS = word_set("and of the a an de du des la le el n et y und or &")
_BREAK = re.compile(r"[,;:|/()\[\]{}+!\"\n\d]|\s-|-\s|[\u2013\u2014]|\.\s|\s\*")
MAX_NGRAM = 3


class Word(NamedTuple):
    """One word of a title: as written (lower case), its comparison key and where it stands."""

    text: str
    key: str
    start: int
    end: int


@dataclass
class Phrase:
    """Consecutive words of a title without a break; `led_by` is the preposition before it, if any."""

    led_by: str | None = None
    words: list[Word] = field(default_factory=list)


def title_words(title: str) -> list[Word]:
    """All words of a normalised title."""
    return [Word(m.group().lower(), stem(m.group()), m.start(), m.end()) for m in WORD.finditer(title)]


def split_phrases(title: str, title_words: Sequence[Word], masked: Iterable[Span]) -> list[Phrase]:
    """The title's phrases without the words inside the masked spans (sizes, claims, brand).

    A phrase ends at punctuation, at a masked amount and before a preposition.
    """
    spans = sorted(masked)
    at = 0
    current = Phrase()
    phrases = [current]
    end = 0
    for word in title_words:
        while at < len(spans) and spans[at][1] <= word.start:
            at += 1
        if at < len(spans) and spans[at][0] < word.end:
            continue
        if current.words and _BREAK.search(title, end, word.start):
            current = Phrase()
            phrases.append(current)
        end = word.end
        if word.text in _PREPOSITIONS:
            current = Phrase(led_by=word.text)
            phrases.append(current)
            continue
        current.words.append(word)
    return [phrase for phrase in phrases if phrase.words]


def find_brand(
    words: Sequence[Word], brands: dict[str, str], leading_brands: dict[str, str], max_words: int
) -> tuple[str, list[Span]] | None:
    """The brand a title names, with the spans of all its mentions.

    A brand at the start of the title comes first, then the longest anywhere; `leading_brands` count at the
    start only.
    """
    keyed = [word for word in words if word.text not in ("and", "the")]
    keys = [word.key for word in keyed]
    longest = min(max_words, len(keyed))
    for length in range(longest, 0, -1):
        gram = " ".join(keys[:length])
        brand = brands.get(gram) or leading_brands.get(gram)
        if brand is not None:
            return brand, _mentions(keyed, keys, 0, length)
    if brands:
        for length in range(longest, 0, -1):
            for i in range(1, len(keyed) - length + 1):
                brand = brands.get(" ".join(keys[i : i + length]))
                if brand is not None:
                    return brand, _mentions(keyed, keys, i, length)
    return None


def _mentions(keyed: Sequence[Word], keys: Sequence[str], first: int, length: int) -> list[Span]:
    run = keys[first : first + length]
    return [
        (keyed[i].start, keyed[i + length - 1].end)
        for i in range(first, len(keys) - length + 1)
        if keys[i : i + length] == run
    ]


def brand_keys(brand: str) -> dict[str, str]:
    """The known brand of one row for `find_brand`: its key, also written as one word (`New Ray`, `newray`)."""
    key = brand_key(brand)
    return {key: brand, key.replace(" ", ""): brand} if key else {}


def brand_key(brand: str) -> str:
    """The key under which `find_brand` looks a brand up."""
    return " ".join(stem(word) for word in WORD.findall(brand) if fold(word) not in ("and", "the"))


def find_ingredients(words: Sequence[Word], head: Word | None = None) -> list[tuple[str, list[Word]]]:
    """Known ingredients in consecutive words, longest first at each place, none of them holding the head noun."""
    found: list[tuple[str, list[Word]]] = []
    i = 0
    while i < len(words):
        for length in range(min(MAX_NGRAM, len(words) - i), 0, -1):
            run = list(words[i : i + length])
            if tuple(word.key for word in run) in INGREDIENTS and head not in run:
                found.append((" ".join(word.text for word in run), run))
                i += length
                break
        else:
            i += 1
    return found


@dataclass(frozen=True)
class Head:
    """The product type found in a title: its words, the surface form to show and how sure it is (0..1)."""

    words: tuple[Word, ...]
    surface: str
    score: float


QUALIFIERS = word_set(
    """pack set kit size flavor flavour variety style original count value assorted classic free ct piece
    case can pouch tin plus large small medium big mini maxi regular lge lrg sml med xl xxl ready
    edition series gift dark hot mild month year ply stage not no never only assortment combo unit
    type scent aroma fragrance protection care man woman kid pages page clear transparent multicolor
    multicolour"""
)
_COLOURS = word_set(
    """black white red blue green pink yellow silver gold brown purple grey gray orange beige magenta cyan
    aqua blonde ivory"""
)
_UNFIT_HEADS = QUALIFIERS | _COLOURS
"""Words that end many titles and name no product; they are taken only when nothing better is there."""

_SHAPES = word_set(
    """alternative substitute tray flake relief steak bar bite bit bunch strip nugget stick chip slice cup
    pod mix drink food blend piece chunk cube ring
    half heart puff roll cracker wedge floret spear patty fillet breast thigh wing leg ball tender
    treat dinner meal entree snack cluster crumble crumb sheet bag leaf seed powder paste oil sauce
    butter milk water juice spread filling topping gun case cover holder set stand cream cleaner spray
    killer board machine tree game toy band pan lotion mask scrub wash brush cloth rack rings noodle
    soup salad jam box bottle jar tube light"""
)
"""Heads that say too little alone: they take the word before them along (`fish nuggets`, `coffee cups`)."""

# Participles and adjectives: marinated, resealable; but not seed, bread, vegetable.
_ADJECTIVE = re.compile(r"(?<!se)(?<!we)(?<!fe)(?<!bre)(?<!shr)(?<!sp)ed$|(?<!veget)(?<!\bt)(?<!\bc)able$")
_NOUN_FORMATS = word_set(
    """liquid powder powders spray sprays gel wipe wipes tablet tablets capsule capsules caplets gummies
    gummy drops sachets pods foam mousse lotion flakes cubes slices granules paste refill teabags
    mince puree"""
)
# An ingredient in a later phrase, or at the end of a long one, names a variant: `Loaf Cake Chocolate`.
_VARIANT = 0.5


def find_head(
    phrases: Sequence[Phrase],
    word_counts: dict[str, list[int]],
    types: dict[str, str],
    leaf_words: frozenset[str],
) -> Head | None:
    """The head noun phrase of a title.

    Each word is scored by how often the catalogue ends a first phrase with it, weighted by where it stands here: the
    end of the first phrase is the usual place, a phrase led by a preposition the least likely. The best word then
    takes with it the words before it that make a known compound (`olive oil`).
    """
    best: tuple[float, Phrase, int] | None = None
    for number, phrase in enumerate(phrases):
        place = 0.1 if phrase.led_by else (1.0, 0.7, 0.5)[min(number, 2)]
        last = len(phrase.words) - 1
        while last > 0 and _is_trailer(phrase.words[last]):
            last -= 1
        for i, word in enumerate(phrase.words):
            score = _headness(word, word_counts, leaf_words) * place * (1.0 if i == last else 0.45)
            if (word.key,) in INGREDIENTS and (number or len(phrase.words) > 2):
                score *= _VARIANT
            if score > 0 and (best is None or score > best[0]):
                best = (score, phrase, i)
    if best is None:
        return None
    score, phrase, i = best
    for length in range(min(MAX_NGRAM, i + 1), 1, -1):
        run = phrase.words[i - length + 1 : i + 1]
        surface = types.get(" ".join(word.key for word in run))
        if surface is not None:
            return Head(tuple(run), surface, min(1.0, score + 0.1))
    word = phrase.words[i]
    before = phrase.words[i - 1] if i else None
    if before is not None and word.key in _SHAPES and _specifies(before):
        return Head((before, word), f"{before.text} {word.text}", score)
    return Head((word,), types.get(word.key, word.text), score)


def _headness(word: Word, word_counts: dict[str, list[int]], leaf_words: frozenset[str]) -> float:
    """How likely a word names a product by itself: 0 for words that cannot."""
    text = word.text
    if len(text) < 2 or text in _JOINERS or not text.replace("'", "").isalpha():
        return 0.0
    total, ends = word_counts.get(word.key, (0, 0))
    score = (ends + 0.5) / (total + 3.0)
    if word.key in leaf_words:
        score += 0.6 * (1.0 - score)
    elif _ADJECTIVE.search(text):
        score *= 0.3
    if word.key in _UNFIT_HEADS or text in SELLING_WORDS:
        score *= 0.2
    elif text in FORMATS:
        score *= 0.6 if text in _NOUN_FORMATS else 0.2
    return score


def _specifies(word: Word) -> bool:
    return word.text.isalpha() and len(word.text) > 2 and word.text not in _JOINERS and not _is_trailer(word)


def _is_trailer(word: Word) -> bool:
    """True for a word after which the head noun stands further left: `Milk Original`, `Corn Canned`."""
    return (
        word.key in _UNFIT_HEADS
        or word.text in SELLING_WORDS
        or (word.text in FORMATS and word.text not in _NOUN_FORMATS)
        or not word.text.replace("'", "").isalpha()
    )


def descriptive_runs(phrases: Sequence[Phrase], used: set[int]) -> list[str]:
    """The words of a title that no other attribute took, as phrases in their order; `used` holds word starts."""
    runs: list[str] = []
    for phrase in phrases:
        run: list[str] = []
        for word in phrase.words:
            if word.start in used or word.text in SELLING_WORDS:
                _flush(run, runs)
            else:
                run.append(word.text)
        _flush(run, runs)
    return runs


def _flush(run: list[str], runs: list[str]) -> None:
    while run and run[0] in _JOINERS:
        run.pop(0)
    while run and run[-1] in _JOINERS:
        run.pop()
    if any(any(c.isalpha() for c in word) and len(word) > 1 for word in run):
        text = " ".join(run)
        if text not in runs:
            runs.append(text)
    run.clear()
