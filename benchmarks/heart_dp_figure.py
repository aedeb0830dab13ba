"""Accuracy by true epsilon, as an SVG that can be read on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Each at least 3 to 1 against white and against near-black.
INK: Final = "#808080"
COLOURS: Final = ("#2f86d6", "#2a9d74", "#d9772b")
Lines = Mapping[str, Sequence[Sequence[float]]]


def draw(
    path: Path, least: Sequence[float], worst: Sequence[float], lines: Lines, peer: Sequence[tuple[float, float]]
) -> None:
    """Write the figure. ``least``, ``worst``: the hospitals' epsilons at each point; ``lines``: accuracies there, one a
    seed; ``peer``: nominal and unamplified epsilon of the last line's points.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(
        {
            "svg.fonttype": "path",
            "svg.hashsalt": "securefl",
            "font.size": 10,
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    ):
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for colour, (label, values) in zip(COLOURS, lines.items(), strict=True):
            _curve(axes, least, worst, values, colour, label)
        _peer(axes, worst, np.mean(list(lines.values())[-1], axis=1).tolist(), peer)
        _frame(axes)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _curve(
    axes: Axes,
    least: Sequence[float],
    worst: Sequence[float],
    values: Sequence[Sequence[float]],
    colour: str,
    label: str,
) -> None:
    """Means, bands of one standard deviation over seeds, and bars from the least to the worst hospital."""
    means, deviations = np.mean(values, axis=1), np.std(values, axis=1)
    axes.fill_between(worst, means - deviations, means + deviations, color=colour, alpha=0.16, linewidth=0)
    axes.hlines(means, least, worst, color=colour, alpha=0.5, linewidth=1)
    axes.plot(worst, means, "-o", color=colour, linewidth=2, markersize=5, label=label)


def _peer(axes: Axes, worst: Sequence[float], means: Sequence[float], peer: Sequence[tuple[float, float]]) -> None:
    """The same accuracies where their runs are proven to be, and what their own axis said."""
    bounds = [unamplified for _, unamplified in peer]
    colour = COLOURS[-1]
    axes.plot(bounds, means, "--o", color=colour, fillstyle="none", linewidth=1, label="FLamby, as its loaders sampled")
    for (nominal, _), x, y in zip(peer, worst, means, strict=True):
        axes.annotate(f"“{nominal:g}”", (x, y), (0, -15), textcoords="offset points", ha="center", color=colour)


def _frame(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(
        "epsilon of all steps at delta 0.001, of the hospital with the most\n(bars: from that with the least)"
    )
    axes.set_ylabel("test accuracy, mean over four hospitals")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.7)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
