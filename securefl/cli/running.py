"""The commands that train: ``demo``, ``run``, ``check`` and ``resume``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from securefl.cli import engines
from securefl.cli.options import AsJson, Folder, Interrupted, JobFile, Metrics, Out, Peers, console_for
from securefl.errors import BudgetExceeded, RoundFailed, VerificationFailed

if TYPE_CHECKING:
    from rich.console import Console

    from securefl.job import Job
    from securefl.progress import Watcher
    from securefl.run import Run
    from securefl.screen import Screen
    from securefl.settings import Engine

_DEMO_SILENCE: Final = (2, 3)  # exchange and round in which a client of the demo goes silent
_DEMO_PEERS: Final = 5  # clients of which one can be missing, and another be in league with whoever acts
_ACTING: Final = "acting@"


def demo(
    pilot: Annotated[
        str, typer.Option(metavar="NAME", help="breast-cancer, heart, credit, students, digits or another pilot.")
    ] = "breast-cancer",
    protection: Annotated[
        str, typer.Option(metavar="KIND", help="What hides the updates: plain, secagg, ckks-unmasked or ckks.")
    ] = "secagg",
    rounds: Annotated[int | None, typer.Option(metavar="N", help="Rounds of training. Default: the pilot's.")] = None,
    no_dp: Annotated[bool, typer.Option("--no-dp", help="Train without differential privacy.")] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLIENT@EXCHANGE[:ROUND]",
            help="Silence a client from an exchange (0 to 5) on, in one round; may be repeated. 'none': nobody. "
            "Default: the third client, as its masked update is due, in round 3. With --peers also acting@...: "
            "whoever acts as the server dies; that is the default then.",
        ),
    ] = None,
    peers: Peers = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Watch hospitals train a diagnosis model together, one of them dropping out.

    Example:  [bold]securefl demo --protection ckks --drop hospital-2@3:4[/]
    """
    from securefl import job

    silences = drop if drop is not None else [_demo_silence(pilot, rounds, peers)]
    drops = [silence for silence in silences if silence != "none"]
    dying = [silence for silence in drops if peers and silence.startswith(_ACTING)]
    others = [silence for silence in drops if silence not in dying]
    made = job.from_pilot(pilot, protection, rounds, private=not no_dp, drop=others)
    if not peers:
        _start(made, out, as_json)
        return
    from securefl.peers.run import deaths, demonstration
    from securefl.settings import InTurn

    _start(demonstration(made), out, as_json, engine=InTurn(deaths(made, dying)))


