"""Is a new table of SIDs as good as the live one: the question that a publication has to pass, as a pure function.

Whether a failed check blocks is the orchestration's business. That the table is whole (one SID a product, codes in
range, one codebook) is checked where it is written, in Spark.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sid_pipeline.keys import MAX_TOKENS


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


# Figures that a new table can be held to, with the direction in which they get better.
GUARDED = {
    **{f"usage_l{level}": +1 for level in range(1, MAX_TOKENS + 1)},
    **{f"share90_l{level}": +1 for level in range(1, MAX_TOKENS + 1)},
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


def are_there(what: str, live: int, new: int, allowed: float) -> Check:
    """No more than a share of what the live one has is missing from the new one.

    Args:
        what: is counted, for people: "active products".
        live, new: how many each has.
        allowed: share of the live one's that may be missing, 0 to 1.
    """
    figures = {"compared": {what.replace(" ", "_"): {"live": live, "new": new, "tolerance": allowed}}}
    sentence = f"{new:,} {what} against {live:,} of what is live"
    lost = live - new
    # The margin keeps rounding from failing a drop that equals the share.
    if lost <= allowed * live + 1e-9:
        return Check(True, figures, f"{sentence}.")
    return Check(False, figures, f"{sentence}: {lost:,} fewer, {_percent(lost / live, allowed)}.")


def _percent(share: float, allowed: float) -> str:
    """Both shares, with as many digits as it takes to tell them apart."""
    digits = next((n for n in range(1, 6) if f"{share:.{n}%}" != f"{allowed:.{n}%}"), 6)
    return f"which is {share:.{digits}%}, allowed {allowed:.{digits}%}"


def not_worse_than(live: Mapping[str, float], new: Mapping[str, float], tolerances: Mapping[str, float]) -> Check:
    """The new table is not worse than the live one in any figure that has a tolerance, by more than that.

    A figure that either side lacks, and a near-duplicate share over fewer than `MIN_PAIRS` pairs, is not judged and
    is named; not so the use of a level that neither has. Without any figure left the check fails: nothing was compared.

    Args:
        live, new: `Report.headline()` of each.
        tolerances: figure to the absolute difference that is let pass; figures of `GUARDED`.
    """
    few = any(side.get("pairs90", MIN_PAIRS) < MIN_PAIRS for side in (live, new))
    compared, skipped, worse = {}, [], []
    for key, allowed in tolerances.items():
        if key.startswith("usage") and key not in live and key not in new:
            continue
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
