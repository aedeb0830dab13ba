"""The commands that measure what a protection is worth: ``audit``."""

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
        yield "verdict   not refuted, and not as expected: one audit in a hundred looks like this by chance, audit again"
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
