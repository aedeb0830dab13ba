"""What a person sees while a run goes on: who can see what, one row a round, and what it came to.

On a terminal the rows are a live table; elsewhere they are plain lines without control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from securefl import measures
from securefl.job import Job
from securefl.precision import Facts
from securefl.records import RoundRecord, Summary
from securefl.screen import Screen

if TYPE_CHECKING:
    from securefl.parties import Carried

_CHROME: Final = 8  # lines of a terminal that the table's frame, the spinner and the opening need


def opening(console: Console, job: Job, visibility: str, encoding: Facts) -> None:
    """The first lines: who can see what, how updates are encoded, what the job is, what to know before it starts."""
    say(console, f"[bold]Who can see what[/] under {escape(visibility)}")
    if job.masked:
        say(console, _assumption(job))
    say(console, f"Encoding: {encoding}")
    privacy = "no differential privacy"
    if job.budget is not None:
        whose = {"record": "for each client's records", "patient": "for each client's patients"}
        hidden = whose.get(job.privacy.unit, "for each client as a whole")
        privacy = f"at most epsilon {job.budget.epsilon:g} at delta {job.budget.delta:g} {hidden}"
    say(console, f"{escape(job.name)}: {len(job.clients)} clients, {job.rounds} rounds, {privacy}")
    for warning in job.warnings:
        say(console, f"[yellow]note:[/] {escape(warning)}")


def carried_over(console: Console, job: Job, carried: Mapping[str, Carried]) -> None:
    """One line for each client whose data was charged in earlier runs."""
    for name, found in carried.items():
        before = f"epsilon {found.epsilon:.2f} by {found.charges} charges of earlier runs"
        cap = "" if job.budget is None else f" of {job.budget.epsilon:g}"
        say(console, f"carried over: {escape(name)} {before}{cap}; {found.rounds_left} more rounds like these fit")


def _assumption(job: Job) -> str:
    """What the masks assume, with the job's own n_C."""
    colluders = job.protection.colluders
    alone = "against a server on its own (n_C = 0; protection.colluders makes it withstand clients that work with it)"
    helped = f"against a server and up to {colluders} of the clients together (n_C = {colluders})"
    return f"Single updates stay hidden {helped if colluders else alone}; a sum is of at least {job.minimum} clients."


def follow(
    console: Console,
    job: Job,
    done: Sequence[RoundRecord],
    coming: Iterable[RoundRecord],
    screen: Screen | None = None,
) -> None:
    """Show rounds as they are completed; those done before a resume come first. ``screen``: who hears what goes on."""
    if console.is_terminal:
        _live(console, job, done, coming, screen or Screen(console))
        return
    for record in done:
        console.print(line(job, record), soft_wrap=True, markup=False, highlight=False)
    for record in coming:
        console.print(line(job, record), soft_wrap=True, markup=False, highlight=False)


def line(job: Job, record: RoundRecord) -> str:
    """One round in one line, for logs."""
    parts = [
        f"{_which(job, record)}: {len(record.contributors)} of {len(job.clients)} contributed",
        *(f"{client} dropped ({reason}){_outcome(record, client)}" for client, reason in record.dropped.items()),
        *(["VOID: the sum could not be decrypted, the model is unchanged"] if record.void else []),
        *([] if record.accuracy is None else [f"accuracy {record.accuracy:.3f}"]),
        f"epsilon {_epsilon(job, record)}" if job.budget else "no DP",
        f"{_sent(record)} kB up a client",
        f"{record.seconds:.2f} s",
    ]
    return ", ".join(parts)


def closing(console: Console, job: Job, summary: Summary) -> None:
    """The last lines: what it came to, what it cost, what the server saw, what no epsilon covers, and where it lies."""
    entries = list(_results(job, summary))
    if not console.is_terminal:
        for label, text in entries:
            say(console, f"{label}: {escape(text)}")
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in entries:
        grid.add_row(label, escape(text))
    console.print(grid)


def say(console: Console, markup: str) -> None:
    """A paragraph: wrapped at the terminal's width, one line elsewhere so that it can be searched."""
    console.print(markup, soft_wrap=not console.is_terminal, highlight=False)


