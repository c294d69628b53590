"""The quality report of one code table: everything measured, baselines beside it, as data and as markdown.

What belongs here: which figures are put together, over which samples, and their names. What does not: how a
figure is defined (`metrics.py`) and the HTML page (`page.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sid_pipeline.evaluation import metrics
from sid_pipeline.evaluation.baselines import category_prefix_codes, fit_residual_kmeans, random_codes
from sid_pipeline.evaluation.metrics import Estimate, Path
from sid_pipeline.evaluation.pairs import (
    Pairs,
    concatenate,
    neighbour_pairs,
    random_pairs,
    restrict,
    row_norms,
    stratified_pairs,
)
from sid_pipeline.rqvae.gate import NEAR_DUPLICATE_COSINE

OURS = "ours"
RESIDUAL_KMEANS = "residual_kmeans"
CATEGORY_PREFIX = "category_prefix"
RANDOM_CODES = "random_codes"
_BUILT_IN = (OURS, RESIDUAL_KMEANS, CATEGORY_PREFIX, RANDOM_CODES)
_NOTES = {
    OURS: "this release",
    RESIDUAL_KMEANS: "plain k-means on what each level leaves over, in the embedding space",
    CATEGORY_PREFIX: "the category path as codes, then a running number inside the leaf",
    RANDOM_CODES: "codes drawn at random: what chance gives",
}
TABLE_LABELS = {
    OURS: "this release",
    RESIDUAL_KMEANS: "residual k-means",
    CATEGORY_PREFIX: "category prefix",
    RANDOM_CODES: "random codes",
}
SCHEMA_VERSION = 1
_GLANCE = (
    "distinct_share",
    "share90_l1",
    "share90_l2",
    "share90_l3",
    "rel_mse",
    "ami_l2_leaf",
    "error_propagation_top",
)


@dataclass(frozen=True)
class Sampling:
    """How much is looked at. The defaults are those of the project's synthetic benchmark."""

    random_pairs: int = 100_000
    anchors: int = 2_000
    neighbours: int = 50
    pairs_per_band: int = 2_000


@dataclass(frozen=True)
class EvaluationInput:
    """One code table and what it is judged on.

    Attributes:
        flavour, release, as_of_snapshot: what is reported on; shown, never interpreted.
        product_ids, texts: N strings; `texts` is what a reader recognises a product by.
        categories: N paths from the root, None (or empty) for an uncategorised product; or None: there is no
            taxonomy.
        vectors: (N, d) float32, the embeddings that were quantised; need not have unit length.
        codes: (N, L) int, 0 <= code < codebook_size.
        reconstruct: gives the (rows, d) float32 vectors decoded from the codes of a slice of rows; None where
            they cannot be had.
        codebook_size: codes per level.
        seed: of every sample and baseline.
        others: further code tables of the same products to put beside, by name (the live release, a trial); a row
            of -1 is a product that the other table does not have, and its figures are on those it has.
        all_codes: (M, L) codes of the whole catalogue where the N products are a sample of it. Usage and
            collisions depend on how many products are looked at, so they are then given for all M besides.
        all_texts: (M,) integers, equal where texts are equal; with `all_codes`, for the items of the whole
            catalogue that share a SID with another text.
        sampling: sizes of the samples.
    """

    flavour: str
    release: str
    as_of_snapshot: str
    product_ids: Sequence[str]
    texts: Sequence[str]
    categories: Sequence[Path | None] | None
    vectors: np.ndarray
    codes: np.ndarray
    reconstruct: Callable[[slice], np.ndarray] | None = None
    codebook_size: int = 512
    seed: int = 0
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    all_codes: np.ndarray | None = None
    all_texts: np.ndarray | None = None
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Figure:
    """A row of the report's tables.

    Attributes:
        key: stable name, also in `Report.headline`.
        label, meaning: for people; the meaning in one line.
        pick: takes it out of one code table's dict: a number, an estimate's dict, or None.
        group: heading that it stands under on the page.
        percent: shown as a percentage.
        better: "higher", "lower" or "" where neither is.
    """

    key: str
    label: str
    meaning: str
    pick: Callable[[dict[str, Any]], Any]
    group: str
    percent: bool = False
    better: str = ""


