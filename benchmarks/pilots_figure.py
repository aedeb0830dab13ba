"""A pilot's metric by round, as an SVG that can be read on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.heart_dp_figure import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from securefl.pilots import Pilot

_NAMES: Final = {"accuracy": "accuracy", "auc": "area under the ROC curve", "mae": "mean absolute error"}
# Line and marker: secagg and ckks lie on each other where there is no noise.
_STYLES: Final = (("-", "o", 6.0), ("-", "o", 6.0), ("--", "x", 6.0), ("--", "x", 6.0))


def draw(path: Path, pilot: Pilot, curves: Mapping[str, Sequence[float]], central: float) -> None:
    """Write the figure. ``curves``: by label, the metric before training and after each round; ``central``: of the
    same model, trained on all records in one place.
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
        figure = Figure(figsize=(7.6, 4.0), layout="constrained")
        axes = figure.add_subplot()
        colours = (COLOURS[0], COLOURS[2], COLOURS[1], INK)
        for (label, values), colour, (line, marker, size) in zip(curves.items(), colours, _STYLES, strict=True):
            axes.plot(values, linestyle=line, marker=marker, color=colour, linewidth=1.6, markersize=size, label=label)
        axes.axhline(central, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="centralised, not private")
        _frame(axes, pilot)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _frame(axes: Axes, pilot: Pilot) -> None:
    from matplotlib.ticker import MaxNLocator

    unit = "" if pilot.scale is None else f", {pilot.scale.unit}"
    axes.set_title(pilot.title, loc="left", fontsize=10)
    axes.set_xlabel("rounds")
    axes.set_ylabel(f"{_NAMES[pilot.metric]} on the public test set{unit}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.7)
    axes.legend(frameon=False, fontsize=9)
