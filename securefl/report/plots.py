"""The report's plots, as inline SVG that takes its colours from the page, so that light, dark and print all work."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that become CSS variables of the page: matplotlib knows colours only.
INK, MUTED, RULE, ACCENT, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES: Final = {INK: "ink", MUTED: "muted", RULE: "rule", ACCENT: "accent", SECOND: "second"}
_WIDTH: Final = 4.7  # inches; the page scales the plot, 9-point text stays legible from 350 to 560 pixels


def accuracy(rounds: Sequence[int], values: Sequence[float], twin: float | None) -> str:
    """Accuracy after each round, with the centralised twin as a line."""
    figure, axes = _canvas(2.7)
    axes.plot(rounds, values, color=ACCENT, linewidth=2, marker="o", markersize=4)
    _label(axes, rounds[-1], values[-1], f"{values[-1]:.3f}", ACCENT, above=twin is None or values[-1] >= twin)
    if twin is not None:
        axes.axhline(twin, color=SECOND, linewidth=1.2, linestyle=(0, (4, 3)))
        _label(axes, rounds[0], twin, f"centralised, not private {twin:.3f}", SECOND, above=values[0] < twin, left=True)
    low = min([*values, *([] if twin is None else [twin])])
    axes.set_ylim(max(0.0, low - 0.12), 1.03)
    _rounds(axes, rounds)
    return _svg(figure, "accuracy", f"Accuracy by round, ending at {values[-1]:.3f}")


def epsilon(rounds: Sequence[int], largest: Sequence[float], smallest: Sequence[float], budget: float | None) -> str:
    """Epsilon that was spent after each round: the most of all clients, the spread below it, and the budget."""
    figure, axes = _canvas(2.7)
    axes.fill_between(rounds, smallest, largest, color=ACCENT, alpha=0.22, linewidth=0)
    axes.plot(rounds, largest, color=ACCENT, linewidth=2, marker="o", markersize=4)
    _label(axes, rounds[-1], largest[-1], f"{largest[-1]:.2f}", ACCENT, above=False)
    top = max(largest)
    if budget is not None:
        top = max(top, budget)
        axes.axhline(budget, color=SECOND, linewidth=1.2, linestyle=(0, (4, 3)))
        _label(axes, rounds[0], budget, f"budget {budget:g}", SECOND, above=True, left=True)
    axes.set_ylim(0, top * 1.18)
    _rounds(axes, rounds)
    return _svg(figure, "epsilon", f"Epsilon spent by round, ending at {largest[-1]:.2f}")


def traffic(means: Mapping[str, Mapping[str, float]]) -> str:
    """Bytes a message in each exchange, up and down; logarithmic where the largest is over 50 times the smallest."""
    figure, axes = _canvas(0.9 + 0.42 * len(means))
    sizes = [size for directions in means.values() for size in directions.values()]
    logarithmic = max(sizes) > 50 * max(1.0, min(sizes))
    axes.set_xscale("log" if logarithmic else "linear")
    for row, directions in enumerate(means.values()):
        for offset, (direction, color) in enumerate((("up", ACCENT), ("down", SECOND))):
            if size := directions.get(direction):
                place = row + 0.2 * (2 * offset - 1)
                axes.barh(place, size, height=0.34, color=color)
                axes.annotate(_size(size), (size, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    axes.set_yticks(range(len(means)), list(means))
    axes.invert_yaxis()
    axes.set_xlim(max(1.0, min(sizes) / 4) if logarithmic else 0, max(sizes) * (6 if logarithmic else 1.25))
    axes.xaxis.set_major_formatter(lambda value, _: _size(value))
    axes.minorticks_off()
    _dress(axes, "x")
    return _svg(figure, "traffic", "Bytes a message in each exchange, up and down")


def _canvas(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        return figure, figure.add_subplot()


def _style() -> AbstractContextManager[None]:
    """Text stays text, identifiers are the same on every run, and lines take the page's colours."""
    import matplotlib

    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "securefl",
            "font.size": 9,
            "text.color": INK,
            "axes.edgecolor": RULE,
            "axes.labelcolor": MUTED,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
        }
    )


def _label(axes: Axes, x: float, y: float, text: str, color: str, *, above: bool, left: bool = False) -> None:
    """Words at a line, instead of a legend."""
    axes.annotate(
        text,
        (x, y),
        (0, 6 if above else -6),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom" if above else "top",
        color=color,
        fontweight="bold",
    )


def _rounds(axes: Axes, rounds: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(rounds[0] - 0.3, rounds[-1] + 0.3)
    _dress(axes, "y")


def _dress(axes: Axes, grid: Literal["x", "y"]) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=RULE, linewidth=0.7)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an SVG element: no prolog, no metadata, no namespace links, identifiers of its own."""
    file = io.StringIO()
    with _style():
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\1{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(r'font-family: [^;"]*', "font-family: inherit", re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL))
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    view = re.search(r'viewBox="[^"]+"', svg)
    opening = f'<svg role="img" aria-label="{escape(label)}" {view[0] if view else ""}>'
    return opening + svg[svg.index(">") + 1 :]