@dataclass(frozen=True)
class Report:
    """The result of `evaluate`."""

    data: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers; the same keys for every input of the same shape."""
        return self.data

    def headline(self) -> dict[str, float]:
        """The main figures of this release, flat; a figure that does not apply is absent."""
        table = self.data["tables"][OURS]
        out: dict[str, float] = {"items": float(self.data["items"])}
        for figure in figures(self.data):
            number = value_of(figure.pick(table))
            if number is not None:
                out[figure.key] = number
        if self.data["population"]:
            out["items"] = float(self.data["population"]["items"])
            for key in _HEALTH:
                out[key] = float(self.data["population"]["sids"][key])
            for entry in self.data["population"]["levels"]:
                out[f"usage_l{entry['level']}"] = float(entry["usage"])
                out[f"perplexity_l{entry['level']}"] = float(entry["perplexity"])
                out[f"gini_l{entry['level']}"] = float(entry["gini"])
        population = self.data["population"] or {}
        different = population.get("items_of_different_texts")
        if different is None:
            different = self.data["different_texts"]["items"]
        return {**out, "items_same_sid_different_text": float(different)}

    def glance(self) -> list[dict[str, str]]:
        """The few figures to look at first, a row each: ours, the live release's and those of residual k-means."""
        by_key = {figure.key: figure for figure in figures(self.data)}
        return [
            {
                "figure": by_key[key].label,
                **{
                    TABLE_LABELS.get(name, name): shown(by_key[key], by_key[key].pick(table))
                    for name, table in self.data["tables"].items()
                    if name not in (CATEGORY_PREFIX, RANDOM_CODES)
                },
            }
            for key in _GLANCE
            if key in by_key
        ]

    def to_markdown(self) -> str:
        """A short report: figures beside the baselines, samples, and the worst products."""
        return _markdown(self.data)


def evaluate(given: EvaluationInput) -> Report:
    """Measure a code table and its baselines on the same products and the same pairs.

    Raises:
        ValueError: the input's parts do not fit together; the sentence names the part.
    """
    _validate(given)
    vectors = np.asarray(given.vectors, np.float32)
    codes = np.asarray(given.codes)
    n, levels = codes.shape
    size = given.codebook_size
    sampling = given.sampling
    categories: list[Path | None] = (
        [tuple(path) if path else None for path in given.categories] if given.categories is not None else [None] * n
    )
    labels, paths = metrics.tree_labels(categories)

    population = None if given.all_codes is None else len(given.all_codes)
    rng = np.random.default_rng(given.seed)
    norms = row_norms(vectors)
    random = random_pairs(vectors, norms, sampling.random_pairs, rng)
    near = neighbour_pairs(vectors, norms, sampling.anchors, sampling.neighbours, rng)
    banded = stratified_pairs(vectors, norms, near, sampling.pairs_per_band, rng)

    def table(table_codes: np.ndarray, sizes: Sequence[int], note: str) -> dict[str, Any]:
        return {
            "note": note,
            **_code_table(table_codes, sizes, (random, near, banded), labels, paths, given),
        }

    tables = {OURS: table(codes, [size] * levels, _NOTES[OURS])}
    if given.reconstruct is not None:
        tables[OURS]["faithfulness"] = _faithfulness(vectors, given.reconstruct, population)
    for name, other in given.others.items():
        other = np.asarray(other)
        has = int((other[:, 0] >= 0).sum())
        note = "the same products in another code table" + ("" if has == n else f", of which it has {has:,}")
        tables[name] = table(other, _sizes(other, size), note)
    model = fit_residual_kmeans(vectors, levels, size, given.seed)
    kmeans = model.assign(vectors)
    tables[RESIDUAL_KMEANS] = table(kmeans, [size] * levels, _NOTES[RESIDUAL_KMEANS])
    tables[RESIDUAL_KMEANS]["faithfulness"] = _faithfulness(
        vectors, lambda rows: model.reconstruct(kmeans[rows]), population
    )
    if labels.shape[1]:
        by_category = category_prefix_codes(categories, levels, size)
        sizes = [int(top) + 1 for top in by_category.max(0)]
        tables[CATEGORY_PREFIX] = table(by_category, sizes, _NOTES[CATEGORY_PREFIX])
    chance = random_codes(n, levels, size, given.seed)
    tables[RANDOM_CODES] = table(chance, [size] * levels, _NOTES[RANDOM_CODES])

    prefix = metrics.prefix_ids(codes)
    counted = codes if given.all_codes is None else np.asarray(given.all_codes)
    data = {
        "schema_version": SCHEMA_VERSION,
        "flavour": given.flavour,
        "release": given.release,
        "as_of_snapshot": given.as_of_snapshot,
        "seed": given.seed,
        "items": n,
        "dimensions": int(vectors.shape[1]),
        "levels": levels,
        "codebook_size": size,
        "tree_levels": int(labels.shape[1]),
        "categorised_items": int((labels[:, 0] >= 0).sum()) if labels.shape[1] else 0,
        "pairs": {pairs.name: _pairs_summary(pairs) for pairs in (random, near, banded)},
        "population": _population(given, size, levels),
        "tables": tables,
        "different_texts": metrics.collisions_of_different_texts(
            prefix, codes, given.texts, given.product_ids, vectors, norms
        ),
        "error_propagation_examples": metrics.error_propagation(
            prefix, labels, paths, given.texts, given.product_ids, codes
        )["worst"],
        "code_counts": [np.bincount(counted[:, level], minlength=size).tolist() for level in range(levels)],
    }
    return Report(data)


