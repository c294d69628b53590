"""The quality figures of a code table, as pure functions over arrays.

What belongs here: the definition of every figure of the report. What does not: which pairs are drawn
(`pairs.py`), what stands beside them (`baselines.py`) and how it is shown (`report.py`).

Conventions: `codes` is (N, L) int, coarse to fine; `prefix` is its (N, L) int64 table of dense prefix numbers
from `prefix_ids`; a category is a path of names from the root, or None. A figure that rests on a sample is an
`Estimate` with a 95 % interval and the sample's size. A figure that has nothing to rest on is None, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import gammaln, stdtrit

from sid_pipeline.evaluation.pairs import Pairs, row_blocks
from sid_pipeline.rqvae.gate import NEAR_DUPLICATE_COSINE

Path = tuple[str, ...]

_STEP = "\x1f"  # between the steps of a path; ingest lets no name hold it
_Z95 = 1.959964
_JACKKNIFE_GROUPS = 20


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval.

    Attributes:
        value: the figure.
        low, high: the interval's ends; None where it cannot be told (fewer than two independent
            observations). Both equal the value where nothing was sampled.
        n: observations it rests on (pairs, anchors or products, as the figure says).
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def sid_text(codes: Sequence[int] | np.ndarray) -> str:
    """`[35, 7, 120]` as it is printed everywhere: `35_7_120`."""
    return "_".join(str(int(code)) for code in codes)


def prefix_ids(codes: np.ndarray) -> np.ndarray:
    """(N, L) int64: column l numbers the distinct prefixes of l+1 levels from 0, ordered as the codes are."""
    n, levels = codes.shape
    out = np.empty((n, levels), np.int64)
    parent = np.zeros(n, np.int64)
    for level in range(levels):
        code = codes[:, level].astype(np.int64)
        low = code.min() if n else 0
        base = int(code.max() - low) + 1 if n else 1
        parent = np.unique(parent * base + (code - low), return_inverse=True)[1].reshape(n)
        out[:, level] = parent
    return out


# ------------------------------------------------------------------------------------------------ health


def level_health(codes: np.ndarray, sizes: Sequence[int]) -> list[dict[str, float | int]]:
    """Per level how the codebook is used, over all its codes.

    usage: used codes / codes. entropy: in nats. perplexity: exp(entropy), the number of codes that would give
    it if used evenly. gini: 0 when all codes are used equally often, towards 1 when few codes hold
    everything.
    """
    out: list[dict[str, float | int]] = []
    for level, size in enumerate(sizes):
        counts = np.bincount(codes[:, level], minlength=size).astype(np.float64)
        share = counts[counts > 0] / counts.sum()
        entropy = abs(float(-(share * np.log(share)).sum()))
        out.append(
            {
                "level": level + 1,
                "size": len(counts),
                "used": len(share),
                "usage": len(share) / len(counts),
                "entropy": entropy,
                "perplexity": float(np.exp(entropy)),
                "gini": gini(counts),
            }
        )
    return out


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of non-negative counts, zeros included; 0 for an empty or all-zero array."""
    ordered = np.sort(np.asarray(counts, np.float64))
    total, n = ordered.sum(), len(ordered)
    if not total:
        return 0.0
    return float(2 * (np.arange(1, n + 1) * ordered).sum() / (n * total) - (n + 1) / n)


def sid_health(prefix: np.ndarray) -> dict[str, float | int]:
    """Distinct SIDs and their share of the items, collision rate (1 - that share), largest bucket."""
    counts = np.bincount(prefix[:, -1])
    n = len(prefix)
    return {
        "distinct_sids": len(counts),
        "distinct_share": len(counts) / n,
        "collision_rate": 1 - len(counts) / n,
        "largest_bucket": int(counts.max()),
    }


