"""Plots that the Dagster UI shows inside an asset's metadata: small PNGs in Markdown, drawn with matplotlib.

Belongs here: drawing what an asset has measured. Does not belong here: measuring. Text and axes are mid-grey on a clear
ground, so that one picture reads well in the UI's light and dark themes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sid_pipeline.assets.recording import Markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY = "#7d8794"
_ACCENT, _OTHERS = "#1b9e84", ("#8b95a1", "#c8892b", "#5b7fc7", "#b4573a")
_PANELS = 4  # the most curves that are drawn apart
_AXES = ("step", "seconds", "seconds_left", "epoch", "items_per_second", "learning_rate")


def loss_curves(history: Sequence[Mapping[str, float]]) -> Markdown:
    """A panel for each term of a training history (rows of numbers with `step`), over the steps.

    Terms are drawn apart because their scales differ by orders of magnitude.
    """
    terms = [name for name in (history[-1] if history else {}) if name not in _AXES]
    terms = [name for name in ("loss", "reconstruction", "quantisation", "contrastive") if name in terms] or terms[
        :_PANELS
    ]
    if len(history) < 2 or not terms:
        return Markdown("*too few steps were logged to draw a curve*")
    figure = _figure(2.6 * len(terms), 2.1)
    for number, name in enumerate(terms, 1):
        axes = figure.add_subplot(1, len(terms), number)
        rows = [(row.get("step", place), row[name]) for place, row in enumerate(history) if name in row]
        axes.plot(*zip(*rows, strict=True), color=_ACCENT, linewidth=1.6)
        axes.set_title(name, fontsize=9, color=_GREY)
        axes.set_xlabel("step", fontsize=8, color=_GREY)
        _quiet(axes)
    return _inline(figure, "Loss by term over the training steps")


def code_usage(code_counts: Sequence[Sequence[int]]) -> Markdown:
    """A heat map for each level: one square a code, darker with more products (logarithmic); white is unused."""
    figure = _figure(2.6 * len(code_counts), 1.9)
    for level, counts in enumerate(code_counts, 1):
        columns = min(32, len(counts))
        square = np.full(-(-len(counts) // columns) * columns, np.nan)
        square[: len(counts)] = [np.log1p(count) if count else np.nan for count in counts]
        axes = figure.add_subplot(1, len(code_counts), level)
        axes.imshow(square.reshape(-1, columns), cmap="viridis_r", aspect="equal", interpolation="nearest")
        used = sum(1 for count in counts if count)
        axes.set_title(f"L{level}: {used:,} of {len(counts):,} used", fontsize=9, color=_GREY)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color(_GREY)
    return _inline(figure, "How many products each code holds, by level")


def share_by_level(tables: Mapping[str, Sequence[float | None]]) -> Markdown:
    """Bars of the share of near-duplicates that keep together, by level; the first table is the one looked at."""
    shown = {name: [100 * (share or 0) for share in shares] for name, shares in tables.items() if any(shares)}
    if not shown:
        return Markdown("*no pair of near-duplicates was drawn*")
    levels = len(next(iter(shown.values())))
    figure = _figure(6.4, 2.5)
    axes = figure.add_subplot(1, 1, 1)
    width = 0.8 / len(shown)
    for number, (name, shares) in enumerate(shown.items()):
        place = np.arange(levels) - 0.4 + (number + 0.5) * width
        colour = _ACCENT if not number else _OTHERS[(number - 1) % len(_OTHERS)]
        bars = axes.bar(place, shares, width * 0.92, color=colour, label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=7, color=_GREY)
    axes.set_xticks(range(levels), ["L1", *(f"L1..L{level}" for level in range(2, levels + 1))])
    axes.set_ylabel("% of pairs with cosine >= .9", fontsize=8, color=_GREY)
    axes.set_ylim(0, 108)
    axes.legend(
        fontsize=8, frameon=False, labelcolor=_GREY, ncols=len(shown), loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    _quiet(axes)
    return _inline(figure, "Near-duplicates that share leading codes")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    return Figure(figsize=(width, height), layout="constrained")


def _quiet(axes: Any) -> None:
    axes.tick_params(labelsize=8, colors=_GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)


def _inline(figure: Figure, text: str) -> Markdown:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, transparent=True, metadata={"Software": None})
    return Markdown(f"![{text}](data:image/png;base64,{base64.b64encode(file.getvalue()).decode()})")
