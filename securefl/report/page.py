"""What the report's page says: a report's values, chosen and put beside each other, for the template.

The chapters are the levels of the differential privacy pyramid, from its top (NIST SP 800-226, section 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefl.privacy.mechanism import Budget
from securefl.report import across, plots, words
from securefl.report.across import Across
from securefl.report.document import Claim, Owner, Report, Round
from securefl.report.statement import Epsilon

if TYPE_CHECKING:
    from jinja2 import Template

CHAPTERS: Final = {
    "guarantee": "Epsilon and the unit of privacy",
    "algorithms": "Algorithms, utility and bias",
    "trust": "Trust model",
    "implementation": "Mechanism implementation",
    "security": "Security and access control",
    "exposure": "Data collection exposure",
}
_CLASSES: Final = {
    "private": "",
    "simulation": "warn",
    "unfinished": "warn",
    "not private": "bad",
    "violated": "bad",
}


_PRIORS: Final = (0.01, 0.1, 0.5)


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


@dataclass(frozen=True)
class Spent:
    """One client's ledger: what the bar and the columns beside it show. ``share`` is in percent of the budget."""

    owner: Owner
    left: str
    share: float | None


def html(report: Report) -> str:
    """The page. Everything that is not a plot of ours is escaped by the template."""
    from markupsafe import Markup

    surveyed = across.of(report)
    return _template().render(
        report=report,
        chapters=CHAPTERS,
        words=words,
        status_class=_CLASSES[report.status.word],
        figures=tuple(_figures(report)),
        plots={name: Markup(svg) for name, svg in _plots(report, surveyed).items()},  # noqa: S704 - drawn by plots.py, no foreign text
        grid=_grid(report),
        across=surveyed,
        private=any(isinstance(owner.budget, Budget) for owner in report.owners),
        spent=[_spent(owner) for owner in report.owners],
        reasons=_reasons(report),
        beliefs=_beliefs(report),
        keys={signed.statement.client: signed.key for signed in report.statements},
        signers={signature.client for signature in report.signatures},
        noise=_noise(report),
        differing=_differing(report),
        federation={claim.audience: claim for claim in report.federation},
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "size": words.size,
        "number": words.number,
        "short": words.short,
        "mechanism": words.mechanism,
        "kind": words.kind,
        "metrics": words.metrics,
    }
    return environment.get_template("template.html.j2")


def _figures(report: Report) -> Iterator[Figure]:
    accuracy, twin = report.utility.accuracy, report.utility.centralised
    if isinstance(accuracy, float):
        known = f"{words.number(twin)} when trained centrally, without privacy"
        yield Figure(words.number(accuracy), "accuracy", known if isinstance(twin, float) else "on the public test set")
    yield _epsilon_figure(report)
    if not isinstance(report.audit, str):
        claimed = f"by an audit of {report.audit.rounds} rounds, which claim {words.number(report.audit.claim)}"
        yield Figure(words.number(report.audit.at_least, 2), "epsilon at least", claimed)
    view, rounds = report.server_view, report.rounds
    if not isinstance(view, str):
        readable = f"{view.updates_readable} of {view.updates_received}"
        yield Figure(readable, "updates readable by the server", "counted from the transcript")
    if rounds:
        up, down = (
            sum(sizes) / len(rounds) for sizes in zip(*((one.bytes_up, one.bytes_down) for one in rounds), strict=True)
        )
        yield Figure(words.size(up), "sent by a client a round", f"{words.size(down)} received")
    held = report.aggregation
    note = f"in {report.run.rounds_done} of {report.run.rounds_planned} rounds"
    yield Figure(f"{held.recovered} of {held.lost}", "dropouts recovered", note)


def _epsilon_figure(report: Report) -> Figure:
    if all(owner.budget == "none" for owner in report.owners):
        return Figure("none", "differential privacy", "nothing bounds what is revealed about one record")
    note = f"the most of any client, in all its runs; of {words.budget(report)}"
    return Figure(words.number(_largest([owner.epsilon_after for owner in report.owners]), 2), "epsilon spent", note)


def _largest(values: Sequence[Epsilon]) -> Epsilon:
    """The worst that is known; a word only where no figure is."""
    if "infinite" in values:
        return "infinite"
    known = [value for value in values if isinstance(value, float)]
    return max(known) if known else "unknown"


