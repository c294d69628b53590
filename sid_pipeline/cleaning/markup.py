"""Strips HTML and marketing copy, so that facts are read from factual clauses alone.

Belongs here: what is markup or advertising. What the remaining facts are belongs to the extractors.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from functools import lru_cache

from sid_pipeline.cleaning.text import WORD, lowered, normalise, word_set

MAX_TITLE_CHARS = 600
MAX_DESCRIPTION_CHARS = 6_000

_NESTED_AMPERSAND = re.compile(r"&(?:amp;|#0*38;|#x0*26;)+", re.IGNORECASE)
_INVISIBLE = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_GLUED_TAG = re.compile(r"</?(?:su[bp])\b[^<>]*>", re.IGNORECASE)
_BLOCK_TAG = re.compile(r"</?(?:p|br|div|li|ul|ol|h[1-6]|tr|table|section|hr)\b[^<>]*>", re.IGNORECASE)
_ANY_TAG = re.compile(r"</?[a-z!?][^<>]*>", re.IGNORECASE)
_MARKED_UP = re.compile(r"&#?\w|</?[a-z!?][^<>]*>|://\S|\bwww\.\S", re.IGNORECASE)
_SPACES = re.compile(r" {2,}")
_LINK = re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE)


def strip_markup(text: str) -> str:
    """The normalised text without HTML tags, entities, scripts and links. Idempotent; block tags end a line."""
    text = normalise(text)
    while ("&" in text or "<" in text or "." in text or ":" in text) and _MARKED_UP.search(text):
        previous = text
        if "&" in text:
            text = html.unescape(_NESTED_AMPERSAND.sub("&", text))
        if "<" in text:
            text = _INVISIBLE.sub("\n", text)
            text = _GLUED_TAG.sub("", text)
            text = _BLOCK_TAG.sub("\n", text)
            text = _ANY_TAG.sub(" ", text)
        text = normalise(_SPACES.sub(" ", _LINK.sub(" ", text)))
        if text == previous:
            break
    return text


# Words and phrases that sell. A clause that holds one and no fact is dropped.
_SELLING = word_set(
    """buy hurry guarantee guaranteed guarantees satisfaction bestseller bestselling offer offers sale
    discount discounts price prices replacement amazing incredible awesome fantastic fabulous
    wonderful unbelievable sensational stunning gorgeous irresistible irresistibly mouthwatering
    delicious deliciously deliciousness tasty tastiest yummy scrumptious heavenly divine indulge
    indulgent indulgence indulging pamper delight delights delightful delightfully delighted enjoy
    enjoyed enjoyable enjoyment enjoys enjoying love loved loves you you'll you're your yours yourself
    we we've we're our us trust trusted perfect perfectly perfection ideal ideally favourite favorite
    favourites favorites everyone everyday never experience discover introducing elevate transform
    unleash upgrade magic magical secret luxury luxurious exclusive exceptional outstanding superb
    superior finest best unbeatable unrivalled unmatched quality passion passionate proud proudly
    happiness happy smile smiles joy memory memories memorable moment moments trend trendy trending
    click subscribe rated review reviews customer customers star stars thousands millions bring brings
    bringing celebrate celebration celebrating paradise dream dreams dreamy bursting explosion
    revolutionary irreplaceable shop"""
)
_SELLING_PHRASE = re.compile(
    r"\b(?:order (?:now|today|online)|add to (?:cart|basket|bag|trolley)|free (?:shipping|delivery|returns)|"
    r"cash on delivery|"
    r"money.?back|\d+[ -]days?\b|great (?:value|deal)|best.?sell|limited (?:time|offer|stock|edition)|"
    r"while stocks? last|don't miss|"
    r"\d+ ?% off|save (?:up to|\d|big|money|now)|only rs|at rs|genuine products?|award.?winning|"
    r"world.?(?:class|famous|renowned)|"
    r"world's|number one|no\. ?1\b|mouth.?watering|treat (?:yourself|your)|must.?have|whole family|"
    r"say goodbye|every (?:day|occasion|"
    r"home|time|meal|bite)|look no further|why (?:wait|not|settle)|waiting for|like no other|second to none|"
    r"game.?chang|follow us)|#1"
)

# Evidence of a fact: composition, measures, origin, claims. A clause with one is kept.
_FACTS = word_set(
    """ingredient ingredients contain contains containing material fabric certified organic vegan vegetarian
    kosher halal wholegrain weighs dimensions capacity serves origin imported enriched fortified
    sweetened unsweetened salted unsalted roasted smoked baked dried frozen canned sliced diced ground
    grated cooked stainless cotton leather plastic wood wooden glass ceramic silicone polyester steel
    wool linen bamboo gluten dairy lactose"""
)
_FACT_PHRASE = re.compile(
    r"\b(?:made (?:with|from|of|in|using)|consists? of|composed of|free from|"
    r"[a-z]+[ -]free\b(?! (?:shipping|delivery|returns))|no added|"
    r"suitable for|whole ?(?:grain|wheat)|net (?:weight|wt)|pack of|per 100|per serving|shelf life|"
    r"store (?:in|at|below)|"
    r"keep (?:in|frozen|refrigerated|cool)|(?:grown|produced) in|(?:source of|rich in|high in|low in) )|"
    r"\d ?(?:g|kg|mg|ml|cl|l|oz|lb|cm|mm|inch|mah)\b|\d ?%(?! off)"
)

# A text that talks to a machine instead of describing a product.
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}\b(?:instructions?|prompts?|rules?|above|previous|"
    r"prior)\b|"
    r"\b(?:system|assistant|user|developer) ?(?:prompt|message|role)?:|\byou (?:are|must|should|"
    r"will) (?:now )?"
    r"(?:an?|the|act|respond|reply|output|return|set|answer|classify|label)\b|\b(?:as an|large) (?:ai|"
    r"language model)\b|"
    r"\b(?:respond|reply|answer) (?:only )?with\b|\b(?:output|return) (?:only|the following|json)\b|"
    r"\bset (?:the )?(?:brand|product[_ ]?type|size|tags?|category|price|confidence)\b"
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\w\"'(\[*-])|\n+|\s*[•●▪*]\s+|(?<=[!?])")
# The same for a text without bullets, and several times quicker.
_PLAIN_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\w\"'(\[*-])|\n+|(?<=[!?])")
_BULLET = re.compile(r"[•●▪*]")
_CLAUSE_END = re.compile(r"\s*(?:;|,|\s-\s|\s[\u2013\u2014]\s|:(?=\s)|\.\.+)\s*")
_ENUMERATION = re.compile(
    r"\b(?:ingredients?|contains?|made (?:with|from|of)|free from|composed of|consists? of|allergens?|"
    r"may contain)\b",
    re.IGNORECASE,
)


_TITLE_COPY = re.compile(
    r"\b(?:(?:free|fast|next[ -]day) (?:delivery|shipping)|(?:low|best|great|lowest) prices?|(?:top|high|"
    r"premium) quality|must[ -]have|"
    r"(?:great |perfect )?gift ideas?|buy (?:online|now|\d+ get \d+)|(?:hot|best|special|new) (?:deal|offer|"
    r"trending|item)s?|"
    r"best[ -]?sell(?:er|ing)|limited (?:time|offer)|on sale|\d+ ?% off|cash on delivery|new look|"
    r"new(?! (?:york|england|zealand|orleans|mexico|world|potato|season))|"
    r"now even \w+)(?!\w)"
)


def title_copy_spans(title: str) -> list[tuple[int, int]]:
    """The spans of a normalised title that only sell: `best price`, `free delivery`."""
    return [match.span() for match in _TITLE_COPY.finditer(lowered(title))]


def drop_instructions(text: str) -> str:
    """A normalised text without the sentences that talk to a machine instead of describing a product.

    An instruction may run over the end of a sentence (`Ignore! all previous rules`): every sentence that holds a part
    of it goes. Those around it may make another one when they meet, so the rest is looked at again.
    """
    while instructs(text):
        lines = [_without_instructions(line) for line in text.split("\n")]
        text = "\n".join(" ".join(line) for line in lines if line)
    return text


def _without_instructions(line: str) -> list[str]:
    """The sentences of a line that no instruction touches."""
    found = [match.span() for match in _INSTRUCTION.finditer(lowered(line))]
    ends = [match.span() for match in _SENTENCE_END.finditer(line)]
    starts = [0, *(end for _, end in ends)]
    stops = [*(start for start, _ in ends), len(line)]
    return [
        line[start:stop]
        for start, stop in zip(starts, stops, strict=True)
        if not instructs(line[start:stop]) and not any(a < stop and start < b for a, b in found)
    ]


def instructs(text: str) -> bool:
    """True for a text that holds an instruction to a machine."""
    return _INSTRUCTION.search(lowered(text)) is not None


@dataclass(frozen=True)
class Copy:
    """A description parted into the clauses that state facts and those that sell, in their order."""

    factual: tuple[str, ...]
    promotional: tuple[str, ...]


def split_copy(text: str) -> Copy:
    """Parts a normalised text, sentence by sentence, into facts and advertising.

    A sentence that sells nothing stays whole. A sentence that sells and states facts is parted into clauses, of which
    the factual ones stay; an enumeration (`made with durum wheat, salt and eggs`) is not torn apart. A sentence that
    only sells, and one that instructs a machine, is dropped.
    """
    factual: list[str] = []
    promotional: list[str] = []
    for sentence in (_SENTENCE_END if _BULLET.search(text) else _PLAIN_SENTENCE_END).split(text):
        facts, selling = _split_sentence(sentence.strip())
        factual += facts
        promotional += selling
    return Copy(tuple(factual), tuple(promotional))


@lru_cache(maxsize=16384)
def _split_sentence(sentence: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The factual and the promotional parts of one sentence. Cached: advertising repeats across a catalogue."""
    lower = lowered(sentence)
    if not any(map(str.isalnum, lower)):
        return (), ()
    if _INSTRUCTION.search(lower):
        return (), (sentence,)
    if not _sells(lower):
        return (sentence.rstrip("!"),), ()
    if not _states(lower):
        return (), (sentence,)
    enumeration = _ENUMERATION.search(sentence)
    cut = enumeration.start() if enumeration else len(sentence)
    factual: list[str] = []
    promotional: list[str] = []
    for clause in filter(None, _CLAUSE_END.split(sentence[:cut])):
        lower = lowered(clause)
        (promotional if _sells(lower) and not _states(lower) else factual).append(clause)
    if enumeration:
        factual.append(sentence[cut:].rstrip("!"))
    return tuple(factual), tuple(promotional)


def _sells(lower: str) -> bool:
    return not _SELLING.isdisjoint(WORD.findall(lower)) or _SELLING_PHRASE.search(lower) is not None


def _states(lower: str) -> bool:
    return not _FACTS.isdisjoint(WORD.findall(lower)) or _FACT_PHRASE.search(lower) is not None
