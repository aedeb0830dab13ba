"""The report's plots, as inline SVG that takes its colours from the page, so that light, dark and print all work."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Stand-ins that become CSS variables of the page: matplotlib knows colours only.
INK, MUTED, RULE, ACCENT, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES: Final = {INK: "ink", MUTED: "muted", RULE: "rule", ACCENT: "accent", SECOND: "second"}
Side = Literal["left", "right"]
# Of equal values: who writes a page and then checks it draws once, in a tenth of a second each.
_remembered: Final = lru_cache(maxsize=32)
_WIDTH: Final = 4.7  # inches; the page scales the plot, 9-point text stays legible from 350 to 560 pixels


@_remembered
def accuracy(rounds: tuple[int, ...], values: tuple[float, ...], twin: float | None) -> str:
    """Accuracy after each round, with the centralised twin as a line."""

    def paint(axes: Axes) -> None:
        axes.plot(rounds, values, color=ACCENT, linewidth=2, marker="o", markersize=4)
        _label(axes, rounds[-1], values[-1], f"{values[-1]:.3f}", ACCENT, above=twin is None or values[-1] >= twin)
        if twin is not None:
            _line(axes, rounds[0], twin, f"centralised, not private {twin:.3f}", above=values[0] < twin)
        lowest = min(values) if twin is None else min(*values, twin)
        axes.set_ylim(max(0.0, lowest - 0.12), 1.03)
        _rounds(axes, rounds)

    return _drawn("accuracy", f"Accuracy by round, ending at {values[-1]:.3f}", 2.7, paint)


@_remembered
def epsilon(
    rounds: tuple[int, ...], largest: tuple[float, ...], smallest: tuple[float, ...], budget: float | None
) -> str:
    """Epsilon that was spent after each round: the most of all clients, the spread below it, and the budget."""

    top = max(*largest, budget or 0.0) * 1.18

    def paint(axes: Axes) -> None:
        axes.fill_between(rounds, smallest, largest, color=ACCENT, alpha=0.22, linewidth=0)
        axes.plot(rounds, largest, color=ACCENT, linewidth=2, marker="o", markersize=4)
        _label(axes, rounds[-1], largest[-1], f"{largest[-1]:.2f}", ACCENT, above=largest[-1] < 0.2 * top)
        if budget is not None:
            _line(axes, rounds[0], budget, f"budget {budget:g}", above=True)
        axes.set_ylim(0, top)
        _rounds(axes, rounds)

    return _drawn("epsilon", f"Epsilon spent by round, ending at {largest[-1]:.2f}", 2.7, paint)


@_remembered
def traffic(means: tuple[tuple[str, float, float], ...]) -> str:
    """Bytes a message in each exchange, up and down; logarithmic where the largest is over 50 times the smallest."""
    sizes = [max(1.0, size) for _, *pair in means for size in pair if size]
    logarithmic = max(sizes) > 50 * min(sizes)

    def paint(axes: Axes) -> None:
        axes.set_xscale("log" if logarithmic else "linear")
        for row, (_, up, down) in enumerate(means):
            _bar(axes, row - 0.2, up, ACCENT)
            _bar(axes, row + 0.2, down, SECOND)
        axes.set_yticks(range(len(means)), [kind for kind, _, _ in means])
        axes.invert_yaxis()
        axes.set_xticks([], minor=False)
        axes.minorticks_off()
        axes.set_xlim(min(sizes) / 4 if logarithmic else 0, max(sizes) * (6 if logarithmic else 1.25))
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(length=0)

    scale = " (logarithmic scale)" if logarithmic else ""
    return _drawn("traffic", f"Bytes a message in each exchange, up and down{scale}", 0.4 + 0.4 * len(means), paint)


@_remembered
def across(models: tuple[tuple[str, tuple[float, ...]], ...], deviation: float) -> str:
    """Clients by class of accuracy, a histogram for each model: noised counts, and their deviation as whiskers."""
    every = [count for _, counts in models for count in counts]
    limits = (min(0.0, *every) - 1.3 * deviation, max(0.0, *every) + 1.3 * deviation or 1.0)

    def panel(name: str, counts: tuple[float, ...]) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            middles = [(place + 0.5) / len(counts) for place in range(len(counts))]
            axes.bar(middles, counts, width=0.86 / len(counts), color=ACCENT, alpha=0.75)
            axes.errorbar(middles, counts, yerr=deviation, fmt="none", ecolor=INK, elinewidth=0.9)
            axes.axhline(0, color=MUTED, linewidth=0.9)
            axes.set_title(name, loc="left", fontsize=9, fontweight="bold", color=INK)
            _counted(axes, limits)

        return paint

    *above, lowest = [panel(*one) for one in models]

    def last(axes: Axes) -> None:
        lowest(axes)
        axes.set_xlabel("accuracy on a client's own held-out records")

    names = ", ".join(name for name, _ in models)
    label = f"Noised counts of clients by accuracy, each give or take {deviation:.2g}: {names}"
    return _drawn("across", label, 0.6 + 1.25 * len(models), *above, last)


def _drawn(name: str, label: str, height: float, *paint: Callable[[Axes], None]) -> str:
    """One panel for each that paints, from the top."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        for place, one in enumerate(paint, start=1):
            one(figure.add_subplot(len(paint), 1, place))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inline(file.getvalue(), name, label)


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


def _label(axes: Axes, x: float, y: float, text: str, color: str, *, above: bool, side: Side = "right") -> None:
    """Words at a line, instead of a legend."""
    baseline: Literal["bottom", "top"] = "bottom" if above else "top"
    place = (0, 6 if above else -6)
    axes.annotate(text, (x, y), place, textcoords="offset points", ha=side, va=baseline, color=color, fontweight="bold")


def _line(axes: Axes, x: float, y: float, text: str, *, above: bool) -> None:
    axes.axhline(y, color=SECOND, linewidth=1.2, linestyle=(0, (4, 3)))
    _label(axes, x, y, text, SECOND, above=above, side="left")


def _bar(axes: Axes, row: float, size: float, color: str) -> None:
    if size:
        axes.barh(row, size, height=0.34, color=color)
        axes.annotate(_size(size), (size, row), (4, 0), textcoords="offset points", va="center", fontsize=7.5)


def _rounds(axes: Axes, rounds: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(rounds[0] - 0.3, rounds[-1] + 0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=RULE, linewidth=0.7)


def _counted(axes: Axes, limits: tuple[float, float]) -> None:
    """Accuracies from 0 to 1 and whole clients; the same scale in each panel, so that they can be compared."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, 1)
    axes.set_ylim(*limits)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=RULE, linewidth=0.7)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _inline(svg: str, name: str, label: str) -> str:
    """The figure as an SVG element: no prolog, no metadata, no namespace links, identifiers of its own."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\1{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(r'font-family: [^;"]*', "font-family: inherit", re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL))
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    view = re.search(r'viewBox="[^"]+"', svg)
    opening = f'<svg role="img" aria-label="{escape(label)}" {view[0] if view else ""}>'
    return opening + svg[svg.index(">") + 1 :]
