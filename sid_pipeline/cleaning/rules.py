"""The rules cleaner: offline, deterministic, the embedded default and the fallback of every other cleaner.

Belongs here: the order in which the extractors read one product and how they share its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sid_pipeline.cleaning.evidence import Evidence, verify
from sid_pipeline.cleaning.ingredients import MAX_INGREDIENTS, is_ingredient_list, stated_ingredients
from sid_pipeline.cleaning.lexicon import MAX_BRAND_WORDS, Lexicon, is_placeholder
from sid_pipeline.cleaning.markup import (
    MAX_DESCRIPTION_CHARS,
    MAX_TITLE_CHARS,
    split_copy,
    strip_markup,
    title_copy_spans,
)
from sid_pipeline.cleaning.model import Cleaning, ProductText, Unsupported
from sid_pipeline.cleaning.phrases import (
    Head,
    Phrase,
    Word,
    brand_key,
    brand_keys,
    descriptive_runs,
    find_brand,
    find_head,
    find_ingredients,
    split_phrases,
    title_words,
)
from sid_pipeline.cleaning.schema import Schema
from sid_pipeline.cleaning.schemas.grocery_1 import CleanedAttributes
from sid_pipeline.cleaning.sizes import SizeReading, read_size
from sid_pipeline.cleaning.tags import merge_claims, read_audience, read_claims
from sid_pipeline.cleaning.text import WORD, lowered, word_set
from sid_pipeline.cleaning.vocabulary import FORMATS

GROCERY = Schema("grocery_1", CleanedAttributes)
"""What the rules extract; a schema of a user's own gets the fields of the same name and kind."""

RULES_VERSION = "2"
"""Part of the cleaner's id: raise it with every change of rules or vocabulary that can change a result."""

MAX_TAGS = 8
_WEAK_HEAD = 0.18
_STRONG_HEAD = 0.5
_NO_READING = SizeReading(None, ())


class RulesCleaner:
    """Extracts attributes by rules, a fixed vocabulary and the lexicon of the catalogue.

    Each text is cleaned by itself: no result depends on another row of the batch. Instances can be pickled.

    Args:
        lexicon: of the catalogue.
        schema: of the table that the results go into, which the id names. The rules extract the same whatever it is.
    """

    def __init__(self, lexicon: Lexicon, schema: Schema = GROCERY) -> None:
        self._lexicon = lexicon
        # Only the id is kept: the workers, which get the cleaner, may lack a user's class.
        own = "" if schema.id == GROCERY.id else f"+{schema.id}"
        self._id = f"rules-{RULES_VERSION}+{GROCERY.id}{own}+lexicon-{lexicon.id}"

    @property
    def id(self) -> str:
        return self._id

    def clean(self, texts: Sequence[ProductText]) -> list[Cleaning]:
        """One result per text, in the same order. Never raises on any text, however odd."""
        return [self._clean_one(text) for text in texts]

    def _clean_one(self, text: ProductText) -> Cleaning:
        title = strip_markup(text.title[:MAX_TITLE_CHARS]).replace("\n", ", ")
        description = strip_markup(text.description[:MAX_DESCRIPTION_CHARS]) if text.description else ""
        size_field = _field(text.size) if text.size else ""
        facts = split_copy(description).factual if description else ()
        dropped: list[Unsupported] = []

        words = title_words(title)
        in_title, in_field = read_size(title), read_size(size_field) if size_field else _NO_READING
        size = in_field.size or in_title.size
        if size is None:
            for source, reading in ((size_field, in_field), (title, in_title)):
                if reading.problem or (source and source == size_field):
                    dropped.append(Unsupported("size", source, reading.problem or "no amount with a known unit"))

        title_claims = read_claims(title)
        claims = merge_claims([title_claims, *(read_claims(fact) for fact in facts if not is_ingredient_list(fact))])
        dropped += [Unsupported("dietary_tags", tag, "the text denies it") for tag in claims.denied]

        audience, audience_spans = read_audience(title)
        if audience is None and facts and not audience_spans:
            audience = _stated_audience(facts)
        brand, brand_spans, brand_problem = self._brand(text.brand, words)
        if brand_problem:
            dropped.append(brand_problem)

        masked = [
            *in_title.spans,
            *title_claims.spans,
            *audience_spans,
            *brand_spans,
            *title_copy_spans(title),
        ]
        phrases = split_phrases(title, words, masked)
        head = self._head(phrases)
        type_words: Sequence[Word] = head.words if head else ()
        if (head is None or head.score < _WEAK_HEAD) and facts:
            from_copy = self._head_of_copy(facts)
            if from_copy is not None:
                head, type_words = from_copy, ()

        used = {word.start for word in type_words}
        ingredients: dict[str, None] = {}
        for phrase in phrases:
            for name, run in find_ingredients(phrase.words, type_words[-1] if type_words else None):
                ingredients[name] = None
                used.update(word.start for word in run)
        for name in stated_ingredients(facts):
            ingredients[name] = None
        product_format, format_starts = _format(phrases, facts, type_words)
        used |= format_starts
        runs = descriptive_runs(phrases, used)

        attributes = CleanedAttributes.model_construct(
            product_type=head.surface if head else None,
            brand=brand,
            key_ingredients=tuple(ingredients)[:MAX_INGREDIENTS],
            dietary_tags=claims.dietary,
            tags=tuple(tag for tag in dict.fromkeys((*claims.other, *runs)) if tag not in ingredients)[:MAX_TAGS],
            format=product_format,
            size=size,
            audience=audience,
        )
        evidence = Evidence.of(
            (title, _field(text.brand) if text.brand else "", size_field, description),
            claims,
            (in_title.size, in_field.size),
        )
        attributes, unsupported = verify(attributes, evidence, GROCERY.fields)
        confidence = _confidence(attributes, head, len(words), sum(run.count(" ") + 1 for run in runs))
        return Cleaning(attributes, confidence, "rules", (*dropped, *unsupported))

    def _brand(
        self, field: str | None, words: Sequence[Word]
    ) -> tuple[str | None, list[tuple[int, int]], Unsupported | None]:
        """The brand, where it stands in the title, and the field that named none."""
        brand = _field(field) if field else ""
        problem = None
        if brand and is_placeholder(brand):
            problem = Unsupported("brand", brand, "a placeholder, not a brand")
            brand = ""
        if brand:
            found = find_brand(words, brand_keys(brand), {}, MAX_BRAND_WORDS)
            return self._lexicon.spellings.get(brand_key(brand), brand), found[1] if found else [], None
        found = find_brand(words, self._lexicon.brands, self._lexicon.leading_brands, MAX_BRAND_WORDS)
        return (found[0], found[1], problem) if found else (None, [], problem)

    def _head(self, phrases: Sequence[Phrase]) -> Head | None:
        lexicon = self._lexicon
        return find_head(phrases, lexicon.words, lexicon.types, lexicon.leaf_heads)

    def _head_of_copy(self, facts: Sequence[str]) -> Head | None:
        """The product type that the first factual clauses name, for titles that name none."""
        heads = []
        for fact in facts[:2]:
            words = title_words(fact)[:25]
            head = self._head(split_phrases(fact, words, [*read_size(fact).spans, *read_claims(fact).spans]))
            if head is not None and head.score >= _STRONG_HEAD:
                heads.append(head)
        return max(heads, key=lambda head: head.score, default=None)