def collisions_of_different_texts(
    prefix: np.ndarray,
    codes: np.ndarray,
    texts: Sequence[str],
    product_ids: Sequence[str],
    vectors: np.ndarray,
    norms: np.ndarray,
    worst: int = 20,
    shown_per_sid: int = 5,
) -> dict[str, Any]:
    """Items that share a SID with an item of another text, and the worst such SIDs.

    Texts are compared without case and surrounding or repeated white space. Worst are the SIDs whose items
    are least alike: the lowest mean cosine over their pairs.

    Returns:
        `items` and `sids` that are concerned, and `worst`: dicts of sid, items, distinct_texts, mean_cosine,
        products (dicts of product_id, text; at most `shown_per_sid`, of different texts).
    """
    counts = np.bincount(prefix[:, -1])
    rows = np.flatnonzero(counts[prefix[:, -1]] > 1)
    rows = rows[np.argsort(prefix[rows, -1], kind="stable")]
    edges = np.flatnonzero(np.diff(prefix[rows, -1])) + 1
    found: list[tuple[float, int, np.ndarray, int]] = []
    items = 0
    for members in np.split(rows, edges):
        different = {_plain(texts[row]) for row in members.tolist()}
        if len(different) < 2:
            continue
        items += len(members)
        found.append((_mean_cosine(vectors, norms, members), int(members[0]), members, len(different)))
    found.sort(key=lambda entry: entry[:2])
    shown = []
    for cosine, first, members, different_texts in found[:worst]:
        firsts: dict[str, int] = {}
        for row in members.tolist():
            firsts.setdefault(_plain(texts[row]), row)
        shown.append(
            {
                "sid": sid_text(codes[first]),
                "items": len(members),
                "distinct_texts": different_texts,
                "mean_cosine": cosine,
                "products": [
                    {"product_id": product_ids[row], "text": texts[row]}
                    for row in list(firsts.values())[:shown_per_sid]
                ],
            }
        )
    return {"items": items, "sids": len(found), "worst": shown}


def items_of_different_texts(prefix: np.ndarray, texts: np.ndarray) -> int:
    """Items that share a SID with an item of another text; `texts` (N,) are integers, equal where texts are."""
    sid = prefix[:, -1]
    pairs = np.unique(np.stack([sid, np.unique(texts, return_inverse=True)[1].reshape(-1)]), axis=1)
    several = np.bincount(pairs[0]) > 1
    return int(several[sid].sum())


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _mean_cosine(vectors: np.ndarray, norms: np.ndarray, members: np.ndarray) -> float:
    """Mean cosine over all pairs of members, from the norm of their sum; a huge bucket by its first 2,000."""
    members = members[:2_000]
    unit = vectors[members] / norms[members, None]
    m = len(members)
    return float((np.square(unit.sum(0, dtype=np.float64)).sum() - np.square(unit).sum()) / (m * (m - 1)))


# ------------------------------------------------------------------------------------------ faithfulness


def faithfulness(
    vectors: np.ndarray, reconstruct: Callable[[slice], np.ndarray], population: int | None = None
) -> dict[str, Estimate | None]:
    """How much of a vector its codes keep.

    relMSE is the squared error over the variance, sum |x - x'|^2 / sum |x - mean|^2: 0 is perfect, 1 is no
    better than the mean. The cosine is the mean over products of cos(x, x'). Over all products, in blocks.

    Args:
        vectors: (N, d) float32.
        reconstruct: gives the (rows, d) reconstruction of a slice of rows.
        population: products that the N were sampled from; None: they are all. The interval of relMSE is the
            delta method's for a ratio of means.

    Returns:
        {"rel_mse", "cosine"}; rel_mse is None where all vectors are equal.
    """
    n = len(vectors)
    mean = np.zeros(vectors.shape[1], np.float64)
    for rows in row_blocks(n):
        mean += vectors[rows].sum(0, dtype=np.float64)
    centre = (mean / n).astype(np.float32)
    error, spread, cosine = np.empty(n), np.empty(n), np.empty(n)
    for rows in row_blocks(n):
        x, back = vectors[rows], reconstruct(rows)
        error[rows] = np.square(x - back).sum(1, dtype=np.float64)
        spread[rows] = np.square(x - centre).sum(1, dtype=np.float64)
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(back, axis=1)
        lengths[lengths == 0] = 1.0
        cosine[rows] = np.einsum("nd,nd->n", x, back) / lengths
    rel_mse = None
    # Rounding leaves a trace of variance between equal vectors.
    if spread.sum() > 1e-10 * max(n, 1):
        ratio = float(error.sum() / spread.sum())
        influence = _mean_estimate((error - ratio * spread) / spread.mean(), population or n)
        half = None if influence.high is None else influence.high - influence.value
        rel_mse = Estimate(
            ratio, None if half is None else max(0.0, ratio - half), None if half is None else ratio + half, n
        )
    return {"rel_mse": rel_mse, "cosine": _mean_estimate(cosine, population or n)}