def _faithfulness(
    vectors: np.ndarray, reconstruct: Callable[[slice], np.ndarray], population: int | None
) -> dict[str, dict[str, Any] | None]:
    found = metrics.faithfulness(vectors, lambda rows: np.asarray(reconstruct(rows), np.float32), population)
    return {name: _dict(estimate) for name, estimate in found.items()}


def _population(given: EvaluationInput, size: int, levels: int) -> dict[str, Any] | None:
    """Health of the whole catalogue where the products are a sample of it: counted, not sampled."""
    if given.all_codes is None:
        return None
    everything = np.asarray(given.all_codes)
    prefix = metrics.prefix_ids(everything)
    different = None if given.all_texts is None else metrics.items_of_different_texts(prefix, given.all_texts)
    return {
        "items": len(everything),
        "levels": metrics.level_health(everything, [size] * levels),
        "sids": metrics.sid_health(prefix),
        "items_of_different_texts": different,
    }


def _code_table(
    codes: np.ndarray,
    sizes: Sequence[int],
    sets: tuple[Pairs, Pairs, Pairs],
    labels: np.ndarray,
    paths: list[list[Path]],
    given: EvaluationInput,
) -> dict[str, Any]:
    present = codes[:, 0] >= 0
    texts, product_ids = given.texts, given.product_ids
    if not present.all():
        codes, labels = codes[present], labels[present]
        rows = np.flatnonzero(present).tolist()
        texts, product_ids = [texts[row] for row in rows], [product_ids[row] for row in rows]
        random, near, banded = sets
        sets = (restrict(random, present), restrict(near, present, whole_anchors=True), restrict(banded, present))
    random, near, _ = sets
    levels = codes.shape[1]
    population = None if given.all_codes is None else len(given.all_codes)
    prefix = metrics.prefix_ids(codes)
    depth = {pairs.name: metrics.shared_depth(prefix, pairs.i, pairs.j) for pairs in sets}
    both = concatenate("random_and_neighbour", random, near)
    both_depth = np.concatenate([depth[random.name], depth[near.name]])
    hot = metrics.near_duplicates(both)
    hot_depth = both_depth[both.cosine >= NEAR_DUPLICATE_COSINE]
    wrong = metrics.error_propagation(prefix, labels, paths, texts, product_ids, codes, worst=0, population=population)
    wrong["levels"] = [{**row, "share": _dict(row["share"])} for row in wrong["levels"]]
    spread = metrics.fragmentation(
        prefix,
        labels[:, -1] if labels.shape[1] else np.full(len(codes), -1),
        paths[-1] if paths else [],
        levels=tuple(range(1, min(2, levels) + 1)),
        population=population,
    )
    spread["levels"] = [{**row, "effective_weighted": _dict(row["effective_weighted"])} for row in spread["levels"]]
    return {
        "levels": metrics.level_health(codes, sizes),
        "sids": metrics.sid_health(prefix),
        "faithfulness": {"rel_mse": None, "cosine": None},
        "spearman": {
            **{pairs.name: _dict(metrics.spearman(pairs, depth[pairs.name])) for pairs in sets},
            both.name: _dict(metrics.spearman(both, both_depth)),
        },
        "share90": [_dict(share) for share in metrics.share_by_level(hot, hot_depth, levels)],
        "pairs90": len(hot),
        "share": {
            pairs.name: [_dict(share) for share in metrics.share_by_level(pairs, depth[pairs.name], levels)]
            for pairs in sets
        },
        "neighbour_overlap": {str(k): _dict(metrics.neighbour_overlap(prefix, near, k)) for k in (5, 10)},
        "taxonomy": [
            {**row, "ami": _dict(row["ami"]), "purity": _dict(row["purity"])}
            for row in metrics.taxonomy_agreement(prefix, labels, population)
        ],
        "fragmentation": spread,
        "error_propagation": {key: value for key, value in wrong.items() if key != "worst"},
    }


