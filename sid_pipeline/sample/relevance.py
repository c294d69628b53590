"""Relevance labels in ESCI's column layout, graded by what the generator knows about each product.

Exact: the product is what the query asks for and meets each wish. Substitute: the same kind of thing, a wish
unmet (or the sibling leaf, where siblings replace each other). Complement: from a leaf bought together with
it. Irrelevant: from another department, some of them sharing a word with the query.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sid_pipeline.sample.draw import Draw
from sid_pipeline.sample.files import encoded
from sid_pipeline.sample.products import Product
from sid_pipeline.sample.vocabulary import TEXT_DIR, Leaf, Vocabulary

EXAMPLES_HEADER = (
    "example_id",
    "query",
    "query_id",
    "product_id",
    "product_locale",
    "esci_label",
    "small_version",
    "large_version",
    "split",
)
PRODUCTS_HEADER = (
    "product_id",
    "product_title",
    "product_description",
    "product_bullet_point",
    "product_brand",
    "product_color",
    "product_locale",
)
QUERIES = 300
LOCALE = "us"
MISSING_ID_START = 990_001  # ids that no product has
BAD_LABELS = {"unknown_grade": 5, "missing_product": 5, "other_locale": 4, "contradicting_pair": 5}
_MOST = {"E": 6, "S": 5, "C": 3, "I": 4}  # judged products a query, per grade
_FEWEST_EXACT = 2
_FEWEST_JUDGED = 8
_FILLER_WORDS = frozenset(("for", "the", "and", "with", "a", "no", "to", "of", "something", "free", "in", "on"))


@dataclass(frozen=True)
class Query:
    text: str
    leaves: tuple[str, ...]
    words: frozenset[str]
    tags: frozenset[str]
    brand: str = ""


@dataclass(frozen=True)
class Judgement:
    query: str
    query_id: int
    product_id: str
    label: str
    locale: str
    small: int
    split: str


def _words(text: str) -> frozenset[str]:
    """Lower-case words without a plural s."""
    found = re.findall(r"[^\W_]+", text.lower())
    return frozenset(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in found)


def handwritten_queries() -> list[Query]:
    queries = []
    for line in (TEXT_DIR / "queries.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            text, leaves, words, tags = (part.strip() for part in line.split("|"))
            queries.append(
                Query(
                    text,
                    tuple(name.strip() for name in leaves.split(";")),
                    _words(words),
                    frozenset(tag.strip() for tag in tags.split(",") if tag.strip()),
                )
            )
    return queries


class _Shelf:
    """The catalogue as the judge sees it: products by leaf, and what each one meets."""

    def __init__(self, vocabulary: Vocabulary, products: Sequence[Product]) -> None:
        self.by_leaf: dict[str, list[Product]] = defaultdict(list)
        for product in products:
            self.by_leaf[product.leaf.name].append(product)
        self.leaves = {leaf.name: leaf for leaf in vocabulary.leaves}
        self.products = list(products)
        self.title_words = {product.product_id: _words(product.title) for product in products}

    def exact(self, query: Query, product: Product) -> bool:
        facts = _words(f"{product.kind} {product.variant}")
        said = f"{product.kind} {product.variant}".lower()
        return (
            product.leaf.name in query.leaves
            and query.words <= facts
            and all(tag in product.tags or tag in said for tag in query.tags)
            and (not query.brand or product.brand.lower() == query.brand.lower())
        )

    def siblings(self, leaf: Leaf) -> list[str]:
        return [other.name for other in self.leaves.values() if other.path[:-1] == leaf.path[:-1] and other != leaf]

    def judged(self, query: Query, draw: Draw) -> list[tuple[Product, str]]:
        """(product, grade) of one query, empty when the catalogue has too little for it."""
        related: set[str] = set(query.leaves)
        exact: list[Product] = []
        substitutes: list[Product] = []
        for name in query.leaves:
            for product in self.by_leaf[name]:
                (exact if self.exact(query, product) else substitutes).append(product)
        if len(exact) < _FEWEST_EXACT:
            return []
        pairs: list[str] = []
        for name in query.leaves:
            leaf = self.leaves[name]
            sibling_names = self.siblings(leaf)
            related.update(sibling_names)
            related.update(leaf.pairs)
            pairs += [pair for pair in leaf.pairs if pair not in query.leaves and pair not in sibling_names]
            if leaf.swap and len(substitutes) < _MOST["S"]:
                for sibling in sibling_names:
                    if sibling not in query.leaves:
                        substitutes += draw.sample(self.by_leaf[sibling], 1)
        complements = [p for name in dict.fromkeys(pairs) for p in draw.sample(self.by_leaf[name], 1)]
        departments = {self.leaves[name].path[0] for name in related}
        strangers = draw.sample([p for p in self.products if p.leaf.path[0] not in departments], 12)
        wanted = _words(query.text) - _FILLER_WORDS
        own_departments = {self.leaves[name].path[0] for name in query.leaves}
        lookalikes = [
            p
            for p in self.products
            if p.leaf.name not in related
            and p.leaf.path[0] not in own_departments
            and wanted & self.title_words[p.product_id]
        ]
        irrelevant = draw.sample(lookalikes, 2) + strangers
        graded = []
        seen: set[str] = set()
        for label, candidates in (
            ("E", draw.shuffled(exact)),
            ("S", draw.shuffled(substitutes)),
            ("C", draw.shuffled(complements)),
            ("I", irrelevant),
        ):
            most = _MOST[label] - (draw.below(3) if label != "I" else 0)
            fresh = [p for p in candidates if p.product_id not in seen][: max(1, most)]
            seen.update(p.product_id for p in fresh)
            graded += [(p, label) for p in fresh]
        return draw.shuffled(graded) if len(graded) >= _FEWEST_JUDGED else []


def _generated_query(leaf: Leaf, product: Product, draw: Draw) -> Query:
    """A query that this product answers, in one of the forms shoppers use."""
    kind, variant = product.kind.lower(), product.variant.lower()
    form = draw.below(6)
    if form == 0 and product.tags:
        tag = draw.choice(product.tags)
        return Query(f"{tag} {kind}", (leaf.name,), _words(kind), frozenset([tag]))
    if form in (1, 2):
        return Query(f"{variant} {kind}", (leaf.name,), _words(f"{kind} {variant}"), frozenset())
    if form == 3:
        return Query(f"{product.brand.lower()} {kind}", (leaf.name,), _words(kind), frozenset(), product.brand)
    if form == 4:
        use = draw.choice(leaf.uses)
        return Query(f"{kind} for {use}", (leaf.name,), _words(kind), frozenset())
    return Query(kind, (leaf.name,), _words(kind), frozenset())


def _with_typo(text: str, draw: Draw) -> str:
    """Two neighbouring letters swapped."""
    place = 1 + draw.below(max(1, len(text) - 3))
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


def judgements(vocabulary: Vocabulary, products: Sequence[Product], seed: int, queries: int) -> list[Judgement]:
    """The good judgements of up to ``queries`` queries; hand-written queries come first."""
    shelf = _Shelf(vocabulary, products)
    draw = Draw(f"{seed}/queries")
    out: list[Judgement] = []
    texts: set[str] = set()

    def ask(query: Query, text: str) -> None:
        if text in texts:
            return
        judged = shelf.judged(query, draw)
        if not judged:
            return
        texts.add(text)
        small, split = int(draw.chance(0.6)), "test" if draw.chance(0.2) else "train"
        out.extend(
            Judgement(text, len(texts), product.product_id, label, LOCALE, small, split) for product, label in judged
        )

    for query in handwritten_queries():
        if len(texts) < queries:
            ask(query, query.text)
    names = sorted(name for name, members in shelf.by_leaf.items() if members)
    for _round in range(4):
        for name in draw.shuffled(names):
            if len(texts) >= queries:
                return out
            query = _generated_query(shelf.leaves[name], draw.choice(shelf.by_leaf[name]), draw)
            ask(query, _with_typo(query.text, draw) if draw.chance(0.03) else query.text)
    return out


def with_bad_labels(good: Sequence[Judgement], seed: int) -> list[Judgement]:
    """The judgements with those of ``BAD_LABELS`` planted among them, in query order."""
    draw = Draw(f"{seed}/bad labels")
    victims = iter(draw.shuffled(good))
    bad: list[Judgement] = []
    for number in range(BAD_LABELS["unknown_grade"]):
        v = next(victims)
        bad.append(
            _changed(v, product_id=_other_product(v, good, draw), label=("X", "", "exact", "5", "?")[number % 5])
        )
    for number in range(BAD_LABELS["missing_product"]):
        bad.append(_changed(next(victims), product_id=f"P{MISSING_ID_START + number}"))
    for _ in range(BAD_LABELS["other_locale"]):
        v = next(victims)
        bad.append(_changed(v, product_id=_other_product(v, good, draw), locale="es"))
    for _ in range(BAD_LABELS["contradicting_pair"]):
        v = next(victims)
        bad.append(_changed(v, label="I" if v.label in "ES" else "E"))
    return sorted([*good, *bad], key=lambda judgement: judgement.query_id)


def _changed(judgement: Judgement, *, product_id: str = "", label: str | None = None, locale: str = "") -> Judgement:
    return Judgement(
        judgement.query,
        judgement.query_id,
        product_id or judgement.product_id,
        judgement.label if label is None else label,
        locale or judgement.locale,
        judgement.small,
        judgement.split,
    )


def _other_product(judgement: Judgement, good: Sequence[Judgement], draw: Draw) -> str:
    """A judged product that this query was not judged with, so that the row is bad for one reason only."""
    taken = {j.product_id for j in good if j.query_id == judgement.query_id}
    return draw.choice(sorted({j.product_id for j in good} - taken))


def example_lines(judged: Sequence[Judgement]) -> list[bytes]:
    rows = [
        (i, j.query, j.query_id, j.product_id, j.locale, j.label, j.small, 1, j.split) for i, j in enumerate(judged)
    ]
    return [encoded(EXAMPLES_HEADER), *(encoded(row) for row in rows)]


def product_lines(judged: Sequence[Judgement], products: Sequence[Product]) -> list[bytes]:
    """The judged products in catalogue order."""
    wanted = {judgement.product_id for judgement in judged}
    rows = [
        (p.product_id, p.title, p.description, "\n".join(p.bullets), p.brand, "", LOCALE)
        for p in products
        if p.product_id in wanted
    ]
    return [encoded(PRODUCTS_HEADER), *(encoded(row) for row in rows)]