def shared_depth(prefix: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) int64: how many leading levels the rows `i` and `j` share, 0..L."""
    depth = np.zeros(len(i), np.int64)
    for level in range(prefix.shape[1]):
        depth += prefix[i, level] == prefix[j, level]
    return depth


def spearman(pairs: Pairs, depth: np.ndarray) -> Estimate | None:
    """Spearman's rank correlation of cosine and shared prefix depth, ties by mid-ranks.

    The interval is a delete-a-group jackknife (20 groups) over anchors, since the pairs of one anchor move
    together. None where either side has only one value.
    """
    if len(pairs) < 3:
        return None
    cosine_rank = np.unique(pairs.cosine, return_inverse=True)[1]
    value = _rank_correlation(cosine_rank, depth)
    if value is None:
        return None
    group = np.unique(pairs.i, return_inverse=True)[1] % _JACKKNIFE_GROUPS
    parts = [
        _rank_correlation(cosine_rank[keep], depth[keep]) for keep in (group != g for g in range(int(group.max()) + 1))
    ]
    left_out = np.array([part for part in parts if part is not None])
    if len(left_out) < 2:
        return Estimate(value, None, None, len(pairs))
    groups = len(left_out)
    error = np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean()).sum())
    half = float(stdtrit(groups - 1, 0.975) * error)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), len(pairs))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation of the mid-ranks of two arrays of small non-negative integers."""
    if not len(a):
        return None
    x, y = _mid_ranks(a), _mid_ranks(b)
    x -= x.mean()
    y -= y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else None


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    counts = np.bincount(values)
    return (np.cumsum(counts) - (counts - 1) / 2)[values]


def share_by_level(pairs: Pairs, depth: np.ndarray, levels: int) -> list[Estimate | None]:
    """Share of the pairs that have the same prefix of 1..L levels.

    Wilson's interval, counted at the number of distinct anchors (not of pairs), which is the cautious choice
    for pairs that share an anchor. None where there are no pairs.
    """
    if not len(pairs):
        return [None] * levels
    anchors = len(np.unique(pairs.i))
    return [_proportion(float((depth > level).mean()), len(pairs), anchors) for level in range(levels)]


def _proportion(value: float, n: int, independent: int) -> Estimate:
    """Wilson's score interval at `independent` observations."""
    z2 = _Z95**2 / independent
    centre = (value + z2 / 2) / (1 + z2)
    half = _Z95 / (1 + z2) * np.sqrt(value * (1 - value) / independent + z2 / (4 * independent))
    return Estimate(value, float(min(value, max(0.0, centre - half))), float(max(value, min(1.0, centre + half))), n)


def near_duplicates(pairs: Pairs, threshold: float = NEAR_DUPLICATE_COSINE) -> Pairs:
    """The pairs of cosine >= threshold."""
    keep = pairs.cosine >= threshold
    return Pairs(f"cosine >= {threshold}", pairs.i[keep], pairs.j[keep], pairs.cosine[keep])


