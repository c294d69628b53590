"""Relevance labels: who judged which product how for which query.

What belongs here: joining ESCI's two files, what makes a label bad, the text of a product, the split into
train and test. What does not: opening files (`label_files.py`), figures (`metrics.py`), models
(`finetune.py`).

ESCI: Reddy et al. 2022, "Shopping Queries Dataset" (arXiv:2206.06588). Grades are Exact, Substitute,
Complement and Irrelevant; the gains are the paper's.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.embedding.texts import render
from sid_pipeline.relevance.label_files import LabelError, read_rows

GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}
TEST_SHARE = 0.2
# Parts of a product's text, see `embedding.texts`; the description is the bullet points where there are any.
TEMPLATE = ("{title}", "{brand}", "{description}")

PAIRS = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("product_id", pa.string()),
        ("text", pa.string()),
        ("grade", pa.string()),
        ("gain", pa.float64()),
        ("split", pa.string()),
    ]
)

EXAMPLES_REQUIRED = ("query", "query_id", "product_id", "product_locale", "esci_label")
EXAMPLES_OPTIONAL = ("small_version", "split")
PRODUCTS_REQUIRED = ("product_id", "product_title", "product_locale")
PRODUCTS_OPTIONAL = ("product_description", "product_bullet_point", "product_brand")
# What a table in another layout may lack; see `read_labels`.
DISPENSABLE = {"query_id", "product_locale"}

# The official files have letters, the competition's had words.
_GRADES = {
    name: letter
    for letter, word in zip("ESCI", ("exact", "substitute", "complement", "irrelevant"), strict=True)
    for name in (letter.lower(), word)
}


class BadLabel(NamedTuple):
    """A label that was left out.

    Attributes:
        row: data row of the examples file; the first is 1.
        query: as it came.
        product_id: as it came.
        rule: short name of the rule it broke.
        message: what is wrong and how to mend it.
    """

    row: int
    query: str
    product_id: str
    rule: str
    message: str


@dataclass(frozen=True)
class Labels:
    """Usable labels and those left out.

    Attributes:
        pairs: schema `PAIRS`, each (query_id, product_id) once, sorted by both; a query lies in one split.
        bad: labels left out, by row.
        repeated: rows that said again what an earlier row had said; their pair is in `pairs` once.
    """

    pairs: pa.Table
    bad: list[BadLabel]
    repeated: int

    def part(self, split: str) -> pa.Table:
        """The pairs of 'train' or of 'test'."""
        return self.pairs.filter(pc.equal(self.pairs["split"], split))


class _Judgement(NamedTuple):
    row: int
    query_id: str
    query: str
    product_id: str
    grade: str
    split: str


def read_labels(
    examples: str | Path,
    products: str | Path,
    locale: str,
    *,
    small_only: bool = False,
    columns: Mapping[str, str | None] = MappingProxyType({}),
    grades: Mapping[str, str] = MappingProxyType({}),
    template: Sequence[str] = TEMPLATE,
    seed: int = 0,
) -> Labels:
    """Read ESCI's `examples` and `products`, joined on (product_locale, product_id), or tables in another layout.

    A query's split is the one its rows name; test where they name both, so that nothing judged in test is
    trained on; where they name none it is drawn by a hash of query_id, a fifth being test. Two query_ids with
    the same text, but for case and spaces, are one query, under the first id.

    Args:
        examples: CSV (.csv, .csv.gz; UTF-8) or Parquet with `EXAMPLES_REQUIRED`, perhaps `EXAMPLES_OPTIONAL`.
        products: the same with `PRODUCTS_REQUIRED`, perhaps `PRODUCTS_OPTIONAL`.
        locale: rows of other locales are not asked for; they are no bad labels.
        small_only: only rows with small_version 1, ESCI's ranking task.
        columns: the files' column for each of ESCI's where it is named otherwise. None means there is none: without
            query_id the query's text names it, without product_locale all rows are of the locale.
        grades: what a value of the grade column means (E, S, C or I) beside ESCI's own letters and words.
        template: parts of the product text over title, brand and description; see `embedding.texts`.
        seed: of the split's hash.

    Raises:
        LabelError: a file is missing, unreadable or lacks a column, or has no row of this locale.
    """
    known = {**_GRADES, **{value.casefold(): grade for value, grade in grades.items()}}
    rows, bad = _examples(Path(examples), locale, small_only, columns)
    wanted = {row["product_id"] for row in rows.values()}
    catalogue = _Catalogue.read(Path(products), locale, wanted, template, columns)
    judgements = []
    for number, row in rows.items():
        if fault := _fault(row, catalogue, known):
            bad.append(_bad(number, row, *fault))
        else:
            judgements.append(_judgement(number, row, known))
    judgements, renamed = _one_text_per_id(judgements)
    judgements, contradicted, repeated = _one_grade_per_pair(_one_id_per_text(judgements))
    splits = _splits(judgements, seed)
    pairs = pairs_table(
        {
            "query_id": judgement.query_id,
            "query": judgement.query,
            "product_id": judgement.product_id,
            "text": catalogue.texts[judgement.product_id],
            "grade": judgement.grade,
            "split": splits[judgement.query_id],
        }
        for judgement in judgements
    )
    return Labels(pairs, sorted([*bad, *renamed, *contradicted]), repeated)


def pairs_table(judgements: Iterable[Mapping[str, Any]], gains: Mapping[str, float] = GAINS) -> pa.Table:
    """The table of pairs, sorted by query_id and product_id, from dicts with all of `PAIRS` but the gain."""
    rows = sorted(judgements, key=lambda row: (row["query_id"], row["product_id"]))
    return pa.Table.from_pylist([{**row, "gain": gains[row["grade"]]} for row in rows], schema=PAIRS)


def product_text(product: Mapping[str, str], template: Sequence[str] = TEMPLATE) -> str:
    """The text of a product given by ESCI's columns; empty when no part of the template has a value."""
    fields = {
        "title": product.get("product_title"),
        "brand": product.get("product_brand"),
        "description": product.get("product_bullet_point") or product.get("product_description"),
    }
    return render(template, fields)


