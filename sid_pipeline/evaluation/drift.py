"""Has the catalogue drifted away from what a codebook was made for? A night's figures against earlier nights', purely.

A figure counts as drifted when it lies farther on its bad side than usual, in one of two comparisons:

    a jump   tonight against the median of the last nights
    a creep  the median of the newest nights against the median of the release's first nights: what moves a little
             every night never jumps

What is usual is `deviations` times the scaled median absolute deviation, 1.4826 * MAD, of the earlier nights (Hampel
1974; Leys et al. 2013: unlike mean and standard deviation, one bad night does not widen it), and never less than the
figure's own floor: on quiet nights the MAD is next to nothing, and a change that nobody needs to know of is none.

While there are too few nights to know what is usual, the figures that tell of a delivery which is not whole are held
against the median of the few by a bound of their own, `early`; rejected rows on the very first night too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from sid_pipeline.keys import MAX_TOKENS

MAD_TO_SIGMA = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Monitor:
    """A figure that is watched.

    Attributes:
        figure: its name, as in `nightly_figures`.
        label: in words.
        bad: +1 where more is worse, -1 where less is.
        floor: the least change that counts, in the figure's own unit, or a share of what is usual if `relative`.
        rebuild: a new codebook is what helps; else the input or the cleaner is to be looked at.
        early: the least change that counts while nights are few, in the floor's unit; None: it is not judged then.
        first: what the very first night is held against; None: it is not judged.
        both: a jump to the other side is told of too.
    """

    figure: str
    label: str
    bad: int
    floor: float
    relative: bool = False
    rebuild: bool = False
    early: float | None = None
    first: float | None = None
    both: bool = False


MONITORS = (
    Monitor("out_of_distribution", "share of products out of distribution", +1, 0.01, rebuild=True),
    Monitor("mean_distance", "mean quantisation distance", +1, 0.1, relative=True, rebuild=True),
    *(
        Monitor(f"usage_l{level}", f"share of codes in use, L{level}", -1, 0.05, rebuild=True)
        for level in range(1, MAX_TOKENS + 1)
    ),
    Monitor("collision_rate", "share of products that share their SID", +1, 0.03, rebuild=True),
    Monitor("without_a_sid", "share of products without a SID", +1, 0.005),
    Monitor("rejected", "share of rows rejected", +1, 0.02, early=0.05, first=0.0),
    Monitor("rejected_offers", "share of offers rejected", +1, 0.02, early=0.05, first=0.0),
    Monitor("products", "products in the catalogue", -1, 0.1, relative=True, early=0.1, both=True),
    Monitor("fallback", "share of texts that the cleaner fell back on", +1, 0.05),
    Monitor("cost_per_text", "US dollars a cleaned text", +1, 0.5, relative=True),
)


@dataclass(frozen=True)
class Night:
    """A night's figures by name; one that was not measured is absent."""

    snapshot: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """A figure that has drifted: tonight's (of a creep, the newest nights') value, what was usual, and what was let
    pass."""

    monitor: Monitor
    kind: str
    value: float
    usual: float
    allowed: float
    nights: int

    @property
    def sentence(self) -> str:
        """The finding with its figures."""
        against = {
            "jump": f"over the last {self.nights} nights",
            "creep": f"over the release's first {self.nights} nights",
            "early": f"over the {self.nights} nights before" if self.nights > 1 else "the night before",
        }[self.kind]
        usual = f"{against} {_shown(self.usual)}" if self.nights else "the first night that has it"
        return f"{self.monitor.label} {_shown(self.value)}, {usual}, let pass a change of {_shown(self.allowed, 2)}"


def _shown(value: float, digits: int = 4) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def judge(nights: Sequence[Night], window: int = 28, least: int = 7, deviations: float = 6.0) -> list[Finding]:
    """What has drifted tonight; empty on a quiet night. While there are too few nights to know what is usual, only
    figures with an `early` bound are judged.

    Args:
        nights: of one flavour and release, oldest first, tonight last.
        window: earlier nights that tonight is held against, at most.
        least: nights that a comparison needs; a creep needs twice as many and compares this many at either end.
        deviations: robust standard deviations that are let pass.
    """
    findings = []
    for monitor in MONITORS:
        values = [night.figures.get(monitor.figure) for night in nights]
        if not values or values[-1] is None:
            continue
        *earlier, tonight = [value for value in values if value is not None]
        found = None
        if len(earlier) >= least:
            found = _compare(monitor, "jump", tonight, earlier[-window:], deviations)
        elif monitor.early is not None:
            found = _compare_early(monitor, monitor.early, tonight, earlier)
        if found is None and len(earlier) + 1 >= 2 * least:
            newest = median([*earlier, tonight][-least:])
            found = _compare(monitor, "creep", newest, earlier[:least], deviations)
        if found is not None:
            findings.append(found)
    return findings


def _compare(monitor: Monitor, kind: str, value: float, usual: Sequence[float], deviations: float) -> Finding | None:
    middle = median(usual)
    spread = MAD_TO_SIGMA * median(abs(x - middle) for x in usual)
    allowed = max(deviations * spread, _bound(monitor, monitor.floor, middle))
    return _beyond(monitor, kind, value, middle, allowed, len(usual))


def _compare_early(monitor: Monitor, bound: float, value: float, few: Sequence[float]) -> Finding | None:
    middle = median(few) if few else monitor.first
    if middle is None:
        return None
    return _beyond(monitor, "early", value, middle, _bound(monitor, bound, middle), len(few))


def _bound(monitor: Monitor, bound: float, middle: float) -> float:
    """A bound in the figure's own unit."""
    return bound * abs(middle) if monitor.relative else bound


def _beyond(monitor: Monitor, kind: str, value: float, usual: float, allowed: float, nights: int) -> Finding | None:
    change = monitor.bad * (value - usual)
    if monitor.both and kind != "creep":
        change = abs(change)
    return Finding(monitor, kind, value, usual, allowed, nights) if change > allowed else None


def advice(findings: Sequence[Finding]) -> str:
    """What to do about findings, in words."""
    parts = []
    if any(finding.monitor.rebuild for finding in findings):
        parts.append(
            "The codebooks were trained on another catalogue than today's: build a release from the newest day, "
            "compare it, and promote it if it is better"
        )
    if any(not finding.monitor.rebuild for finding in findings):
        parts.append("Look at the delivery and at the cleaner: no new codebook mends these")
    return ". ".join(parts)