def neighbour_overlap(prefix: np.ndarray, neighbours: Pairs, k: int) -> Estimate | None:
    """Mean share of the k nearest neighbours by vector that are among the k nearest by code.

    Nearness in code space is the number of shared leading levels. It leaves large ties, so the figure is the
    exact expectation over a random order inside ties, not one draw of it.

    Args:
        neighbours: from `neighbour_pairs`, with at least k neighbours an anchor; the first k are used.

    Returns:
        an estimate over anchors, or None where products have fewer than k neighbours.
    """
    n, levels = prefix.shape
    anchors = len(np.unique(neighbours.i))
    if not anchors or len(neighbours) // anchors < k:
        return None
    i = neighbours.i.reshape(anchors, -1)[:, :k]
    j = neighbours.j.reshape(anchors, -1)[:, :k]
    # at_least[:, d]: other products that share d or more levels with the anchor.
    at_least = np.full((anchors, levels + 2), n - 1, np.float64)
    for level in range(levels):
        at_least[:, level + 1] = np.bincount(prefix[:, level])[prefix[i[:, 0], level]] - 1
    at_least[:, levels + 1] = 0
    depth = shared_depth(prefix, i.ravel(), j.ravel()).reshape(i.shape)
    deeper = np.take_along_axis(at_least, depth + 1, axis=1)
    tied = np.take_along_axis(at_least, depth, axis=1) - deeper
    share = np.clip((k - deeper) / tied, 0.0, 1.0).mean(axis=1)
    return _mean_estimate(share, population=n)


def _mean_estimate(values: np.ndarray, population: int) -> Estimate:
    """Mean with a normal interval; the error shrinks to 0 as the sample becomes the whole population."""
    n = len(values)
    if n < 2:
        return Estimate(float(values.mean()), None, None, n)
    rest = max(0.0, 1 - n / population)
    half = _Z95 * float(values.std(ddof=1)) / np.sqrt(n) * np.sqrt(rest)
    mean = float(values.mean())
    return Estimate(mean, float(mean - half), float(mean + half), n)


# ---------------------------------------------------------------------------------------------- taxonomy


def tree_labels(categories: Sequence[Path | None]) -> tuple[np.ndarray, list[list[Path]]]:
    """Number the category paths of each tree level.

    Returns:
        labels: (N, T) int64, T the deepest path's length; column t numbers the path cut to t+1 steps (a
            shorter path counts as it is); -1 for a product without category.
        paths: per tree level the path of each number, in lexical order.
    """
    depth = max((len(path) for path in categories if path), default=0)
    distinct = sorted({path for path in categories if path})
    number = {path: index for index, path in enumerate(distinct)}
    row = np.fromiter((number[path] if path else -1 for path in categories), np.int64, len(categories))
    labels = np.full((len(categories), depth), -1, np.int64)
    paths: list[list[Path]] = []
    for level in range(depth):
        cut = [path[: level + 1] for path in distinct]
        names = sorted(set(cut))
        position = {path: index for index, path in enumerate(names)}
        lookup = np.array([position[path] for path in cut] + [-1], np.int64)
        labels[:, level] = lookup[row]
        paths.append(names)
    return labels, paths


def numbered_paths(categories: pa.ChunkedArray) -> tuple[np.ndarray, list[Path]]:
    """Number the category paths of a column of lists of strings.

    Returns:
        (N,) int64, -1 where a path is null or empty; the path of each number, in lexical order.
    """
    known = pc.binary_join(categories, _STEP).combine_chunks().dictionary_encode()
    paths = [tuple(path.split(_STEP)) if path else () for path in known.dictionary.to_pylist()]
    order = sorted((path, number) for number, path in enumerate(paths) if path)
    rank = np.full(len(paths) + 1, -1, np.int64)
    rank[[number for _, number in order]] = np.arange(len(order))
    return rank[known.indices.fill_null(len(paths)).to_numpy()], [path for path, _ in order]