def run(
    job_file: JobFile,
    audit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What 'securefl audit' found of this job, for the report.")
    ] = None,
    engine: engines.Kind = "local",
    server: engines.ServerFolder = None,
    deadline: engines.Deadline = 60.0,
    training: engines.TrainingDeadline = 900.0,
    patience: engines.Patience = None,
    actors: engines.Actors = None,
    actor_cpus: engines.ActorCpus = 1.0,
    actor_gpus: engines.ActorGpus = 0.0,
    ray: engines.Address = None,
    peers: Peers = False,
    metrics: Metrics = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Run the job in a TOML file.

    Functions that it names as package.module:function must be installed, or lie in the folder you are in.

    Example:  [bold]securefl run examples/heart.toml --out runs/heart-1[/]

    At sites:  [bold]securefl run job.toml --engine nvflare --server coordinator[/]
    """
    from securefl import job
    from securefl.settings import Resources

    resources = Resources(actors, actor_cpus, actor_gpus)
    chosen = engines.chosen(engine, server, deadline, training, patience, resources, ray, peers)
    _start(job.load(job_file), out, as_json, audit, chosen, metrics)


def check(job_file: JobFile, as_json: AsJson = False) -> None:
    """Say what the job in a TOML file would do, without loading records or training: encoding, precision, security.

    Example:  [bold]securefl check examples/heart.toml[/]
    """
    from securefl import job
    from securefl.preview import lines, preview

    found = preview(job.load(job_file))
    console = console_for(as_json)
    for label, text in lines(found):
        console.print(f"{label:10} {text}", soft_wrap=True, markup=False, highlight=False)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())


def resume(folder: Folder, metrics: Metrics = None, as_json: AsJson = False) -> None:
    """Continue a run that was stopped, after its last complete round.

    Example:  [bold]securefl resume runs/heart-1[/]
    """
    console = console_for(as_json)
    with _watched(console, metrics) as (screen, watcher):
        with console.status("reading the run", spinner="line"):
            from securefl import settings

            opened = _kind(settings.read(folder)).open(folder, watcher)
        _finish(opened, console, screen, as_json)


def _demo_silence(pilot: str, rounds: int | None, peers: bool) -> str:
    """So that one dropout is recovered in view: with peers, that of whoever acts, where enough others are left."""
    from securefl.job import known_pilot

    exchange, number = _DEMO_SILENCE
    clients = known_pilot(pilot).clients
    if peers and len(clients) < _DEMO_PEERS:
        return "none"
    return f"{_ACTING if peers else clients[2] + '@'}{exchange}:{min(number, rounds or number)}"


def _start(
    job: Job,
    out: Path | None,
    as_json: bool,
    audit: Path | None = None,
    engine: Engine | None = None,
    metrics: str | None = None,
) -> None:
    from securefl.job import slug

    console = console_for(as_json)
    folder = out or Path("runs") / f"{slug(job.name)}-{job.protection.kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    with _watched(console, metrics) as (screen, watcher):
        with console.status("preparing data, model and clients", spinner="line"):
            from securefl.settings import EMBEDDED

            created = _kind(engine).create(job, folder, audit, engine or EMBEDDED, watcher)
        _finish(created, console, screen, as_json)


def _kind(engine: Engine | None) -> type[Run]:
    from securefl.peers.run import PeersRun
    from securefl.run import Run
    from securefl.settings import InTurn

    return PeersRun if isinstance(engine, InTurn) else Run


@contextmanager
def _watched(console: Console, metrics: str | None) -> Iterator[tuple[Screen, Watcher]]:
    """Who hears what goes on in a run: the screen alone or, where metrics are served, all together."""
    from securefl.progress import Watchers
    from securefl.screen import Screen

    screen = Screen(console)
    if metrics is None:
        yield screen, screen
        return
    from securefl.metrics import served

    with served(metrics) as figures:
        console.print(f"metrics: {figures.address}", soft_wrap=True, markup=False, highlight=False)
        yield screen, Watchers(screen, figures)


def _finish(run: Run, console: Console, screen: Screen, as_json: bool) -> None:
    """Everything that remains of a run, in view."""
    from securefl import display
    from securefl.precision import facts
    from securefl.protection import parameters

    job = run.job
    display.opening(console, job, run.visibility, facts(parameters(run.plan)))
    with console.status("reading the ledgers", spinner="line"):
        carried = run.carried_over()
    display.carried_over(console, job, carried)
    try:
        display.follow(console, job, run.history, run.rounds(), screen)
        with console.status("last evaluation and report", spinner="line"):
            summary = run.finish()
    except KeyboardInterrupt as error:
        raise _interrupted(run) from error
    except (BudgetExceeded, RoundFailed):
        if run.history:
            display.say(console, f"the {len(run.history)} rounds that are complete: securefl report {run.folder}")
        raise
    finally:
        run.close()
    display.closing(console, job, summary)
    if as_json:
        typer.echo(msgspec.json.encode(summary).decode())
    _refuse_violated(run.folder)


def _refuse_violated(folder: Path) -> None:
    """A run ends with an error where its report says that its claims cannot hold."""
    from securefl import report

    status = report.read(folder).status
    if status.word == "violated":
        raise VerificationFailed(f"the report says violated: {status.reasons[0]}. Rely on none of its epsilons")


def _interrupted(run: Run) -> Interrupted:
    done = len(run.history)
    return Interrupted(
        f"stopped after round {done} of {run.job.rounds}; what was charged stays charged. "
        f"Continue with: securefl resume {run.folder}"
    )
