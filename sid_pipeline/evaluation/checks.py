"""Yes-or-no questions that a publication has to pass, as pure functions.

Each returns a `Check`: whether it passed, the figures it looked at, and one sentence that says what was seen
and what was asked for. Whether a failed check blocks is the orchestration's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sid_pipeline.evaluation.metrics import level_health


class Check(NamedTuple):
    """The outcome of a check.

    Attributes:
        passed: whether it passed.
        figures: JSON-able figures, thresholds included.
        sentence: what was seen, for people.
    """

    passed: bool
    figures: dict[str, Any]
    sentence: str


def every_active_product_has_one_sid(
    active_ids: Iterable[str], sid_ids: Sequence[str], max_missing_share: float = 0.0
) -> Check:
    """Every product of the snapshot has exactly one SID, and no other product has one.

    Args:
        active_ids: product_id of the snapshot's products.
        sid_ids: product_id column of the code table, repeats included.
        max_missing_share: products that may lack one, over the active ones (for instance, for want of a
            vector).
    """
    active = set(active_ids)
    counts = Counter(sid_ids)
    missing = sorted(active - counts.keys())
    repeated = sorted(key for key, count in counts.items() if count > 1)
    foreign = sorted(counts.keys() - active)
    share = len(missing) / len(active) if active else 0.0
    passed = share <= max_missing_share and not repeated and not foreign
    found = [
        f"{len(keys):,} {what} (first: {', '.join(keys[:3])})"
        for keys, what in (
            (missing, "without a SID"),
            (repeated, "with several"),
            (foreign, "with a SID but not in the snapshot"),
        )
        if keys
    ]
    sentence = f"{len(active):,} active products: " + ("; ".join(found) if found else "each has exactly one SID") + "."
    figures = {
        "active": len(active),
        "missing": len(missing),
        "repeated": len(repeated),
        "foreign": len(foreign),
        "missing_share": share,
        "max_missing_share": max_missing_share,
    }
    return Check(passed, figures, sentence)


def codes_in_range(codes: np.ndarray, codebook_size: int, product_ids: Sequence[str] | None = None) -> Check:
    """Every code is an integer from 0 to codebook_size - 1."""
    codes = np.asarray(codes)
    wrong = np.flatnonzero(((codes < 0) | (codes >= codebook_size)).any(axis=1))
    figures = {"rows": len(codes), "out_of_range": len(wrong), "codebook_size": codebook_size}
    if not len(wrong):
        return Check(True, figures, f"all codes of {len(codes):,} products lie from 0 to {codebook_size - 1}.")
    first = int(wrong[0])
    who = f"product {product_ids[first]}" if product_ids is not None else f"row {first}"
    row = "_".join(str(code) for code in codes[first].tolist())
    sentence = f"{len(wrong):,} rows hold codes outside 0 to {codebook_size - 1}; the first is {who} with {row}."
    return Check(False, figures, sentence)


def one_codebook(codebook_ids: Iterable[str], expected: str | None = None) -> Check:
    """All rows come from one codebook, and from the one expected where it is named.

    Args:
        codebook_ids: the codebook's id (its hash) of each row, or the distinct ones.
    """
    found = sorted(set(codebook_ids))
    figures = {"codebooks": found, "expected": expected}
    if len(found) > 1:
        return Check(
            False,
            figures,
            f"the rows come from {len(found)} codebooks ({', '.join(found[:3])}); one is asked.",
        )
    if not found:
        return Check(False, figures, "there are no rows, so they come from no codebook.")
    if expected is not None and found[0] != expected:
        return Check(False, figures, f"the rows come from codebook {found[0]}; the release's is {expected}.")
    return Check(True, figures, f"all rows come from codebook {found[0]}.")


def usage_not_collapsed(codes: np.ndarray, codebook_size: int, minimum: float = 0.5) -> Check:
    """Every level uses at least `minimum` of the codes that it could.

    N products can use no more than N codes, so a small catalogue is judged by min(N, codebook_size).
    """
    codes = np.asarray(codes)
    health = level_health(codes, [codebook_size] * codes.shape[1]) if len(codes) else []
    possible = min(len(codes), codebook_size)
    usage = [float(level["used"]) / possible for level in health]
    perplexity = [float(level["perplexity"]) for level in health]
    low = [number + 1 for number, value in enumerate(usage) if value < minimum]
    passed = bool(usage) and not low
    figures = {"usage": usage, "perplexity": perplexity, "minimum": minimum, "possible_codes": possible}
    if not usage:
        return Check(False, figures, "there are no products, so no code is used.")
    shown = ", ".join(f"L{number + 1} {100 * value:.1f} %" for number, value in enumerate(usage))
    verdict = f"at least {100 * minimum:.0f} % is asked of each level"
    fault = f"; too low: {', '.join(f'L{level}' for level in low)}" if low else ""
    return Check(passed, figures, f"usage of {possible:,} possible codes: {shown}; {verdict}{fault}.")


# Figures that a new table can be held to, with the direction in which they get better.
GUARDED = {
    **{f"usage_l{level}": +1 for level in range(1, 5)},
    **{f"share90_l{level}": +1 for level in range(1, 5)},
    "distinct_share": +1,
    "collision_rate": -1,
    "spearman_random_and_neighbour": +1,
    "neighbour_overlap_10": +1,
    "reconstruction_cosine": +1,
    "rel_mse": -1,
    "error_propagation_top": -1,
}
# A share of near-duplicates over fewer pairs than this moves by chance alone: one pair in 50 is 2 %.
MIN_PAIRS = 50


def not_worse_than(live: Mapping[str, float], new: Mapping[str, float], tolerances: Mapping[str, float]) -> Check:
    """The new table is not worse than the live one in any figure that has a tolerance, by more than that.

    A figure that either side lacks, and a near-duplicate share over fewer than `MIN_PAIRS` pairs, is not judged and
    is named. Without any figure left the check fails: nothing was compared.

    Args:
        live, new: `Report.headline()` of each.
        tolerances: figure to the absolute difference that is let pass; figures of `GUARDED`.
    """
    few = any(side.get("pairs90", MIN_PAIRS) < MIN_PAIRS for side in (live, new))
    compared, skipped, worse = {}, [], []
    for key, allowed in tolerances.items():
        if key not in live or key not in new or (few and key.startswith("share90")):
            skipped.append(key)
            continue
        loss = GUARDED[key] * (live[key] - new[key])
        compared[key] = {"live": live[key], "new": new[key], "tolerance": allowed}
        # The margin keeps rounding from failing a difference that equals the tolerance.
        if loss > allowed + 1e-12:
            worse.append(key)
    figures = {"compared": compared, "skipped": skipped, "worse": worse}
    not_judged = f" Not judged, for want of figures or pairs: {', '.join(skipped)}." if skipped else ""
    if not compared:
        return Check(False, figures, "the two reports have no guarded figure in common, so nothing was compared.")
    if worse:
        shown = "; ".join(
            f"{key} {new[key]:.3f} against {live[key]:.3f} (tolerance {tolerances[key]:.3f})" for key in worse
        )
        return Check(
            False, figures, f"worse than what is live in {len(worse)} of {len(compared)} figures: {shown}.{not_judged}"
        )
    return Check(True, figures, f"not worse than what is live in any of {len(compared)} figures.{not_judged}")
