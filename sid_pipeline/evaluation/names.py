"""Readable names for prefixes: what the products under `35_7_120` have in common.

A name is the deepest category that most of the prefix's products share, and the words that set the prefix
apart from the others of its level: `Bakery > Bread: italian, ciabatta`. It stays from night to night while it is true.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from sid_pipeline.evaluation.metrics import Path, numbered_paths, prefix_ids, tree_labels
from sid_pipeline.schemas import PREFIX_NAMES
from sid_pipeline.sids import spelt

# Letters only: counts, sizes and codes set a product apart, not a group. Units of size say nothing either.
_WORD = re.compile(r"[^\W\d_]{3,}")
_IGNORED = frozenset(
    re.findall(
        r"\w+",
        """
        and the with for from les des une und mit der die das con los las per del sin oder
        pack count pcs fluid ounce ounces gram grams lbs pound liter litre
        """,
    )
)
_BATCH = 1 << 16  # rows that are Python objects at a time

NAMES_SCHEMA = PREFIX_NAMES.arrow(without=("flavour", "release"))


def prefix_names(
    codes: np.ndarray,
    products: pa.Table,
    *,
    previous: pa.Table | None = None,
    levels: int | None = None,
    word_count: int = 4,
    sample_count: int = 5,
) -> pa.Table:
    """Name every prefix that holds a product.

    The words are those of highest class-based TF-IDF (Grootendorst, BERTopic, 2022): tf(word, prefix) x
    log(1 + average words a prefix / f(word)), the prefixes of one level being the classes. Only words of at
    least two of the prefix's products count where there are two products or more, so that no single title
    speaks for a group.

    Which words set a prefix apart depends on all other prefixes, so the words would flicker with each night's
    catalogue. Hence `previous`: a prefix whose content is the same keeps its words, and so its name; one whose
    content changed keeps them while its category is the same and each of them is still among its best
    (twice `word_count`).

    Args:
        codes: (N, L) int.
        products: N rows of product_id, title and, where there are any, category (a list of strings, null or empty
            for uncategorised) and brand.
        previous: what was named so far, rows of NAMES_SCHEMA; those without content count for nothing.
        levels: name the first so many levels; None: all.

    Returns:
        one row per prefix, the columns of the table PREFIX_NAMES, by level and then by code. The same for the same
        input in any row order.
    """
    if not len(products):
        return NAMES_SCHEMA.empty_table()
    order = pc.sort_indices(products["product_id"])
    codes = np.asarray(codes)[order.to_numpy()]
    products = products.take(order)
    catalogue = _Catalogue.of(products)
    prefix = prefix_ids(codes)
    parts = []
    for level in range(min(levels or codes.shape[1], codes.shape[1])):
        group = prefix[:, level]
        rows = np.argsort(group, kind="stable")  # of each prefix together, by product_id
        starts = np.flatnonzero(np.r_[True, np.diff(group[rows]) > 0])
        label = spelt(codes[rows[starts], : level + 1])
        category = catalogue.majority_categories(group)
        content = _hex(np.add.reduceat(catalogue.hashes[rows], starts))
        best = _distinguishing_words(catalogue.words, catalogue.vocabulary, group, 2 * word_count)
        words = _kept_words(previous, label, category, content, best, word_count)
        first = rows[starts]
        parts.append(
            pa.table(
                [
                    label,
                    pa.array(np.full(len(label), level + 1, np.int32)),
                    pa.array(np.diff(np.r_[starts, len(rows)])),
                    _names(category, words, products["title"].take(first), label),
                    category,
                    words,
                    catalogue.commonest_brands(group, 3),
                    _lists(products["product_id"].take(rows[_first_of_each(starts, len(rows), sample_count)]),
                           np.minimum(np.diff(np.r_[starts, len(rows)]), sample_count)),
                    content,
                ],
                schema=NAMES_SCHEMA,
            )
        )  # fmt: skip
    return pa.concat_tables(parts)


@dataclass(frozen=True)
class _Catalogue:
    """What names are made from, in one order of the products.

    Attributes:
        words: (N, V) 0/1 matrix of the words of each title; vocabulary: the words, in lexical order.
        nodes: (N, D) number of the category cut to each depth, -1 where it ends before; steps: per depth the
            categories by number, as they are shown, in lexical order.
        brands: (N,) number of the brand, -1 where there is none; makers: the brands, in lexical order.
        hashes: (N,) uint64 of all that is told of a product.
    """

    words: csr_matrix
    vocabulary: pa.Array
    nodes: np.ndarray
    steps: list[pa.Array]
    brands: np.ndarray
    makers: pa.Array
    hashes: np.ndarray

    @classmethod
    def of(cls, products: pa.Table) -> _Catalogue:
        nothing = pa.nulls(len(products), pa.string())
        brand = pc.fill_null(products["brand"], "") if "brand" in products.column_names else pc.fill_null(nothing, "")
        paths: list[Path] = []
        path_of = np.full(len(products), -1)
        if "category" in products.column_names:
            path_of, paths = numbered_paths(products["category"])
        nodes, steps = tree_labels([*paths, None])
        for level in range(nodes.shape[1]):  # a shorter path ends here instead of counting as it is
            nodes[[len(path) <= level for path in paths] + [True], level] = -1
        shown = pa.array([*map(_shown, paths), ""], pa.string())
        told = (products["product_id"], products["title"], shown.take(pa.array(path_of % len(shown))), brand)
        makers = sorted(maker for maker in pc.unique(brand).to_pylist() if maker)
        return cls(
            *_word_counts(products["title"]),
            nodes[path_of],
            [pa.array([_shown(path) for path in level], pa.string()) for level in steps],
            pc.fill_null(pc.index_in(brand, value_set=pa.array(makers, pa.string())), -1).to_numpy(),
            pa.array(makers, pa.string()),
            _hashes(pc.binary_join_element_wise(*told, "\x1f")),
        )

    def majority_categories(self, group: np.ndarray) -> pa.Array:
        """Per group the longest category that more than half of its categorised products lie under, "" where it has
        none. The first step is the commonest one even without a majority: a group of many kinds still gets its main
        one."""
        groups = int(group.max()) + 1
        found = pa.repeat("", groups)
        under = np.arange(len(group))  # rows under what was found so far
        for depth, steps in enumerate(self.steps):
            nodes = self.nodes[:, depth]
            under = under[nodes[under] >= 0]
            if depth == 0:
                categorised = np.bincount(group[under], minlength=groups)
            pairs, counts = np.unique(group[under] * len(steps) + nodes[under], return_counts=True)
            owner, node = np.divmod(pairs, len(steps))
            best = np.lexsort((node, -counts, owner))
            best = best[np.r_[True, np.diff(owner[best]) > 0][: len(best)]]
            if depth:
                best = best[counts[best] * 2 > categorised[owner[best]]]
            chosen = np.full(groups, -1)
            chosen[owner[best]] = node[best]
            mask = chosen >= 0
            found = pc.if_else(pa.array(mask), steps.take(pa.array(chosen, mask=~mask)), found)
            under = under[chosen[group[under]] == nodes[under]]
        return found

    def commonest_brands(self, group: np.ndarray, most: int) -> pa.Array:
        """Per group a list of its commonest brands, ties in lexical order."""
        branded = np.flatnonzero(self.brands >= 0)
        size = max(len(self.makers), 1)
        pairs, counts = np.unique(group[branded] * size + self.brands[branded], return_counts=True)
        owner, maker = np.divmod(pairs, size)
        order = np.lexsort((maker, -counts, owner))
        starts = np.flatnonzero(np.r_[True, np.diff(owner[order]) > 0][: len(order)])
        taken = order[_first_of_each(starts, len(order), most)]
        return _lists(self.makers.take(pa.array(maker[taken])), np.bincount(owner[taken], minlength=group.max() + 1))


def _shown(path: Path) -> str:
    return " > ".join(path)


def _hashes(texts: pa.ChunkedArray) -> np.ndarray:
    """(N,) uint64, a hash of each text."""
    found = np.empty(len(texts), np.uint64)
    place = 0
    for batch in pa.table([texts], ["text"]).to_batches(max_chunksize=_BATCH):
        digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in batch.column(0).to_pylist())
        found[place : place + len(batch)] = np.frombuffer(b"".join(digests), "<u8")
        place += len(batch)
    return found


def _hex(values: np.ndarray) -> pa.Array:
    return pa.array([f"{value:016x}" for value in values.tolist()], pa.string())


def _first_of_each(starts: np.ndarray, end: int, most: int) -> np.ndarray:
    """The places of the first `most` of each run of places that begin at `starts`."""
    sizes = np.diff(np.r_[starts, end])
    within = np.arange(end) - np.repeat(starts, sizes)
    return np.flatnonzero(within < most)


def _lists(values: pa.Array | pa.ChunkedArray, sizes: np.ndarray) -> pa.Array:
    """Values cut into lists of the given sizes."""
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pa.ListArray.from_arrays(pa.array(np.r_[0, np.cumsum(sizes)].astype(np.int32)), flat)


def _kept_words(
    previous: pa.Table | None, label: pa.Array, category: pa.Array, content: pa.Array, best: pa.Array, most: int
) -> pa.Array:
    """Lists of words: the `most` best of each prefix, or those it had where they are still true."""
    fresh = pc.list_slice(best, 0, most)
    if previous is None:
        return fresh
    previous = previous.filter(pc.is_valid(previous["content"]))
    place = pc.index_in(label, value_set=previous["prefix"].combine_chunks())
    before = previous.take(place)
    same = pc.fill_null(pc.equal(before["content"], content), False).to_numpy()
    alike = pc.fill_null(pc.equal(before["category"], category), False).to_numpy() & ~same
    rows = np.flatnonzero(alike)
    had, now = before["words"].take(rows).to_pylist(), best.take(rows).to_pylist()
    kept = same.copy()
    kept[rows] = [bool(old) and set(old) <= set(new) for old, new in zip(had, now, strict=True)]
    either = pa.concat_arrays([fresh, before["words"].combine_chunks().cast(fresh.type)])
    return either.take(pa.array(np.arange(len(label)) + np.where(kept, len(label), 0)))


def _names(categories: pa.Array, words: pa.Array, titles: pa.ChunkedArray, labels: pa.Array) -> pa.Array:
    """The names of prefixes; `titles` are of their first products."""
    rows = pa.table([categories, words, titles, labels], ["category", "words", "title", "label"])
    parts = []
    for batch in rows.to_batches(max_chunksize=_BATCH):
        columns = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        parts.append(pa.array([_name(*given) or label for *given, label in columns], pa.string()))
    return pa.chunked_array(parts, pa.string()).combine_chunks()


def _name(category: str, words: list[str], first_title: str) -> str:
    fresh = [word for word in words if word not in _said(category)][:3]
    if category and fresh:
        return f"{category}: {', '.join(fresh)}"
    return category or ", ".join(fresh) or " ".join(first_title.split())[:60]


@lru_cache(maxsize=100_000)
def _said(category: str) -> frozenset[str]:
    return frozenset(word for step in category.split(" > ") for word in _words(step))


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.casefold()) if word not in _IGNORED]


def _word_counts(titles: pa.ChunkedArray) -> tuple[csr_matrix, pa.Array]:
    """(N, V) 0/1 matrix of the words of each title, and the vocabulary in lexical order."""
    number: dict[str, int] = {}
    found, ends = array("i"), array("q", [0])
    for batch in pa.table([titles], ["title"]).to_batches(max_chunksize=_BATCH):
        for title in batch.column(0).to_pylist():
            found.extend(number.setdefault(word, len(number)) for word in sorted(set(_words(title))))
            ends.append(len(found))
    vocabulary = sorted(number)
    rank = np.empty(len(number), np.int32)
    rank[[number[word] for word in vocabulary]] = np.arange(len(number))
    columns = rank[np.frombuffer(found, np.intc)] if found else np.empty(0, np.int32)
    counts = csr_matrix((np.ones(len(columns), np.int32), columns, np.frombuffer(ends, np.int64)),
                        shape=(len(titles), len(vocabulary)))  # fmt: skip
    return counts, pa.array(vocabulary, pa.string())


def _distinguishing_words(counts: csr_matrix, vocabulary: pa.Array, part: np.ndarray, most: int) -> pa.Array:
    """Per class a list of its best words, the best first."""
    n = len(part)
    classes = int(part.max()) + 1
    members = csr_matrix((np.ones(n, np.int32), (part, np.arange(n))), shape=(classes, n))
    frequency = (members @ counts).tocsr()
    frequency.sort_indices()
    size = np.bincount(part, minlength=classes)
    owner = np.repeat(np.arange(classes), np.diff(frequency.indptr))
    total = np.asarray(frequency.sum(axis=0)).ravel()
    average = frequency.sum() / classes
    words_in_class = np.bincount(owner, weights=frequency.data, minlength=classes)
    score = frequency.data / words_in_class[owner] * np.log1p(average / total[frequency.indices])
    keep = np.flatnonzero((frequency.data >= 2) | (size[owner] == 1))
    # Rounding makes ties of equal scores exact; the vocabulary is in lexical order, so ties are lexical.
    rank = keep[np.lexsort((frequency.indices[keep], -np.round(score[keep], 12), owner[keep]))]
    starts = np.flatnonzero(np.r_[True, np.diff(owner[rank]) > 0][: len(rank)])
    taken = rank[_first_of_each(starts, len(rank), most)]
    return _lists(vocabulary.take(pa.array(frequency.indices[taken])), np.bincount(owner[taken], minlength=classes))
