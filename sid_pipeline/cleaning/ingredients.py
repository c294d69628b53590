"""Reads ingredients and materials out of factual clauses.

Belongs here: the sentence patterns that state a composition. The words themselves are in `vocabulary`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from sid_pipeline.cleaning.phrases import find_ingredients, title_words
from sid_pipeline.cleaning.text import lowered, stems
from sid_pipeline.cleaning.vocabulary import FORMATS

MAX_INGREDIENTS = 8

_LIST = re.compile(
    r"\b(?:key |main |active )?(?:ingredients?|ingr[ée]dients?|ingredientes|ingredienti|zutaten|materials?|"
    r"fabric|composition)"
    r"(?: (?:used|list|include|are))?\s*(?::|-|\binclude\b)\s*(?P<items>[^.\n|]{2,400})",
)
_COMPOSED = re.compile(
    r"\b(?:(?:hand)?(?:made|crafted|prepared|brewed|blended|infused|enriched|filled|topped|flavou?red|"
    r"sweetened|packed|built|"
    r"fortified|seasoned|coated|woven|carved|layered)(?: only| entirely| purely)? (?:with|from|of|using|in)|"
    r"consists? of|composed of|"
    r"(?<!may )contain(?:s|ing)?|a (?:mix|blend) of|combines)\s+(?P<items>[^.\n;|!?]{2,200})",
)
_SEPARATOR = re.compile(r"\s*(?:,|;|&|\band\b|\bor\b|\+|/)\s*")
_PARENTHESES = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\d+(?:[.,]\d+)? ?%|\d+(?:[.,]\d+)? ?(?:mg|mcg|g|ml|iu)\b")
_CLAUSE_STOP = re.compile(
    r"\b(?:for|that|which|to|in|from|by|is|are|as|with|so|at|on|this|it|giving|without|but|no|not|free|"
    r"because|while|when|"
    r"may|specially|using|of origin)\b.*",
)
_FREE = re.compile(r"\bfree\b")
_QUALIFIERS = re.compile(
    r"^(?:(?:the|a|an|only|real|finest|best|premium|pure|100|fresh(?:ly)?|natural|all|our|own|some|high|"
    r"quality|selected|carefully|"
    r"rich|creamy|authentic|genuine|delicious|whole|pieces|chunks|extracts?|of|organic|added|more|than|and|"
    r"goodness|naturally occurring)\b[ -]*)+",
)


def is_ingredient_list(clause: str) -> bool:
    """True for `Ingredients: ...`: what it names is in the product, but claims nothing of the product."""
    return _LIST.match(lowered(clause)) is not None


def stated_ingredients(clauses: Iterable[str]) -> list[str]:
    """The ingredients and materials that factual clauses state, lower case, in their order, at most eight.

    Items of an explicit list (`Ingredients: ...`) are taken as they stand; items of a sentence (`made with ...`) only
    where they hold a known ingredient or material.
    """
    found: dict[str, str] = {}
    for clause in clauses:
        for value in _stated_in(clause):
            found.setdefault(" ".join(stems(value)), value)
    return list(found.values())[:MAX_INGREDIENTS]


@lru_cache(maxsize=16384)
def _stated_in(clause: str) -> tuple[str, ...]:
    clause = lowered(clause)
    found: list[str] = []
    for pattern, known_only in ((_LIST, False), (_COMPOSED, True)):
        for match in pattern.finditer(clause):
            for item in _SEPARATOR.split(_PARENTHESES.sub(" ", match["items"])):
                value = _clean_item(item)
                if value and _acceptable(value, known_only):
                    found.append(value)
    return tuple(found)


def _clean_item(item: str) -> str:
    if _FREE.search(item):
        return ""
    item = _QUALIFIERS.sub("", item.strip(" :-*'\""))
    item = _CLAUSE_STOP.sub("", item)
    return " ".join(word.text for word in title_words(item))


def _acceptable(value: str, known_only: bool) -> bool:
    count = value.count(" ") + 1
    if count > 3 or not any(c.isalpha() for c in value) or value in FORMATS:
        return False
    return not known_only or bool(find_ingredients(title_words(value)))
