"""What the report's page says: a run's facts in words and rounded figures, put into the template."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from securefl import precision as encoding
from securefl.privacy.mechanism import DPSGD
from securefl.protection import parameters
from securefl.records import RoundRecord
from securefl.report import plots
from securefl.report.facts import Facts
from securefl.report.parties import PARTIES

_SOFTWARE: Final = ("securefl", "torch", "opacus", "dp-accounting", "cryptography", "tenseal", "numpy")


@dataclass(frozen=True)
class Figure:
    """A headline: a number, what it is, and what to hold it against."""

    value: str
    label: str
    note: str


@dataclass(frozen=True)
class Cell:
    """One client in one round: ``state`` is contributed, late, recovered or dropped; ``words`` say why."""

    state: str
    words: str


def html(facts: Facts) -> str:
    """The page. Everything that is not a plot of ours is escaped by the template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"size": size, "number": number}
    return environment.get_template("template.html.j2").render(
        facts=facts,
        figures=tuple(_figures(facts)),
        plots={name: Markup(svg) for name, svg in _plots(facts).items()},  # noqa: S704 - drawn by plots.py, no foreign text
        grid=_grid(facts),
        parties=PARTIES[facts.plan.protection],
        private=isinstance(facts.plan.mechanism, DPSGD),
        epsilons=_epsilons(facts),
        weights=dict(zip(facts.plan.clients, facts.plan.weights, strict=True)),
        software=_versions(),
        encoding=str(encoding.facts(parameters(facts.plan))),
    )


def size(count: float) -> str:
    """Bytes for people: ``12.4 kB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def number(value: float | None, digits: int = 3) -> str:
    """A rounded number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"  # noqa: RUF001


def _figures(facts: Facts) -> Iterator[Figure]:
    summary, history = facts.summary, facts.history
    accuracies = [record.accuracy for record in history if record.accuracy is not None]
    accuracy = summary.accuracy if summary else (accuracies[-1] if accuracies else None)
    twin = summary.accuracy_centralised if summary else None
    if accuracy is not None:
        against = (
            f"{number(twin)} when trained centrally, without privacy" if twin is not None else "on the public test set"
        )
        yield Figure(number(accuracy), "accuracy", against)
    yield _epsilon_figure(facts)
    if summary:
        view = summary.server_view
        yield Figure(
            f"{view.updates_readable} of {view.updates_received}",
            "updates readable by the server",
            "counted from the transcript",
        )
        yield Figure(size(summary.upload_bytes), "sent by a client a round", f"{size(summary.download_bytes)} received")
    recovered = sum(len(record.recovered) for record in history)
    lost = sum(len(record.dropped) for record in history)
    yield Figure(f"{recovered} of {lost}", "dropouts recovered", f"in {len(history)} of {facts.job.rounds} rounds")


def _epsilon_figure(facts: Facts) -> Figure:
    budget = facts.job.budget
    if budget is None:
        return Figure("none", "differential privacy", "nothing bounds what is revealed about one record")
    spent = max(_epsilons(facts).values(), default=0.0)
    return Figure(number(spent, 2), "epsilon spent", f"of {budget.epsilon:g}, at delta {budget.delta:g}")


def _epsilons(facts: Facts) -> Mapping[str, float]:
    """Each client's epsilon as its own ledger last gave it."""
    if facts.summary:
        return facts.summary.epsilon_by_client
    latest: dict[str, float] = {}
    for record in facts.history:
        latest |= record.epsilon
    return latest


def _plots(facts: Facts) -> Mapping[str, str]:
    drawn: dict[str, str] = {}
    measured = [(record.round, record.accuracy) for record in facts.history if record.accuracy is not None]
    if measured:
        twin = facts.summary.accuracy_centralised if facts.summary else None
        drawn["accuracy"] = plots.accuracy(*_columns(measured), twin)
    charged = [(record.round, record.epsilon.values()) for record in facts.history if record.epsilon]
    if charged:
        rounds = [number for number, _ in charged]
        largest, smallest = [max(values) for _, values in charged], [min(values) for _, values in charged]
        budget = facts.job.budget
        drawn["epsilon"] = plots.epsilon(rounds, largest, smallest, budget.epsilon if budget else None)
    if facts.traffic:
        drawn["traffic"] = plots.traffic({item.kind: (item.up.mean, item.down.mean) for item in facts.traffic})
    return drawn


def _columns(pairs: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [left for left, _ in pairs], [right for _, right in pairs]


def _grid(facts: Facts) -> Mapping[str, Sequence[Cell]]:
    return {client: [_cell(record, client) for record in facts.history] for client in facts.plan.clients}


def _cell(record: RoundRecord, client: str) -> Cell:
    reason = record.dropped.get(client, "")
    if client in record.recovered:
        return Cell("recovered", f"silent ({reason}), its masks were removed by the others" if reason else "recovered")
    if client in record.contributors:
        return Cell("late", f"contributed, then silent ({reason})") if reason else Cell("contributed", "contributed")
    return Cell("dropped", f"left out ({reason or 'no reply'})")


def _versions() -> Mapping[str, str]:
    """What is installed where the report is written."""
    found = {"Python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in _SOFTWARE:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
