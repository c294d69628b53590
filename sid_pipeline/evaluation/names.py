"""Readable names for prefixes: what the products under `35_7_120` have in common.

A name is the deepest category that most of the prefix's products share, and the words that set the prefix
apart from the others of its level: `Bakery > Bread: italian, ciabatta`. It stays from night to night while it is true.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from sid_pipeline.evaluation.metrics import Path, commonest, prefix_ids, sid_text

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

NAMES_SCHEMA = pa.schema(
    [
        pa.field("prefix", pa.string(), nullable=False),
        pa.field("level", pa.int32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("words", pa.list_(pa.string()), nullable=False),
        pa.field("top_brands", pa.list_(pa.string()), nullable=False),
        pa.field("sample_product_ids", pa.list_(pa.string()), nullable=False),
        pa.field("content", pa.string(), nullable=False),
    ]
)


def prefix_names(
    codes: np.ndarray,
    product_ids: Sequence[str],
    titles: Sequence[str],
    categories: Sequence[Path | None] | None = None,
    brands: Sequence[str | None] | None = None,
    *,
    previous: Mapping[str, Mapping[str, Any]] | None = None,
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
        product_ids, titles: N strings.
        categories: N paths, None for uncategorised.
        brands: N brands, None or "" for none.
        previous: what was named so far, by prefix: dicts of category, words, content.
        levels: name the first so many levels; None: all.

    Returns:
        one row per prefix with NAMES_SCHEMA's columns, by level and then by code. The same for the same input
        in any row order.
    """
    codes = np.asarray(codes)
    order = sorted(range(len(codes)), key=lambda row: product_ids[row])
    codes = codes[order]
    ids = [product_ids[row] for row in order]
    counts, vocabulary = _word_counts([titles[row] for row in order])
    paths: list[Path] = [tuple(categories[row] or ()) if categories is not None else () for row in order]
    makers = [(brands[row] or "") if brands is not None else "" for row in order]
    prefix = prefix_ids(codes)
    columns: dict[str, list] = {name: [] for name in NAMES_SCHEMA.names}
    for level in range(min(levels or codes.shape[1], codes.shape[1]) if len(codes) else 0):
        part = prefix[:, level]
        words = _distinguishing_words(counts, vocabulary, part, 2 * word_count)
        by_prefix = np.argsort(part, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(part[by_prefix]) > 0])
        for number, rows in enumerate(np.split(by_prefix, starts[1:])):
            members = rows.tolist()
            label = sid_text(codes[members[0], : level + 1])
            category = " > ".join(_majority_path([paths[row] for row in members]))
            content = _content((ids[row], titles[order[row]], " > ".join(paths[row]), makers[row]) for row in members)
            old = (previous or {}).get(label)
            chosen = words[number][:word_count]
            if old is not None and old["content"] == content:
                chosen = list(old["words"])
            elif old is not None and old["category"] == category and set(old["words"]) <= set(words[number]):
                chosen = list(old["words"]) or chosen
            name = _name(category, chosen, titles[order[members[0]]]) or label
            columns["prefix"].append(label)
            columns["level"].append(level + 1)
            columns["count"].append(len(members))
            columns["name"].append(name)
            columns["category"].append(category)
            columns["words"].append(chosen)
            columns["top_brands"].append(commonest([makers[row] for row in members], 3))
            columns["sample_product_ids"].append([ids[row] for row in members[:sample_count]])
            columns["content"].append(content)
    return pa.table(columns, schema=NAMES_SCHEMA)


def _content(products: Iterable[tuple[str, ...]]) -> str:
    """A hash of all that the name of a prefix is made from, its products in the order of their ids."""
    found = hashlib.sha256()
    for product in products:
        found.update("\x1f".join(product).encode() + b"\x1e")
    return found.hexdigest()[:16]


def _name(category: str, words: list[str], first_title: str) -> str:
    known = {word for step in category.split(" > ") for word in _words(step)}
    fresh = [word for word in words if word not in known][:3]
    if category and fresh:
        return f"{category}: {', '.join(fresh)}"
    return category or ", ".join(fresh) or " ".join(first_title.split())[:60]


def _majority_path(paths: Sequence[Path]) -> Path:
    """The longest path that more than half of the given paths that are not empty start with.

    The first step is the commonest one even without a majority: a group of many kinds still gets its main
    one.
    """
    known = [path for path in paths if path]
    if not known:
        return ()
    total = len(known)
    steps: list[str] = []
    while True:
        depth = len(steps)
        following = Counter(path[depth] for path in known if len(path) > depth and list(path[:depth]) == steps)
        if not following:
            return tuple(steps)
        step, count = min(following.items(), key=lambda entry: (-entry[1], entry[0]))
        if depth and count * 2 <= total:
            return tuple(steps)
        steps.append(step)


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.casefold()) if word not in _IGNORED]


def _word_counts(titles: Sequence[str]) -> tuple[csr_matrix, list[str]]:
    """(N, V) 0/1 matrix of the words of each title, and the vocabulary in lexical order."""
    token_sets = [sorted(set(_words(title))) for title in titles]
    vocabulary = sorted({word for tokens in token_sets for word in tokens})
    position = {word: index for index, word in enumerate(vocabulary)}
    columns = np.fromiter((position[word] for tokens in token_sets for word in tokens), np.int64)
    starts = np.cumsum([0] + [len(tokens) for tokens in token_sets])
    shape = (len(titles), len(vocabulary))
    return csr_matrix((np.ones(len(columns), np.float64), columns, starts), shape=shape), vocabulary


def _distinguishing_words(
    counts: csr_matrix, vocabulary: Sequence[str], part: np.ndarray, word_count: int
) -> list[list[str]]:
    n = len(part)
    classes = int(part.max()) + 1
    members = csr_matrix((np.ones(n), (part, np.arange(n))), shape=(classes, n))
    frequency = (members @ counts).tocsr()
    frequency.sort_indices()
    size = np.bincount(part, minlength=classes)
    owner = np.repeat(np.arange(classes), np.diff(frequency.indptr))
    total = np.asarray(frequency.sum(axis=0)).ravel()
    average = frequency.sum() / classes
    words_in_class = np.bincount(owner, weights=frequency.data, minlength=classes)
    score = frequency.data / words_in_class[owner] * np.log1p(average / total[frequency.indices])
    keep = (frequency.data >= 2) | (size[owner] == 1)
    # Rounding makes ties of equal scores exact; the vocabulary is in lexical order, so ties are lexical.
    rank = np.lexsort((frequency.indices, -np.round(score, 12), ~keep, owner))
    found: list[list[str]] = []
    for start, kept in zip(
        frequency.indptr[:-1].tolist(), np.bincount(owner[keep], minlength=classes).tolist(), strict=True
    ):
        chosen = rank[start : start + min(kept, word_count)]
        found.append([vocabulary[index] for index in frequency.indices[chosen].tolist()])
    return found
