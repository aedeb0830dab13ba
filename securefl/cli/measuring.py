"""The commands that measure what a protection is worth: ``audit`` and ``attack``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from securefl.cli.options import AsJson, JobFile, console_for
from securefl.errors import VerificationFailed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from securefl.attacks.cell import Cell, Effort
    from securefl.attacks.table import Table
    from securefl.audit.observation import Sight
    from securefl.audit.result import Audit
    from securefl.job import Job


def audit(
    job_file: JobFile,
    client: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose noise is audited. Default: the first client's.")
    ] = None,
    canaries: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Default: 1000 records, or 100 clients.")
    ] = None,
    headline: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="The bound that decides, named before the run. Default: the tightest."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the result is written. Default: runs/audit-NAME-TIME.json."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a lower bound on the epsilon that a job claims: canaries go in by fair coins, and the aggregate is read.

    Runs the job's own code and protocol, in one process; its models must not be published. Nothing is charged.
    Exit code 4 if the claim is refuted at 99.9 %.

    Example:  [bold]securefl audit examples/heart.toml --canaries 500[/]
    """
    from securefl import job as jobs
    from securefl.job import slug

    job, console = jobs.load(job_file), console_for(as_json)
    path = out or Path("runs") / f"audit-{slug(job.name)}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    found = _audited(console, job, client, canaries, headline)
    for line in lines(found):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    _written(path, found)
    console.print(f"written   {path}; put it into a report with: securefl run JOB.toml --audit {path}", markup=False)
    if as_json:
        typer.echo(msgspec.json.encode({"audit": str(path), "claim": found.asked.claim, **_found(found)}).decode())
    if found.found.violated:
        raise (
            typer.Exit(VerificationFailed.exit_code)
            if as_json
            else VerificationFailed(
                "the claim does not hold for what ran here: publish nothing that was trained like this"
            )
        )


def attack(
    quick: Annotated[
        bool, typer.Option("--quick", help="A few seconds for each attack; in all within 3 minutes.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="ATTACK", help="One attack, such as inversion; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where attacks.html and attacks.json go.")] = Path(
        "runs/attacks"
    ),
    as_json: AsJson = False,
) -> None:
    """Run attacks on the real protocol, under every protection, and write the table of what succeeds.

    Needs no data: it uses scikit-learn's digits. With SECUREFL_DATA, the full run uses larger data sets.

    Example:  [bold]securefl attack --quick --only inversion --only imprint[/]
    """
    console = console_for(as_json)
    found = _attacked(console, "quick" if quick else "full", only or [])
    console.print(_grid(found))
    page, data = _kept(out, found)
    console.print(f"page      {page}\ndata      {data}", soft_wrap=True, markup=False, highlight=False)
    if as_json:
        typer.echo(msgspec.json.encode({"page": str(page), "table": str(data), "seconds": found.seconds}).decode())


def _attacked(console: Console, effort: Effort, only: list[str]) -> Table:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with console.status("loading", spinner="line"):
        from securefl.attacks.scene import one_thread
        from securefl.attacks.table import names, table

    with Progress(
        SpinnerColumn("line"), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task(f"{len(only) or len(names())} attacks")
        with one_thread():
            return table(effort, only, lambda cell: bar.update(task, description=f"{cell.attack}: {cell.setting} done"))


def _grid(found: Table) -> RichTable:
    """Verdicts by attack and setting."""
    from rich.table import Table as RichTable

    colours = {"red": "red", "amber": "yellow", "green": "green", "none": "dim"}
    drawn = RichTable(title="Attacks that succeed (red), in part (amber), or fail (green)", title_justify="left")
    drawn.add_column("attack", min_width=22)
    for column in found.settings.values():
        drawn.add_column(column)
    for row in found.rows:
        for name, cells in row.lines.items():
            shown = [_verdict(cells[setting], colours) if setting in cells else "" for setting in found.settings]
            drawn.add_row(_said(name, list(cells.values())), *shown)
    return drawn


def _said(name: str, cells: list[Cell]) -> str:
    """The attack, and what its figures are."""
    figures = [cell.figures[0].name for cell in cells if cell.figures]
    return f"{name}\n[dim]{figures[0]}[/]" if figures else name


def _verdict(cell: Cell, colours: dict[str, str]) -> str:
    amount = f" {cell.figures[0].amount}" if cell.figures and cell.verdict != "none" else ""
    return f"[{colours[cell.verdict]}]{cell.verdict}{amount}[/]"


def _kept(folder: Path, found: Table) -> tuple[Path, Path]:
    from securefl.attacks import page
    from securefl.attacks.markdown import markdown
    from securefl.run_folder import private_folder, write

    private_folder(folder)
    write(folder / "attacks.html", page.html(found).encode())
    write(folder / "attacks.json", msgspec.json.encode(found))
    write(folder / "attacks.md", markdown(found).encode())
    return folder / "attacks.html", folder / "attacks.json"


def lines(found: Audit) -> Iterator[str]:
    """What a person reads of an audit: the claim, what was found, and what that means."""
    claim, delta = found.asked.claim, found.asked.delta
    yield f"claim     epsilon {claim:.3f} at delta {delta:g}, by the ledger of {found.client}"
    for bound in found.found.bounds:
        mark = "headline" if bound.method == found.asked.headline else bound.kind
        yield f"{mark:9} {bound}"
    for check in found.found.checks:
        yield f"{'FAILED' if check.failed else 'test':9} {check}"
    for line in found.found.refuted:
        yield f"REFUTED   {line}"
    if found.found.violated:
        return
    if found.found.headline.refutes(claim) or any(check.failed for check in found.found.checks):
        yield "verdict   not refuted, and not as expected: one audit in fifty is like this by chance, audit again"
        return
    share = f" ({found.found.headline.epsilon / claim:.0%} of the claim)" if claim else ""
    yield f"verdict   nothing contradicts the claim; epsilon is between the headline{share} and the claim"


def _audited(console: Console, job: Job, client: str | None, canaries: int | None, headline: str | None) -> Audit:
    from rich.progress import Progress, TimeRemainingColumn

    with console.status("loading data and model", spinner="line"):
        from securefl.audit.canary_audit import audit as carried_out
    with Progress(*Progress.get_default_columns()[:3], TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(f"auditing {job.rounds} rounds", total=job.rounds)

        def watch(number: int, sight: Sight) -> None:
            bar.update(task, completed=number)

        return carried_out(job, client=client, count=canaries, headline=headline, watch=watch)


def _written(path: Path, found: Audit) -> None:
    from securefl.audit.result import encoded
    from securefl.run_folder import private_folder, write

    private_folder(path.absolute().parent)
    write(path, encoded(found))


def _found(found: Audit) -> dict[str, object]:
    from securefl.report.audited import epsilon

    return {
        "headline": found.found.headline.method,
        "epsilon_at_least": epsilon(found.found.headline.epsilon),
        "confidence": found.asked.confidence,
        "bounds": {bound.method: epsilon(bound.epsilon) for bound in found.found.bounds},
        "checks": {check.name: check.p for check in found.found.checks},
        "refuted": list(found.found.refuted),
    }