@lru_cache(maxsize=8192)
def _field(value: str) -> str:
    """A short field without markup, on one line. Cached: brands and sizes repeat."""
    return strip_markup(value[:MAX_TITLE_CHARS]).replace("\n", " ")


def _stated_audience(facts: Sequence[str]) -> str | None:
    """The audience a factual clause names with `for` or `suitable for`."""
    for fact in facts:
        at = fact.lower().find("for ")
        if at >= 0:
            audience, spans = read_audience(fact[at : at + 40])
            if audience and spans[0][0] == 0:
                return audience
    return None


def _format(phrases: Sequence[Phrase], facts: Sequence[str], type_words: Sequence[Word]) -> tuple[str | None, set[int]]:
    """The first form named in the title, else in the description, and the title words that name it."""
    starts: set[int] = set()
    first: str | None = None
    for phrase in phrases:
        for word in phrase.words:
            canonical = FORMATS.get(word.text)
            if canonical and (first is None or canonical == first):
                first = canonical
                if word not in type_words:
                    starts.add(word.start)
    if first is None:
        for fact in facts:
            stated = _stated_format(fact)
            if stated:
                return stated, starts
    return first, starts


_STATED_FORMATS = word_set("frozen canned tinned freeze-dried tablets capsules sachets teabags aerosol")


@lru_cache(maxsize=16384)
def _stated_format(fact: str) -> str | None:
    """The form a description names: only words that cannot mean a serving suggestion (`ready to slice`)."""
    return next((FORMATS[word] for word in WORD.findall(lowered(fact)) if word in _STATED_FORMATS), None)


def _confidence(attributes: CleanedAttributes, head: Head | None, words: int, unexplained: int) -> float:
    """How much of the title was understood: the certainty of the type, and the share of words with a meaning."""
    certainty = min(1.0, head.score / 0.6) if head and attributes.product_type else 0.0
    explained = 1.0 - min(unexplained, words) / words if words else 0.0
    return round(0.7 * certainty + 0.3 * explained, 3)