def agreement(a: np.ndarray, b: np.ndarray, population: int | None = None) -> dict[str, Any]:
    """How well two labellings of the same items agree.

    ami: adjusted mutual information with the arithmetic mean (Vinh, Epps and Bailey 2010), 0 by chance and 1
    for equal groupings. nmi: the same unadjusted, which chance inflates. purity: share of items in the
    commonest `b` of their `a`, which chance inflates too. Intervals by the influence of each item (delta
    method), with the expected mutual information held fixed; they close as the sample becomes the population.
    They are of sampling noise alone: in a smaller sample fine groups hold fewer items and look purer.

    Args:
        a, b: (M,) integer labels.
        population: items that the M were sampled from; None: they are all.

    Returns:
        {"ami": Estimate | None, "nmi": float | None, "purity": Estimate, "n": M}; ami and nmi are None where
        both have a single group.
    """
    n = len(a)
    a = np.unique(a, return_inverse=True)[1].astype(np.int64)
    b = np.unique(b, return_inverse=True)[1].astype(np.int64)
    size_a, size_b = np.bincount(a), np.bincount(b)
    cell, cell_of, joint = np.unique(a * len(size_b) + b, return_inverse=True, return_counts=True)
    cell_a = cell // len(size_b)
    log_n = np.log(n)
    point = (np.log(joint) + log_n - np.log(size_a[cell_a]) - np.log(size_b[cell % len(size_b)]))[cell_of]
    surprise = (2 * log_n - np.log(size_a)[a] - np.log(size_b)[b]) / 2
    information, entropy = float(point.mean()), float(surprise.mean())
    best = np.zeros(len(size_a), np.int64)
    np.maximum.at(best, cell_a, joint)
    leading = np.unique(cell_a[joint == best[cell_a]], return_index=True)[1]
    main_cell = np.flatnonzero(joint == best[cell_a])[leading]
    in_main = np.zeros(len(cell), bool)
    in_main[main_cell] = True
    purity = _mean_estimate(in_main[cell_of].astype(np.float64), population or n)
    if len(size_a) == 1 and len(size_b) == 1:
        return {"ami": None, "nmi": None, "purity": purity, "n": n}
    expected = expected_mutual_information(size_a, size_b)
    room = entropy - expected
    if abs(room) < 1e-12:
        # As many groups as items on both sides: nothing is left to adjust, and equal groupings agree fully.
        ami = Estimate(1.0, 1.0, 1.0, n)
    else:
        value = (information - expected) / room
        influence = ((point - information) - value * (surprise - entropy)) / room
        error = _mean_estimate(influence, population or n)
        half = (error.high - error.value) if error.high is not None else None
        ami = Estimate(
            float(value),
            None if half is None else float(value - half),
            None if half is None else float(value + half),
            n,
        )
    return {"ami": ami, "nmi": information / max(entropy, 1e-12), "purity": purity, "n": n}


def expected_mutual_information(size_a: np.ndarray, size_b: np.ndarray) -> float:
    """Mutual information (nats) that random labellings with these group sizes share on average.

    Vinh, Epps and Bailey (2010), eq. 24. It depends on the group sizes alone, so equal sizes are counted
    once: that is what makes it quick for hundreds of thousands of prefixes. Counts further than 12 standard
    deviations (and 12) from a cell's mean are left out; their probability is below float64's resolution.
    """
    n = int(size_a.sum())
    a, times_a = np.unique(size_a, return_counts=True)
    b, times_b = np.unique(size_b, return_counts=True)
    aa, bb = np.repeat(a, len(b)).astype(np.int64), np.tile(b, len(a)).astype(np.int64)
    weight = np.repeat(times_a, len(b)).astype(np.float64) * np.tile(times_b, len(a))
    mean = aa * bb / n
    spread = np.sqrt(mean * (n - aa) / n * (n - bb) / max(n - 1, 1))
    low = np.maximum(np.maximum(1, aa + bb - n), np.floor(mean - 12 * spread - 12).astype(np.int64))
    high = np.minimum(np.minimum(aa, bb), np.ceil(mean + 12 * spread + 12).astype(np.int64))
    width = np.maximum(high - low + 1, 0)
    log_factorial = gammaln(np.arange(n + 1) + 1.0)
    total = 0.0
    # Blocks of about 2 million terms bound the temporaries.
    block = np.cumsum(width) // 2_000_000
    for number in np.unique(block):
        part = block == number
        w, first = width[part], low[part]
        terms = int(w.sum())
        x = np.repeat(aa[part], w)
        y = np.repeat(bb[part], w)
        count = np.arange(terms) - np.repeat(np.cumsum(w) - w, w) + np.repeat(first, w)
        log_p = (
            log_factorial[x]
            + log_factorial[y]
            + log_factorial[n - x]
            + log_factorial[n - y]
            - log_factorial[n]
            - log_factorial[count]
            - log_factorial[x - count]
            - log_factorial[y - count]
            - log_factorial[n - x - y + count]
        )
        information = count / n * (np.log(count) + np.log(n) - np.log(x) - np.log(y))
        total += float((np.repeat(weight[part], w) * information * np.exp(log_p)).sum())
    return total