def _plots(report: Report, surveyed: Across | None) -> Mapping[str, str]:
    drawn: dict[str, str] = {}
    trained = [one for one in report.rounds if one.round <= report.run.rounds_planned]  # a survey comes after them
    measured = [(one.round, one.accuracy) for one in trained if isinstance(one.accuracy, float)]
    if measured:
        twin = report.utility.centralised
        numbers, values = zip(*measured, strict=True)
        drawn["accuracy"] = plots.accuracy(numbers, values, twin if isinstance(twin, float) else None)
    charged = [(one.round, told) for one in report.rounds if (told := _told(one))]
    if charged:
        numbers = tuple(number for number, _ in charged)
        largest, smallest = tuple(max(told) for _, told in charged), tuple(min(told) for _, told in charged)
        drawn["epsilon"] = plots.epsilon(numbers, largest, smallest, _cap(report))
    if report.traffic:
        drawn["traffic"] = plots.traffic(tuple((item.kind, item.up.mean, item.down.mean) for item in report.traffic))
    if surveyed is not None:
        counted = across.spreads(surveyed.found)
        models = tuple((across.MODELS[name], spread.counts) for name, spread in counted.items())
        drawn["across"] = plots.across(models, surveyed.found.deviation)
    return drawn


def _told(record: Round) -> list[float]:
    return [value for value in record.epsilon.values() if isinstance(value, float)]


def _cap(report: Report) -> float | None:
    """The budget's epsilon, if it is one for all."""
    caps = {owner.budget.epsilon for owner in report.owners if isinstance(owner.budget, Budget)}
    return caps.pop() if len(caps) == 1 else None


def _grid(report: Report) -> Mapping[str, Sequence[Cell]]:
    return {client: [_cell(record, client) for record in report.rounds] for client in report.run.clients}


def _cell(record: Round, client: str) -> Cell:
    reason = record.dropped.get(client, "")
    if client in record.recovered:
        return Cell("recovered", f"silent ({reason}), its masks were removed by the others" if reason else "recovered")
    if client in record.contributors:
        return Cell("late", f"contributed, then silent ({reason})") if reason else Cell("contributed", "contributed")
    return Cell("dropped", f"left out ({reason or 'no reply'})")


def _spent(owner: Owner) -> Spent:
    if not (isinstance(owner.budget, Budget) and isinstance(owner.epsilon_after, float)):
        return Spent(owner, "unknown" if owner.budget != "none" else "none", None)
    left, share = max(owner.budget.epsilon - owner.epsilon_after, 0.0), owner.epsilon_after / owner.budget.epsilon
    return Spent(owner, words.number(left), min(100 * share, 100.0))


def _reasons(report: Report) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """Why claims hold or there are none, by sentence: of the audiences to which it applies, the names."""
    claims: Sequence[Claim] = [claim for owner in report.owners for claim in owner.claims] + list(report.federation)
    named: dict[tuple[str, ...], list[str]] = {}
    for audience, name in words.AUDIENCES.items():
        why = tuple(dict.fromkeys(claim.why for claim in claims if claim.audience == audience))
        named.setdefault(why, []).append(name)
    return {tuple(names): why for why, names in named.items()}


def _beliefs(report: Report) -> Mapping[float, float]:
    """Of some beliefs before, the most that they can become; none where no claim has a figure."""
    bounds = [value for owner in report.owners for claim in owner.claims if isinstance(value := claim.epsilon, float)]
    return {prior: words.belief(prior, max(bounds)) for prior in _PRIORS} if bounds else {}


def _noise(report: Report) -> str:
    """Where noise and samples came from, by the clients' word."""
    if seeded := [owner.client for owner in report.owners if owner.simulated is True]:
        return f"from a seed at {', '.join(seeded)}: a simulation"
    if silent := [owner.client for owner in report.owners if owner.simulated == "unknown"]:
        return f"unknown for {', '.join(silent)}"
    return "from the operating system's cryptographic generator, by the word of every client"


def _differing(report: Report) -> Mapping[str, Sequence[str]]:
    """Versions at clients that are not those of where the report was assembled."""
    here = report.software.versions.items()
    there = {owner.client: owner.software for owner in report.owners if not isinstance(owner.software, str)}
    found = {
        client: [f"{name} {at}" for name, at in sorted(set(used.items()) - set(here))] for client, used in there.items()
    }
    return {client: listed for client, listed in found.items() if listed}