def query_hash(query_id: str, seed: int) -> float:
    """A number in [0, 1) from the query and the seed alone: splits and folds are cut from it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{query_id}".encode()).digest()[:8], "big") / 2**64


def _rows(
    file: Path, required: Sequence[str], optional: Sequence[str], columns: Mapping[str, str | None], locale: str
) -> Iterator[dict[str, str] | None]:
    """Rows in ESCI's names, whatever the file's layout is."""
    absent = {name for name in DISPENSABLE & set(required) if columns.get(name, name) is None}
    for row in read_rows(file, [name for name in required if name not in absent], optional, columns):
        if row is not None and "query_id" in absent:
            row["query_id"] = row["query"]
        if row is not None and "product_locale" in absent:
            row["product_locale"] = locale
        yield row


def _examples(
    file: Path, locale: str, small_only: bool, columns: Mapping[str, str | None]
) -> tuple[dict[int, dict[str, str]], list[BadLabel]]:
    """The locale's rows by row number, and those with the wrong number of fields."""
    rows: dict[int, dict[str, str]] = {}
    bad: list[BadLabel] = []
    locales = set()
    for number, row in enumerate(_rows(file, EXAMPLES_REQUIRED, EXAMPLES_OPTIONAL, columns, locale), start=1):
        if row is None:
            message = f"row {number} of {file.name} has too few or too many fields: check its quotes and commas."
            bad.append(BadLabel(number, "", "", "wrong_fields", message))
            continue
        locales.add(row["product_locale"])
        if row["product_locale"].casefold() != locale.casefold():
            continue
        if small_only and "small_version" not in row:
            raise LabelError(f"{file} has no column small_version: add it, or read all rows (small_only off).")
        if not small_only or row["small_version"].casefold() in {"1", "true"}:
            rows[number] = row
    if not rows:
        found = ", ".join(sorted(locales - {""})[:5]) or "none"
        small = " and small_version 1" if small_only else ""
        raise LabelError(
            f"{file} has no row of product_locale {locale!r}{small} (locales found: {found}): choose one "
            "that it has, or another file."
        )
    return rows, bad


@dataclass
class _Catalogue:
    """Texts of the judged products.

    Attributes:
        texts: by product_id, of the locale asked for.
        ambiguous: products listed with several texts.
        elsewhere: the locale of products that other locales list.
        broken: rows with the wrong number of fields, in which a product may be lost.
    """

    name: str
    locale: str
    texts: dict[str, str]
    ambiguous: set[str]
    elsewhere: dict[str, str]
    broken: int = 0

    @classmethod
    def read(
        cls,
        file: Path,
        locale: str,
        wanted: set[str],
        template: Sequence[str],
        columns: Mapping[str, str | None],
    ) -> _Catalogue:
        catalogue = cls(file.name, locale, {}, set(), {})
        for row in _rows(file, PRODUCTS_REQUIRED, PRODUCTS_OPTIONAL, columns, locale):
            if row is None:
                catalogue.broken += 1
                continue
            key = row["product_id"]
            if key not in wanted:
                continue
            if row["product_locale"].casefold() != locale.casefold():
                catalogue.elsewhere.setdefault(key, row["product_locale"])
            elif catalogue.texts.setdefault(key, text := product_text(row, template)) != text:
                catalogue.ambiguous.add(key)
        return catalogue