def _validate(given: EvaluationInput) -> None:
    codes, vectors = np.asarray(given.codes), given.vectors
    if codes.ndim != 2 or not len(codes) or not codes.shape[1]:
        raise ValueError(f"codes must be an (N, L) table of at least one product; its shape is {codes.shape}")
    n = len(codes)
    lengths = {
        "product_ids": len(given.product_ids),
        "texts": len(given.texts),
        "vectors": len(vectors),
        **({"categories": len(given.categories)} if given.categories is not None else {}),
        **{f"others[{name!r}]": len(other) for name, other in given.others.items()},
    }
    for name, length in lengths.items():
        if length != n:
            raise ValueError(f"{name} has {length} rows and codes has {n}: give one of each for every product")
    if given.reconstruct is not None:
        back = np.shape(given.reconstruct(slice(0, 1)))
        if back != (1, vectors.shape[1]):
            raise ValueError(f"reconstruct gives rows of shape {back}, vectors have {vectors.shape[1]} dimensions")
    if given.all_texts is not None and (given.all_codes is None or len(given.all_texts) != len(given.all_codes)):
        raise ValueError("all_texts goes with all_codes: one number for each row of it")
    tables = {
        "codes": codes,
        **{f"others[{name!r}]": np.asarray(other) for name, other in given.others.items()},
    }
    if given.all_codes is not None:
        tables["all_codes"] = np.asarray(given.all_codes)
    for name, values in tables.items():
        if values.ndim != 2 or values.shape[1] != codes.shape[1] or not len(values):
            raise ValueError(f"{name} has shape {values.shape}; expected rows of {codes.shape[1]} codes")
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name} holds {values.dtype}; codes are integers")
        if name.startswith("others"):
            absent = (values < 0).any(axis=1)
            if absent.all() or not (values[absent] == -1).all():
                raise ValueError(f"{name} must hold SIDs, or -1 at every level of a product that it does not have")
            values = values[~absent]
        if values.min() < 0 or (name in {"codes", "all_codes"} and values.max() >= given.codebook_size):
            bad = int(values.min() if values.min() < 0 else values.max())
            raise ValueError(f"{name} holds the code {bad}; codes run from 0 to {given.codebook_size - 1}")
    # A row's sum is not finite if any of its values is not, and costs no table of flags.
    broken = int((~np.isfinite(np.asarray(vectors).sum(axis=1, dtype=np.float64))).sum())
    if broken:
        raise ValueError(f"vectors of {broken} products hold NaN or infinite values: embed them again")
    clash = sorted(set(given.others) & set(_BUILT_IN))
    if clash:
        raise ValueError(f"others may not be named {', '.join(clash)}: the report's own tables have these names")