def _live(
    console: Console, job: Job, done: Sequence[RoundRecord], coming: Iterable[RoundRecord], screen: Screen
) -> None:
    """A table that grows at its end, and below it what is being done now.

    The whole table is printed at last, also when it is interrupted.
    """
    records = list(done)
    room = max(3, console.height - _CHROME)
    spinner = Spinner("line")

    def working() -> Group:
        shown = records[-room:]
        spinner.update(text=Text(screen.doing(job, shown[-1].round + 1 if shown else 1)))
        return Group(_table(job, shown), spinner)

    try:
        with Live(get_renderable=working, console=console, transient=True, refresh_per_second=8) as live:
            for record in coming:
                records.append(record)
                live.refresh()
    finally:
        if records:
            console.print(_table(job, records))


def _table(job: Job, records: Sequence[RoundRecord]) -> Table:
    table = Table(header_style="bold")
    table.add_column("round", justify="right")
    table.add_column("in", justify="right")
    table.add_column("dropped", overflow="fold")
    table.add_column("accuracy", justify="right")
    table.add_column("epsilon" if job.budget else "privacy", justify="right")
    table.add_column("kB up", justify="right")
    table.add_column("s", justify="right")
    for record in records:
        table.add_row(*_row(job, record), style="yellow" if record.dropped or record.void else "")
    return table


def _row(job: Job, record: RoundRecord) -> Iterator[str]:
    yield f"{record.round}"
    yield f"{len(record.contributors)}/{len(job.clients)}"
    lost = ["VOID: sum not decrypted, model unchanged"] if record.void else []
    lost += [f"{client}{_outcome(record, client)}" for client in record.dropped]
    yield escape(", ".join(lost) or "-")
    yield "-" if record.accuracy is None else f"{record.accuracy:.3f}"
    yield _epsilon(job, record)
    yield _sent(record)
    yield f"{record.seconds:.2f}"


def _outcome(record: RoundRecord, client: str) -> str:
    return " -> recovered" if client in record.recovered else ""


def _which(job: Job, record: RoundRecord) -> str:
    return f"round {record.round} of {job.rounds}" if record.round <= job.rounds else "survey"


def _epsilon(job: Job, record: RoundRecord) -> str:
    """The most that any client has spent, of what each allows, where that is known before they sign it at the end."""
    if job.budget is None:
        return "no DP"
    if not record.epsilon:
        return "at the sites"
    return f"{max(record.epsilon.values()):.2f} of {job.budget.epsilon:g}"


def _sent(record: RoundRecord) -> str:
    """Kilobytes that a client sent in the round, on average."""
    sizes = record.upload_bytes.values()
    return f"{sum(sizes) / max(1, len(sizes)) / 1000:.2f}"


def _results(job: Job, summary: Summary) -> Iterator[tuple[str, str]]:
    """Label and text, one after the other."""
    if summary.accuracy is not None:
        twin = summary.accuracy_centralised
        beside = "" if twin is None else f"; trained centrally on all records, without privacy: {twin:.3f}"
        yield (
            "accuracy",
            f"{summary.accuracy:.3f} on the public test set, by the model after round {summary.rounds}{beside}",
        )
    if summary.metrics:
        yield "metrics", f"on the same test set: {measures.told(summary.metrics, summary.metrics_unit)}"
    if summary.survey is not None:
        yield "survey", str(summary.survey)
    if job.budget is None:
        yield "epsilon", "none: no differential privacy, nothing bounds what the model reveals about one record"
    else:
        spent = ", ".join(f"{client} {value:.2f}" for client, value in summary.epsilon_by_client.items())
        allowed = f"each allows {job.budget.epsilon:g} at delta {job.budget.delta:g}"
        if summary.budget_epsilon is None:
            allowed = "what each allows its owner decides, and signed in the report"
        yield "epsilon", f"{spent or 'stated by nobody'}; {allowed}"
    view = summary.server_view
    got = f"got {view.messages} messages ({view.bytes / 1000:.1f} kB), {view.updates_received} updates among them"
    read = f"{view.updates_readable} updates, {view.sums_readable} sums, {view.models_readable} models"
    yield "server", f"{got}; it could read {read}"
    yield "dropouts", f"{summary.dropouts_recovered} recovered"
    for hazard in summary.hazards:
        yield "hazard", str(hazard)
    yield "model", summary.model
    yield "report", summary.report
    yield "verify", f"securefl verify {summary.run}"