def taxonomy_agreement(prefix: np.ndarray, labels: np.ndarray, population: int | None = None) -> list[dict[str, Any]]:
    """`agreement` of each prefix level with each tree level, over the categorised products.

    Args:
        population: products that the N were sampled from; None: they are all.
    """
    rows = np.flatnonzero(labels[:, 0] >= 0) if labels.shape[1] else np.empty(0, np.int64)
    if not len(rows):
        return []
    if population is not None:
        population = round(population * len(rows) / len(labels))
    return [
        {
            "prefix_level": level + 1,
            "tree_level": tree + 1,
            **agreement(prefix[rows, level], labels[rows, tree], population),
        }
        for level in range(prefix.shape[1])
        for tree in range(labels.shape[1])
    ]


def fragmentation(
    prefix: np.ndarray,
    leaves: np.ndarray,
    paths: Sequence[Path],
    levels: Sequence[int] = (1, 2),
    worst: int = 20,
    population: int | None = None,
) -> dict[str, Any]:
    """Over how many prefixes each leaf category is spread.

    prefixes: the plain number. effective: exp of the entropy of the leaf's products over prefixes, which a
    few strays hardly move. outside_main: share of the leaf's products that are not under its commonest
    prefix.

    Args:
        prefix: (N, L) from `prefix_ids`.
        leaves: (N,) leaf number, -1 for none.
        paths: path of each leaf number.
        levels: prefix depths to look at.
        population: products that the N were sampled from; None: they are all. The interval of the effective
            number is a delete-a-group jackknife (20 groups) over products. A smaller sample holds fewer
            products of a leaf, which lowers the number itself: compare at equal sample sizes.

    Returns:
        `levels`: per depth the mean over leaves, the means weighted by products, and `worst`: leaves by
        effective number, each with its path and counts. `leaves` and `items` say what it rests on.
    """
    rows = np.flatnonzero(leaves >= 0)
    out: dict[str, Any] = {"items": len(rows), "leaves": len(np.unique(leaves[rows])), "levels": []}
    if not len(rows):
        return out
    leaf = leaves[rows]
    size = np.bincount(leaf, minlength=len(paths))
    for level in levels:
        part = prefix[rows, level - 1]
        cell, count = np.unique(leaf * (part.max() + 1) + part, return_counts=True)
        owner = cell // (part.max() + 1)
        prefixes = np.bincount(owner, minlength=len(paths))
        share = count / size[owner]
        effective = np.exp(np.bincount(owner, weights=-share * np.log(share), minlength=len(paths)))
        main = np.zeros(len(paths), np.int64)
        np.maximum.at(main, owner, count)
        present = np.flatnonzero(size)
        order = present[np.lexsort((present, -effective[present]))][:worst]
        weights = size[present] / len(rows)
        whole = max(1.0, float((effective[present] * weights).sum()))
        out["levels"].append(
            {
                "prefix_level": level,
                "prefixes_per_leaf": float(prefixes[present].mean()),
                "prefixes_weighted": float((prefixes[present] * weights).sum()),
                "effective_weighted": _effective_estimate(whole, leaf, part, population),
                "outside_main": float(1 - main.sum() / len(rows)),
                "worst": [
                    {
                        "leaf": list(paths[index]),
                        "items": int(size[index]),
                        "prefixes": int(prefixes[index]),
                        "effective": float(effective[index]),
                        "outside_main": float(1 - main[index] / size[index]),
                    }
                    for index in order.tolist()
                ],
            }
        )
    return out