def _sizes(codes: np.ndarray, codebook_size: int) -> list[int]:
    return [max(codebook_size, int(top) + 1) for top in codes.max(0)]


def _dict(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.to_dict()


def _pairs_summary(pairs: Pairs) -> dict[str, Any]:
    return {
        "pairs": len(pairs),
        "anchors": len(np.unique(pairs.i)),
        "mean_cosine": float(pairs.cosine.mean()) if len(pairs) else None,
    }


# --------------------------------------------------------------------------------------------- the figures

_USE = "Use of the codes"
_SIMILARITY = "Faithful to similarity"
_TAXONOMY = "Agreement with the taxonomy"

_HEALTH = ("distinct_sids", "distinct_share", "collision_rate", "largest_bucket")


def _at(*steps: str | int) -> Callable[[dict[str, Any]], Any]:
    """Take what lies at a path of keys and positions."""

    def pick(table: Any) -> Any:
        for step in steps:
            table = table[step]
        return table

    return pick


def figures(data: Mapping[str, Any]) -> list[Figure]:
    """The rows of the report's tables, in order, for a report of this shape."""
    levels, trees = data["levels"], data["tree_levels"]
    rows = [
        Figure(
            "distinct_sids",
            "distinct SIDs",
            "how many different SIDs there are",
            _at("sids", "distinct_sids"),
            _USE,
        ),
        Figure(
            "distinct_share",
            "distinct SIDs / items",
            "1 when no two products share a SID; sharing is allowed, so this is no goal in itself",
            _at("sids", "distinct_share"),
            _USE,
            percent=True,
        ),
        Figure(
            "collision_rate",
            "collision rate",
            "1 - distinct / items",
            _at("sids", "collision_rate"),
            _USE,
            percent=True,
        ),
        Figure(
            "largest_bucket",
            "largest bucket",
            "most products under one SID",
            _at("sids", "largest_bucket"),
            _USE,
            better="lower",
        ),
    ]
    for level in range(levels):
        rows.append(
            Figure(
                f"usage_l{level + 1}",
                f"usage L{level + 1}",
                "share of the level's codes that hold any product",
                _at("levels", level, "usage"),
                _USE,
                percent=True,
                better="higher",
            )
        )
    for level in range(levels):
        rows.append(
            Figure(
                f"perplexity_l{level + 1}",
                f"perplexity L{level + 1}",
                "how many codes would do as much if used evenly",
                _at("levels", level, "perplexity"),
                _USE,
                better="higher",
            )
        )
    for level in range(levels):
        rows.append(
            Figure(
                f"gini_l{level + 1}",
                f"Gini L{level + 1}",
                "0 when all codes hold equally many products, towards 1 when few hold all",
                _at("levels", level, "gini"),
                _USE,
                better="lower",
            )
        )
    rows += [
        Figure(
            "rel_mse",
            "relMSE",
            "squared reconstruction error over the variance: 0 perfect, 1 no better than the mean",
            _at("faithfulness", "rel_mse"),
            _SIMILARITY,
            better="lower",
        ),
        Figure(
            "reconstruction_cosine",
            "reconstruction cosine",
            "mean cosine of a vector and what its codes give back",
            _at("faithfulness", "cosine"),
            _SIMILARITY,
            better="higher",
        ),
    ]
    for kind, label in (
        ("random", "random pairs"),
        ("neighbour", "neighbour pairs"),
        ("cosine_stratified", "cosine-stratified pairs"),
        ("random_and_neighbour", "random and neighbour pairs"),
    ):
        rows.append(
            Figure(
                f"spearman_{kind}",
                f"Spearman, {label}",
                "rank correlation of cosine and the number of leading codes shared",
                _at("spearman", kind),
                _SIMILARITY,
                better="higher",
            )
        )
    for level in range(levels):
        rows.append(
            Figure(
                f"share90_l{level + 1}",
                f"near-duplicates sharing L1{'' if level == 0 else f'..L{level + 1}'}",
                "share of the pairs with cosine >= 0.9 that have the same leading codes",
                _at("share90", level),
                _SIMILARITY,
                percent=True,
                better="higher",
            )
        )
    rows.append(
        Figure(
            "pairs90",
            "near-duplicate pairs",
            "how many pairs with cosine >= 0.9 that rests on",
            _at("pairs90"),
            _SIMILARITY,
        )
    )
    rows += [
        Figure(
            f"neighbour_overlap_{k}",
            f"neighbour overlap@{k}",
            f"share of the {k} nearest products by vector that are also the nearest by code",
            _at("neighbour_overlap", str(k)),
            _SIMILARITY,
            percent=True,
            better="higher",
        )
        for k in (5, 10)
    ]
    if trees:
        rows += [
            Figure(
                "ami_l1_top",
                "AMI, L1 with the top categories",
                "agreement of two groupings beyond chance: 0 by chance, 1 equal",
                lambda t: _taxonomy(t, 1, 1, "ami"),
                _TAXONOMY,
                better="higher",
            ),
            Figure(
                "ami_l2_leaf",
                "AMI, L1..L2 with the leaf categories",
                "agreement of two groupings beyond chance: 0 by chance, 1 equal",
                lambda t: _taxonomy(t, min(2, levels), trees, "ami"),
                _TAXONOMY,
                better="higher",
            ),
            Figure(
                "purity_l1_top",
                "purity, L1 in the top categories",
                "share of products in the commonest category of their prefix; more prefixes alone raise it",
                lambda t: _taxonomy(t, 1, 1, "purity"),
                _TAXONOMY,
                percent=True,
                better="higher",
            ),
            Figure(
                "fragmentation_l1",
                "fragmentation at L1",
                "effective number of L1 prefixes that a leaf category's products are spread over",
                lambda t: _fragments(t, 1),
                _TAXONOMY,
                better="lower",
            ),
            Figure(
                "fragmentation_l2",
                "fragmentation at L1..L2",
                "effective number of L1..L2 prefixes that a leaf category's products are spread over",
                lambda t: _fragments(t, 2),
                _TAXONOMY,
                better="lower",
            ),
            Figure(
                "error_propagation_top",
                "error propagation",
                "share of products whose fellows under L1..L2 are mostly of one other top category",
                lambda t: _misplaced(t, 1),
                _TAXONOMY,
                percent=True,
                better="lower",
            ),
            Figure(
                "error_propagation_leaf",
                "error propagation, leaf",
                "share of products whose fellows under L1..L2 are mostly of one other leaf category",
                lambda t: _misplaced(t, trees),
                _TAXONOMY,
                percent=True,
                better="lower",
            ),
        ]
    return rows


def _taxonomy(table: dict[str, Any], prefix_level: int, tree_level: int, key: str) -> Any:
    for row in table["taxonomy"]:
        if (row["prefix_level"], row["tree_level"]) == (prefix_level, tree_level):
            return row[key]
    return None


def _fragments(table: dict[str, Any], prefix_level: int) -> float | None:
    for row in table["fragmentation"]["levels"]:
        if row["prefix_level"] == prefix_level:
            return row["effective_weighted"]
    return None


def _misplaced(table: dict[str, Any], tree_level: int) -> float | None:
    for row in table["error_propagation"]["levels"]:
        if row["tree_level"] == tree_level:
            return row["share"]
    return None


def value_of(picked: Any) -> float | None:
    """The number of a figure that may be a number, an estimate's dict or None."""
    if isinstance(picked, dict):
        picked = picked["value"]
    return None if picked is None else float(picked)


def shown(figure: Figure, picked: Any) -> str:
    """A figure as people read it: `98.4 %`, `0.713`, `5,400`; a dash where there is none."""
    value = value_of(picked)
    if value is None:
        return "-"
    if figure.percent:
        return f"{100 * value:.1f} %"
    if isinstance(picked, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{value:.1f}" if abs(value) >= 20 else f"{round(value, 3) + 0.0:.3f}"


def interval(figure: Figure, picked: Any) -> str:
    """` (98.1 to 98.7, n 4,711)`, or nothing where nothing was sampled."""
    if not isinstance(picked, dict):
        return ""
    low, high, n = picked["low"], picked["high"], picked["n"]
    if low is None or high is None:
        return f" (n {n:,})"
    if low == high:
        return f" (all {n:,})"
    scale, digits = (100, 1) if figure.percent else (1, 3)
    return f" ({scale * low:.{digits}f} to {scale * high:.{digits}f}, n {n:,})"


# ------------------------------------------------------------------------------------------------ markdown


def cell(text: Any, limit: int = 80) -> str:
    """A catalogue text as a markdown table cell: one line, cut, markup and HTML shown and not obeyed."""
    line = " ".join(str(text).split())
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    for old, new in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("\\", "\\\\"),
        ("|", "\\|"),
        ("`", "\\`"),
    ):
        line = line.replace(old, new)
    for mark in "*_[]":
        line = line.replace(mark, f"\\{mark}")
    return line


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A markdown table; the cells are taken as they are."""
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    return "\n".join(lines + ["| " + " | ".join(str(value) for value in row) + " |" for row in rows])


def _markdown(data: dict[str, Any]) -> str:
    tables = data["tables"]
    parts = [
        f"**{cell(data['flavour'])}**, release {cell(data['release'])}, "
        f"as of {cell(data['as_of_snapshot'])}: {data['items']:,} products, "
        f"{data['categorised_items']:,} with a category, "
        f"{data['levels']} x {data['codebook_size']} codes, seed {data['seed']}."
    ]
    if data["population"]:
        sids = data["population"]["sids"]
        parts.append(
            f"The whole catalogue: {data['population']['items']:,} products, "
            f"{sids['distinct_sids']:,} distinct SIDs, largest bucket {sids['largest_bucket']:,}, usage "
            + ", ".join(f"{100 * entry['usage']:.1f} %" for entry in data["population"]["levels"])
            + ". The table below is on the sample."
        )
    rows = []
    for figure in figures(data):
        picked = figure.pick(tables[OURS])
        rows.append(
            [
                figure.label,
                shown(figure, picked) + interval(figure, picked),
                *(shown(figure, figure.pick(table)) for name, table in tables.items() if name != OURS),
            ]
        )
    parts.append(markdown_table(["figure", "ours", *(cell(name) for name in tables if name != OURS)], rows))
    parts.append(
        "In brackets the 95 % interval and the sample. Pairs: "
        + "; ".join(f"{name} {summary['pairs']:,}" for name, summary in data["pairs"].items())
        + "."
    )
    different = data["different_texts"]
    if different["worst"]:
        parts.append(
            f"**{different['items']:,} items share a SID with an item of another text.** The least alike:\n\n"
            + markdown_table(
                ["SID", "items", "mean cosine", "texts"],
                [
                    [
                        f"`{entry['sid']}`",
                        entry["items"],
                        f"{entry['mean_cosine']:.2f}",
                        " / ".join(cell(product["text"], 50) for product in entry["products"][:3]),
                    ]
                    for entry in different["worst"][:5]
                ],
            )
        )
    fragments = tables[OURS]["fragmentation"]["levels"]
    if fragments:
        parts.append(
            f"**Most spread leaf categories** (L1..L{fragments[-1]['prefix_level']} prefixes):\n\n"
            + markdown_table(
                ["leaf", "items", "prefixes", "effective"],
                [
                    [cell(" > ".join(row["leaf"])), row["items"], row["prefixes"], f"{row['effective']:.1f}"]
                    for row in fragments[-1]["worst"][:5]
                ],
            )
        )
    misplaced = data["error_propagation_examples"]
    if misplaced:
        parts.append(
            "**Products among products of another category:**\n\n"
            + markdown_table(
                ["product", "text", "SID", "its category", "its neighbours"],
                [
                    [
                        cell(row["product_id"]),
                        cell(row["text"], 60),
                        f"`{row['sid']}`",
                        cell(" > ".join(row["category"])),
                        f"{row['majority_items']} of {row['other_items']} in " + cell(" > ".join(row["majority"])),
                    ]
                    for row in misplaced[:5]
                ],
            )
        )
    return "\n\n".join(parts) + "\n"
