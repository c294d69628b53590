"""Normal forms of text: characters, words and the keys by which words are compared.

Belongs here: what holds for any text. What a word means (units, tags, ingredients) belongs elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_TRADE_MARKS = re.compile("[\u00ae\u2122\u2120\u00a9]|\\((?:tm|r|c)\\)", re.IGNORECASE)
# A vulgar fraction after a digit would fuse with it under NFKC: 1½ -> 11/2.
_FRACTION = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e\u2189])")
_LOST_COMMA = re.compile(r"(?<=[\w)]) {2,}(?=[\w(])")
# UTF-8 that was once read as Windows-1252: Ã© for é.
_MISREAD_1252 = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf\u20ac\u2122\u0153\u0161\u017e]|"
    "\u00e2\u20ac[\u0080-\u00bf\u2122\u0153\u02dc\u201c\u201d]"
)
# UTF-8 that was once read as code page 437 and then lost its box-drawing letters: -« for ®, +¿ for è.
_MISREAD_437 = {
    "-\u00ab": " ", "G\u00e4\u00f3": " ", "-\u00e1": " ", "+\u00ac": "\u00e9", "+\u00bf": "\u00e8",
    "+\u00a6": "\u00f1",
    "+\u00f3": "\u00e2", "+\u00ba": "\u00e7", "+\u00ed": "\u00e1", "+\u00a1": "\u00ed", "-\u00c5": "\u00e8",
    "-\u00a6s": "'s", "-\u00a6": " ",
    "-\u00dc": " ", "G\u00c7\u00d6": "'", "G\u00c7\u00e6": "-", "G\u00c7\u00f4": "-",
    "G\u00c7\u00a5": '"', "G\u00c7\u00a3": '"',
}  # fmt: skip
_MISREAD_437_ANY = re.compile("|".join(map(re.escape, sorted(_MISREAD_437, key=len, reverse=True))))
_CONTROL = re.compile(
    r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]"
)
_SPECIALS = re.compile("[\ufff9-\uffff]")  # the only ones of _CONTROL that Python calls printable
_UNIFY = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"', "\u2044": "/",
        "\u2010": "-",
        "\u2011": "-", "\u2012": "-", "\u2212": "-", "\u00d7": "x", "\u2715": "x", "\u2716": "x",
        "\u00ad": None,
    }
)  # fmt: skip

_TYPOGRAPHY = re.compile("[" + "".join(map(chr, _UNIFY)) + "]")

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
"""A word: letters and digits, with apostrophes inside. Hyphens separate, so `Fisher-Price` is `Fisher "
"Price`."""

_IRREGULAR = {
    "loaves": "loaf", "leaves": "leaf", "knives": "knife", "halves": "half", "shelves": "shelf",
    "wolves": "wolf",
    "men": "man", "women": "woman", "children": "child", "teeth": "tooth", "feet": "foot", "mice": "mouse",
    "olives": "olive", "chives": "chive", "gloves": "glove", "movies": "movie", "cookies": "cookie",
    "brownies": "brownie", "smoothies": "smoothie", "pies": "pie", "ties": "tie", "veggies": "veggie",
    "calories": "calorie", "hoodies": "hoodie", "pixies": "pixie", "selfies": "selfie", "newbies": "newbie",
    "zombies": "zombie", "onesies": "onesie", "quickies": "quickie", "barbies": "barbie", "gas": "gas",
    "swiss": "swiss", "molasses": "molasses", "lens": "lens", "kids": "kid", "shoes": "shoe", "toes": "toe",
    "canoes": "canoe", "axes": "axe", "aches": "ache", "quiches": "quiche", "brioches": "brioche",
    "this": "this",
    "glasses": "glasses", "news": "news", "christmas": "christmas", "plus": "plus",
}  # fmt: skip


def normalise(text: str) -> str:
    """NFKC with control characters, trade marks and typographic variants unified; single spaces,
    newlines kept.

    Idempotent. Runs of two or more spaces inside a line become one `, `: catalogues that lost their commas show them
    as double spaces.
    """
    if text.isascii() and "  " not in text and "(" not in text and text.isprintable():
        return text.strip()
    if "  " in text:
        text = _LOST_COMMA.sub(", ", text)
    while not text.isascii():
        previous, text = text, _unify(text)
        if text == previous:
            return text
    return _tidy(text)


def _tidy(text: str) -> str:
    """One space between words, no control characters; settles ASCII text in one pass."""
    if "(" in text:
        text = _TRADE_MARKS.sub(" ", text)
    if not text.replace("\n", " ").isprintable() or _SPECIALS.search(text):
        text = _CONTROL.sub(" ", text)
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))


def _unify(text: str) -> str:
    text = _FRACTION.sub(" ", text)
    text = _MISREAD_1252.sub(_reread_1252, text)
    if "+" in text or "-" in text or "G" in text:
        text = _MISREAD_437_ANY.sub(lambda match: _MISREAD_437[match.group()], text)
    text = _TRADE_MARKS.sub(" ", text)
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    return _tidy(text.translate(_UNIFY) if _TYPOGRAPHY.search(text) else text)


def _reread_1252(match: re.Match[str]) -> str:
    try:
        return match.group().encode("cp1252").decode("utf-8")
    except UnicodeError:
        return match.group()


def lowered(text: str) -> str:
    """The text in lower case, of the same length, so that positions in both agree."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


@lru_cache(maxsize=65536)
def fold(word: str) -> str:
    """The word without case, accents and apostrophes."""
    word = word.casefold().replace("'", "")
    if word.isascii():
        return word
    decomposed = unicodedata.normalize("NFKD", word)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The folded word in the singular: the key by which words are compared."""
    word = fold(word)
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zzes", "toes")):
        return word[:-2]
    return word[:-1]


def words(text: str) -> list[str]:
    """The words of a normalised text, as written."""
    return WORD.findall(text)


def stems(text: str) -> tuple[str, ...]:
    """The comparison keys of a text's words, in order."""
    return tuple(map(stem, WORD.findall(text)))


def word_set(listed: str) -> frozenset[str]:
    """The words of a list that is parted by white space alone."""
    return frozenset(listed.split())