def _fault(row: Mapping[str, str], catalogue: _Catalogue, grades: Mapping[str, str]) -> tuple[str, str] | None:
    """Rule and message of what makes this one row unusable, whatever the other rows say."""
    key, label, split = row["product_id"], row["esci_label"], row.get("split", "")
    where = f"{catalogue.name} for locale {catalogue.locale!r}"
    if not _is_text(row["query"] + row["query_id"] + key):
        return "bad_encoding", "the row holds bytes that are not UTF-8: save the examples as UTF-8."
    if not row["query"]:
        return "blank_query", "the query is empty: fill it or remove the row."
    if not row["query_id"]:
        return "blank_query_id", "query_id is empty: fill it or remove the row."
    if label.casefold() not in grades:
        mend = "correct it, or say what it means in relevance.grades."
        return "unknown_grade", f"the grade {label!r} is none of E, S, C, I: {mend}"
    if split.lower() not in {"", "train", "test"}:
        return (
            "unknown_split",
            f"the split {split!r} is neither train nor test: correct it or leave it empty.",
        )
    if key not in catalogue.texts and key in catalogue.elsewhere:
        found = catalogue.elsewhere[key]
        return (
            "other_locale",
            f"product {key!r} is listed for locale {found!r} only: add it to {where}, or correct the row.",
        )
    if key not in catalogue.texts:
        lost = f" ({catalogue.broken} rows there have the wrong number of fields)" if catalogue.broken else ""
        return "missing_product", f"product {key!r} is not in {where}{lost}: add it or remove the row."
    if key in catalogue.ambiguous:
        return "ambiguous_product", f"product {key!r} is in {where} with different texts: keep one."
    if not catalogue.texts[key]:
        return "empty_product", f"product {key!r} has no text in {where}: give it a product_title."
    if not _is_text(catalogue.texts[key]):
        return "bad_encoding", f"product {key!r} in {where} holds bytes that are not UTF-8: save it as UTF-8."
    return None


def _is_text(value: str) -> bool:
    """False where the file held bytes that are not UTF-8, which reading turns into lone surrogates."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _readable(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def _bad(number: int, row: Mapping[str, str], rule: str, message: str) -> BadLabel:
    return BadLabel(number, _readable(row["query"]), _readable(row["product_id"]), rule, _readable(message))


def _judgement(number: int, row: Mapping[str, str], grades: Mapping[str, str]) -> _Judgement:
    grade = grades[row["esci_label"].casefold()]
    split = row.get("split", "").lower()
    return _Judgement(number, row["query_id"], row["query"], row["product_id"], grade, split)


def _one_text_per_id(judgements: list[_Judgement]) -> tuple[list[_Judgement], list[BadLabel]]:
    """Leave out rows that give a query_id another text than its first row did."""
    text_of: dict[str, str] = {}
    good, bad = [], []
    for judgement in judgements:
        text = text_of.setdefault(judgement.query_id, judgement.query)
        if _plain(text) == _plain(judgement.query):
            good.append(judgement)
        else:
            message = f"query_id {judgement.query_id!r} stands for {text!r} already: give this query its own id."
            bad.append(BadLabel(judgement.row, judgement.query, judgement.product_id, "two_queries", message))
    return good, bad


def _one_id_per_text(judgements: list[_Judgement]) -> list[_Judgement]:
    """Queries of one text take the first one's id and spelling, or a test query could be trained on."""
    first: dict[str, _Judgement] = {}
    named = [(judgement, first.setdefault(_plain(judgement.query), judgement)) for judgement in judgements]
    return [judgement._replace(query_id=known.query_id, query=known.query) for judgement, known in named]


def _plain(query: str) -> str:
    return " ".join(query.casefold().split())


def _one_grade_per_pair(judgements: list[_Judgement]) -> tuple[list[_Judgement], list[BadLabel], int]:
    """Leave out every row of a pair that was graded in two ways; keep the first of those that agree."""
    by_pair: dict[tuple[str, str], list[_Judgement]] = defaultdict(list)
    for judgement in judgements:
        by_pair[judgement.query_id, judgement.product_id].append(judgement)
    good, bad, repeated = [], [], 0
    for same in by_pair.values():
        grades = sorted({judgement.grade for judgement in same}, key="ESCI".index)
        if len(grades) == 1:
            good.append(same[0])
            repeated += len(same) - 1
            continue
        numbers = ", ".join(str(judgement.row) for judgement in same)
        message = f"rows {numbers} grade this pair {' and '.join(grades)}: keep the right one."
        bad += [BadLabel(one.row, one.query, one.product_id, "two_grades", message) for one in same]
    return good, bad, repeated


def _splits(judgements: list[_Judgement], seed: int) -> dict[str, str]:
    """The split of each query."""
    named: dict[str, set[str]] = defaultdict(set)
    for judgement in judgements:
        named[judgement.query_id].add(judgement.split)
    splits = {}
    for query_id, names in named.items():
        drawn = "test" if query_hash(query_id, seed) < TEST_SHARE else "train"
        splits[query_id] = "test" if "test" in names else "train" if "train" in names else drawn
    return splits