def _effective_estimate(whole: float, leaf: np.ndarray, part: np.ndarray, population: int | None) -> Estimate:
    """The mean effective number of prefixes of a product's leaf, with its jackknife interval."""
    n = len(leaf)
    if population is None or population <= n:
        return Estimate(whole, whole, whole, n)
    group = np.arange(n) % _JACKKNIFE_GROUPS
    left_out = np.array([_effective(leaf[group != g], part[group != g]) for g in range(min(n, _JACKKNIFE_GROUPS))])
    groups = len(left_out)
    if groups < 2:
        return Estimate(whole, None, None, n)
    error = np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean()).sum() * (1 - n / population))
    half = float(stdtrit(groups - 1, 0.975) * error)
    return Estimate(whole, max(1.0, whole - half), whole + half, n)


def _effective(leaf: np.ndarray, part: np.ndarray) -> float:
    if not len(leaf):
        return 1.0
    size = np.bincount(leaf)
    width = int(part.max()) + 1
    cell, count = np.unique(leaf * width + part, return_counts=True)
    owner = cell // width
    share = count / size[owner]
    effective = np.exp(np.bincount(owner, weights=-share * np.log(share), minlength=len(size)))
    return float((effective * size).sum() / len(leaf))


def error_propagation(
    prefix: np.ndarray,
    labels: np.ndarray,
    paths: Sequence[Sequence[Path]],
    texts: Sequence[str],
    product_ids: Sequence[str],
    codes: np.ndarray,
    level: int = 2,
    worst: int = 20,
    population: int | None = None,
) -> dict[str, Any]:
    """Products that sit among products of another category.

    A product disagrees at a tree level when more than half of the *other* categorised products under its
    prefix share one category that is not its own. Products alone under their prefix cannot disagree and are
    left out of the share. The worst are those that disagree already at the top of the tree, in the largest
    and clearest company.

    Args:
        labels, paths: from `tree_labels`.
        level: depth of the prefix.
        population: products that the N were sampled from; None: they are all.

    Returns:
        `items` (categorised products with company under their prefix), `levels` (tree_level, items that
        disagree and their share, an `Estimate`, None without such products) and `worst`.
    """
    level = min(level, prefix.shape[1])
    rows = np.flatnonzero(labels[:, 0] >= 0) if labels.shape[1] else np.empty(0, np.int64)
    part = np.unique(prefix[rows, level - 1], return_inverse=True)[1]
    others = np.bincount(part)[part] - 1
    accompanied = int((others > 0).sum())
    out: dict[str, Any] = {"prefix_level": level, "items": accompanied, "levels": [], "worst": []}
    if not len(rows):
        return out
    for tree in range(labels.shape[1]):
        label = labels[rows, tree]
        width = len(paths[tree])
        cell, count = np.unique(part * width + label, return_counts=True)
        owner, name = cell // width, cell % width
        # An owner's last entry after sorting by count is its commonest category; ties take the first path.
        order = np.lexsort((-name, count, owner))
        last = order[np.searchsorted(owner[order], np.arange(part.max() + 1), side="right") - 1]
        main, main_count = name[last][part], count[last][part]
        wrong = (main != label) & (main_count * 2 > others) & (others > 0)
        out["levels"].append(
            {
                "tree_level": tree + 1,
                "items": int(wrong.sum()),
                "share": _mean_estimate(wrong[others > 0].astype(np.float64), max(population or 0, accompanied))
                if accompanied
                else None,
            }
        )
        missing = worst - len(out["worst"])
        seen = {entry["product_id"] for entry in out["worst"]}
        candidates = np.flatnonzero(wrong)
        clear = main_count[candidates] / others[candidates]
        ranked = candidates[np.lexsort((candidates, -main_count[candidates], -np.round(clear, 1)))]
        for position in ranked[: missing + len(seen)].tolist():
            row = int(rows[position])
            if len(out["worst"]) >= worst or product_ids[row] in seen:
                continue
            out["worst"].append(
                {
                    "product_id": product_ids[row],
                    "text": texts[row],
                    "sid": sid_text(codes[row]),
                    "category": list(paths[labels.shape[1] - 1][labels[row, -1]]),
                    "majority": list(paths[tree][main[position]]),
                    "majority_items": int(main_count[position]),
                    "other_items": int(others[position]),
                    "tree_level": tree + 1,
                }
            )
    return out
