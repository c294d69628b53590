"""What a SID keeps of relevance: retrieval by SID prefix, and whether one product of two shops shares its levels.

    python bench/retrieval.py [--set FIELD=VALUE ...]

`chorus_icecat`: the query is embedded and encoded like a product. Each query's judged products are ranked by the full
vector's cosine, by the cosine of what the codes decode to, and by the number of leading codes shared; products that
share equally many are tied, and a tie's gain is its mean over all orders. nDCG@10 with gains 2^rating - 1.

`match_walmart_amazon`, `match_abt_buy`: pairs that people labelled as one product against their hard non-matches, told
apart by the number of leading codes shared (AUC; a tie counts half), beside the cosine's AUC.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from catalogues import FLAVOURS, codebook, labelled_pairs, products
from numpy.typing import NDArray
from rqvae_common import embedded, setting, shared, table

from sid_pipeline.evaluation.baselines import fit_residual_kmeans


def shared_levels(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.int64]:
    """(P,) leading codes that the rows of a and b (P, L) share."""
    return np.logical_and.accumulate(a == b, axis=-1).sum(-1)


def ndcg(score: NDArray[Any], gain: NDArray[np.float64], k: int = 10) -> float | None:
    """nDCG@k with the expectation over orders inside ties; None where nothing is relevant."""
    discount = np.zeros(len(score))
    discount[: min(k, len(score))] = 1 / np.log2(np.arange(2, min(k, len(score)) + 2))
    ideal = (np.sort(gain)[::-1] * discount).sum()
    if not ideal:
        return None
    total, place = 0.0, 0
    for value in np.unique(score)[::-1]:
        tied = score == value
        total += gain[tied].mean() * discount[place : place + tied.sum()].sum()
        place += int(tied.sum())
    return float(total / ideal)


def auc(score: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative; a tie counts half."""
    from scipy.stats import rankdata

    ranks = rankdata(score)
    good, bad = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - good * (good + 1) / 2) / (good * bad))


def chorus(settings: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    catalogue = products("chorus_icecat")
    judged = pq.read_table(shared() / "data" / "chorus_icecat" / "judgements.parquet").to_pydict()
    row_of = {key: row for row, key in enumerate(catalogue.ids)}
    queries = sorted(set(judged["query"]))
    rows = []
    for flavour in FLAVOURS:
        x = catalogue.vectors(flavour)
        nothing = [None] * len(queries)
        q = embedded("chorus_queries", "raw", queries, nothing, nothing)
        book = codebook(catalogue, x, flavour, **settings)
        kmeans = fit_residual_kmeans(x, book.levels, book.codebook_size, 0)
        codes, decoded = book.encode(x), book.decode(book.encode(x))
        # (queries, products) scores
        by = {
            "full vector": q @ x.T,
            "decoded SID": q @ (decoded / np.linalg.norm(decoded, axis=1, keepdims=True)).T,
            "SID prefix": shared_levels(codes[None], book.encode(q)[:, None]),
            "k-means prefix": shared_levels(kmeans.assign(x)[None], kmeans.assign(q)[:, None]),
            "all tied": np.zeros((len(queries), len(x))),
        }
        found: dict[str, list[float]] = {name: [] for name in by}
        for number, query in enumerate(queries):
            at = [k for k, text in enumerate(judged["query"]) if text == query]
            j = np.array([row_of[str(judged["product_id"][k])] for k in at])
            gain = 2.0 ** np.array([float(judged["rating"][k]) for k in at]) - 1
            for name, score in by.items():
                value = ndcg(score[number, j], gain)
                if value is not None:
                    found[name].append(value)
        means = {name: float(np.mean(values)) for name, values in found.items()}
        rows.append({"flavour": flavour, "queries": len(found["all tied"]), **means})
    print("nDCG@10 over judged products, chorus_icecat\n\n" + table(rows) + "\n", flush=True)


def matches(settings: dict[str, Any]) -> None:
    rows = []
    for name in ("match_walmart_amazon", "match_abt_buy"):
        catalogue, pairs = labelled_pairs(name)
        for flavour in FLAVOURS:
            x = catalogue.vectors(flavour)
            book = codebook(catalogue, x, flavour, **settings)
            kmeans = fit_residual_kmeans(x, book.levels, book.codebook_size, 0)
            row: dict[str, Any] = {"pairs of": name, "flavour": flavour, "matches": int(pairs.match.sum())}
            row |= {"others": int((~pairs.match).sum())}
            row |= {"cosine AUC": auc((x[pairs.left] * x[pairs.right]).sum(1), pairs.match)}
            for label, codes in (("SID", book.encode(x)), ("k-means", kmeans.assign(x))):
                depth = shared_levels(codes[pairs.left], codes[pairs.right])
                row[f"{label} AUC"] = auc(depth, pairs.match)
                for kind, which in (("matches", pairs.match), ("others", ~pairs.match)):
                    share = [100 * float((depth[which] > level).mean()) for level in range(codes.shape[1])]
                    row[f"{label} shares L1..L4 %, {kind}"] = " ".join(f"{value:.0f}" for value in share)
            rows.append(row)
    print("One product in two shops\n\n" + table(rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="FIELD=VALUE")
    settings = dict(parser.parse_args().set)
    chorus(settings)
    matches(settings)


if __name__ == "__main__":
    main()
