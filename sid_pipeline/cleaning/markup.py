"""Strips HTML and marketing copy, so that facts are read from factual clauses alone.

Belongs here: what is markup or advertising. What the remaining facts are belongs to the extractors.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from sid_pipeline.cleaning.text import WORD, lowered, normalise

MAX_TITLE_CHARS = 600
MAX_DESCRIPTION_CHARS = 6_000

_NESTED_AMPERSAND = re.compile(r"&(?:amp;|#0*38;|#x0*26;)+", re.IGNORECASE)
_INVISIBLE = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_GLUED_TAG = re.compile(r"</?(?:su[bp])\b[^<>]*>", re.IGNORECASE)
_BLOCK_TAG = re.compile(r"</?(?:p|br|div|li|ul|ol|h[1-6]|tr|table|section|hr)\b[^<>]*>", re.IGNORECASE)
_ANY_TAG = re.compile(r"</?[a-z!?][^<>]*>", re.IGNORECASE)
_LINK = re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE)


def strip_markup(text: str) -> str:
    """The normalised text without HTML tags, entities, scripts and links. Idempotent; block tags end a line."""
    previous = None
    while text != previous:
        previous = text
        if "&" in text:
            text = html.unescape(_NESTED_AMPERSAND.sub("&", text))
        if "<" in text:
            text = _INVISIBLE.sub("\n", text)
            text = _GLUED_TAG.sub("", text)
            text = _BLOCK_TAG.sub("\n", text)
            text = _ANY_TAG.sub(" ", text)
        text = _LINK.sub(" ", text)
        text = normalise(text)
    return text


# Words and phrases that sell. A clause that holds one and no fact is dropped.
_SELLING = frozenset(
    """buy hurry guarantee guaranteed guarantees satisfaction bestseller bestselling offer offers sale discount discounts price prices
    replacement amazing incredible awesome fantastic fabulous wonderful unbelievable sensational stunning gorgeous irresistible
    irresistibly mouthwatering delicious deliciously deliciousness tasty tastiest yummy scrumptious heavenly divine indulge indulgent
    indulgence indulging pamper delight delights delightful delightfully delighted enjoy enjoyed enjoyable enjoyment enjoys enjoying
    love loved loves you you'll you're your yours yourself we we've we're our us trust trusted perfect perfectly perfection ideal
    ideally favourite favorite favourites favorites everyone everyday never experience discover introducing elevate transform unleash
    upgrade magic magical secret luxury luxurious exclusive exceptional outstanding superb superior finest best unbeatable unrivalled
    unmatched quality passion passionate proud proudly happiness happy smile smiles joy memory memories memorable moment moments trend
    trendy trending click subscribe rated review reviews customer customers star stars thousands millions bring brings bringing
    celebrate celebration celebrating paradise dream dreams dreamy bursting explosion revolutionary irreplaceable shop""".split()
)
_SELLING_PHRASE = re.compile(
    r"\b(?:order (?:now|today|online)|add to (?:cart|basket|bag|trolley)|free (?:shipping|delivery|returns)|cash on delivery|"
    r"money.?back|\d+[ -]days?\b|great (?:value|deal)|best.?sell|limited (?:time|offer|stock|edition)|while stocks? last|don't miss|"
    r"\d+ ?% off|save (?:up to|\d|big|money|now)|only rs|at rs|genuine products?|award.?winning|world.?(?:class|famous|renowned)|"
    r"world's|number one|no\. ?1\b|mouth.?watering|treat (?:yourself|your)|must.?have|whole family|say goodbye|every (?:day|occasion|"
    r"home|time|meal|bite)|look no further|why (?:wait|not|settle)|waiting for|like no other|second to none|game.?chang|follow us)|#1"
)

# Evidence of a fact: composition, measures, origin, claims. A clause with one is kept.
_FACTS = frozenset(
    """ingredient ingredients contain contains containing material fabric certified organic vegan vegetarian kosher halal wholegrain
    weighs dimensions capacity serves origin imported enriched fortified sweetened unsweetened salted unsalted roasted smoked baked
    dried frozen canned sliced diced ground grated cooked stainless cotton leather plastic wood wooden glass ceramic silicone
    polyester steel wool linen bamboo gluten dairy lactose""".split()
)
_FACT_PHRASE = re.compile(
    r"\b(?:made (?:with|from|of|in|using)|consists? of|composed of|free from|[a-z]+[ -]free\b(?! (?:shipping|delivery|returns))|no added|"
    r"suitable for|whole ?(?:grain|wheat)|net (?:weight|wt)|pack of|per 100|per serving|shelf life|store (?:in|at|below)|"
    r"keep (?:in|frozen|refrigerated|cool)|(?:grown|produced) in|(?:source of|rich in|high in|low in) )|"
    r"\d ?(?:g|kg|mg|ml|cl|l|oz|lb|cm|mm|inch|mah)\b|\d ?%(?! off)"
)

# A text that talks to a machine instead of describing a product.
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}\b(?:instructions?|prompts?|rules?|above|previous|prior)\b|"
    r"\b(?:system|assistant|user|developer) ?(?:prompt|message|role)?:|\byou (?:are|must|should|will) (?:now )?"
    r"(?:an?|the|act|respond|reply|output|return|set|answer|classify|label)\b|\b(?:as an|large) (?:ai|language model)\b|"
    r"\b(?:respond|reply|answer) (?:only )?with\b|\b(?:output|return) (?:only|the following|json)\b|"
    r"\bset (?:the )?(?:brand|product[_ ]?type|size|tags?|category|price|confidence)\b"
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\w\"'(\[*-])|\n+|\s*[•●▪*]\s+|(?<=[!?])")
_CLAUSE_END = re.compile(r"\s*(?:;|,|\s-\s|\s–\s|\s—\s|:(?=\s)|\.\.+)\s*")
_ENUMERATION = re.compile(
    r"\b(?:ingredients?|contains?|made (?:with|from|of)|free from|composed of|consists? of|allergens?|may contain)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Copy:
    """A description parted into the clauses that state facts and those that sell, in their order."""

    factual: tuple[str, ...]
    promotional: tuple[str, ...]


def split_copy(text: str) -> Copy:
    """Parts a normalised text, sentence by sentence, into facts and advertising.

    A sentence that sells nothing stays whole. A sentence that sells and states facts is parted into clauses, of
    which the factual ones stay; an enumeration (`made with durum wheat, salt and eggs`) is not torn apart. A
    sentence that only sells, and one that instructs a machine, is dropped.
    """
    factual: list[str] = []
    promotional: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        sentence = sentence.strip()
        if not sentence:
            continue
        lower = lowered(sentence)
        if _INSTRUCTION.search(lower):
            promotional.append(sentence)
        elif not _sells(lower):
            factual.append(sentence.rstrip("!"))
        elif not _states(lower):
            promotional.append(sentence)
        else:
            _split_sentence(sentence, factual, promotional)
    return Copy(tuple(factual), tuple(promotional))


def _split_sentence(sentence: str, factual: list[str], promotional: list[str]) -> None:
    enumeration = _ENUMERATION.search(sentence)
    cut = enumeration.start() if enumeration else len(sentence)
    clauses = [clause for clause in _CLAUSE_END.split(sentence[:cut]) if clause]
    for clause in clauses:
        lower = lowered(clause)
        (promotional if _sells(lower) and not _states(lower) else factual).append(clause)
    if enumeration:
        factual.append(sentence[cut:].rstrip("!"))


def _sells(lower: str) -> bool:
    return not _SELLING.isdisjoint(WORD.findall(lower)) or _SELLING_PHRASE.search(lower) is not None


def _states(lower: str) -> bool:
    return not _FACTS.isdisjoint(WORD.findall(lower)) or _FACT_PHRASE.search(lower) is not None
