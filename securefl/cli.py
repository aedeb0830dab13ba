"""The command line: ``securefl demo``, ``run``, ``check``, ``resume``, ``report`` and ``doctor``. It alone prints.

Exit codes: 0 ok, 1 a fault of ours, 2 bad input, 3 budget refused, 4 verification failed, 5 too few clients left,
130 interrupted. With ``--json`` the last line of stdout is one JSON object, also after an error; words go to stderr.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import msgspec
import typer

from securefl.errors import BadInput, BudgetExceeded, RoundFailed, SecureFLError

if TYPE_CHECKING:
    from rich.console import Console

    from securefl.job import Job
    from securefl.run import Run

_VERBOSE: Final = ("-v", "--verbose")
_DEMO_SILENCE: Final = (2, 3)  # exchange and round in which a client of the demo goes silent

app = typer.Typer(
    name="securefl",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="A new folder for the run. Default: runs/NAME-PROTECTION-TIME."),
]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, as 'run' and 'demo' print it.")]


class Interrupted(SecureFLError):
    """The person stopped the run; it is charged for what was started, and can go on."""

    exit_code = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. No traceback reaches the user, unless ``-v`` asks for it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verbose = any(word in _VERBOSE for word in given)
    try:
        words = [word for word in given if word not in _VERBOSE] or ["--help"]
        code = app(args=words, prog_name="securefl", standalone_mode=False)
        sys.stdout.flush()
        if code == Interrupted.exit_code:  # typer's own way to say that Ctrl-C came
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except BrokenPipeError:  # the reader of our output has gone, as in `securefl doctor | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if verbose:
            traceback.print_exc()
        return _reported(error, as_json="--json" in given, verbose=verbose)


@app.callback(invoke_without_command=True)
def securefl(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option(*_VERBOSE, help="Show tracebacks; works after a command, too.")] = False,
) -> None:
    """Federated learning in which the privacy claims are true and can be checked.

    Try it now, no files needed:  [bold]securefl demo[/]

    Your own job:  [bold]securefl run job.toml[/]

    Exit codes: 0 ok, 2 bad input, 3 budget refused, 4 verification failed, 5 too few clients left, 130 interrupted.
    """
    if version:
        from securefl.doctor import installed

        typer.echo(f"securefl {installed('securefl') or '(not installed)'}")
        raise typer.Exit


@app.command()
def demo(
    pilot: Annotated[str, typer.Option(metavar="NAME", help="breast-cancer or heart.")] = "breast-cancer",
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
            "Default: the third client, as its masked update is due, in round 3.",
        ),
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Watch hospitals train a diagnosis model together, one of them dropping out.

    Example:  [bold]securefl demo --protection ckks --drop hospital-2@3:4[/]
    """
    from securefl import job

    silences = drop if drop is not None else [_demo_silence(pilot, rounds)]
    drops = [silence for silence in silences if silence != "none"]
    _start(job.from_pilot(pilot, protection, rounds, private=not no_dp, drop=drops), out, as_json)


@app.command()
def run(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.toml", help="What to train, on what, how protected.")],
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Run the job in a TOML file.

    Functions that it names as package.module:function must be installed, or lie in the folder you are in.

    Example:  [bold]securefl run examples/heart.toml --out runs/heart-1[/]
    """
    from securefl import job

    _start(job.load(job_file), out, as_json)


@app.command()
def check(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job to look at.")], as_json: AsJson = False
) -> None:
    """Say what the job in a TOML file would do, without loading records or training: encoding, precision, security.

    Example:  [bold]securefl check examples/heart.toml[/]
    """
    from securefl import job
    from securefl.preview import lines, preview

    found = preview(job.load(job_file))
    console = _console(as_json)
    for label, text in lines(found):
        console.print(f"{label:10} {text}", soft_wrap=True, markup=False, highlight=False)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())


@app.command()
def resume(folder: Folder, as_json: AsJson = False) -> None:
    """Continue a run that was stopped, after its last complete round.

    Example:  [bold]securefl resume runs/heart-1[/]
    """
    from securefl.run import Run

    console = _console(as_json)
    with console.status("reading the run", spinner="line"):
        opened = Run.open(folder)
    _finish(opened, console, as_json)


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Write report.html of a run again, from its folder alone; also of an unfinished one.

    Example:  [bold]securefl report runs/heart-1[/]
    """
    from securefl.report import render

    path = render(folder)
    typer.echo(msgspec.json.encode({"report": str(path)}).decode() if as_json else str(path))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this machine: packages, processor, data sets, cryptographic parameters.

    Example:  [bold]securefl doctor --json[/]
    """
    from securefl.doctor import examine, lines

    health = examine()
    console = _console(as_json)
    for label, text in lines(health):
        console.print(f"{label:14} {text}", soft_wrap=True, markup=False, highlight=False)
    for problem in health.problems:
        console.print(f"{'PROBLEM':14} {problem}", soft_wrap=True, markup=False, highlight=False, style="bold red")
    if as_json:
        typer.echo(msgspec.json.encode(health).decode())
    if any(version is None for name, version in health.versions.items() if name != "securefl"):
        raise typer.Exit(2)


def _demo_silence(pilot: str, rounds: int | None) -> str:
    """So that one dropout is recovered in view."""
    from securefl.job import known_pilot

    exchange, number = _DEMO_SILENCE
    return f"{known_pilot(pilot).clients[2]}@{exchange}:{min(number, rounds or number)}"


def _start(job: Job, out: Path | None, as_json: bool) -> None:
    from securefl.job import slug

    console = _console(as_json)
    folder = out or Path("runs") / f"{slug(job.name)}-{job.protection.kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    with console.status("loading data and model", spinner="line"):
        from securefl.run import Run

        created = Run.create(job, folder)
    _finish(created, console, as_json)


def _finish(run: Run, console: Console, as_json: bool) -> None:
    """Everything that remains of a run, in view."""
    from securefl import display
    from securefl.precision import facts
    from securefl.protection import KINDS, parameters

    job = run.job
    display.opening(console, job, KINDS[job.protection.kind].visibility, facts(parameters(run.plan)))
    try:
        display.follow(console, job, run.history, run.rounds())
        with console.status("last evaluation and report", spinner="line"):
            summary = run.finish()
    except KeyboardInterrupt as error:
        raise _interrupted(run) from error
    except (BudgetExceeded, RoundFailed):
        if run.history:
            display.say(console, f"the {len(run.history)} rounds that are complete: securefl report {run.folder}")
        raise
    display.closing(console, job, summary)
    if as_json:
        typer.echo(msgspec.json.encode(summary).decode())


def _interrupted(run: Run) -> Interrupted:
    done = len(run.history)
    return Interrupted(
        f"stopped after round {done} of {run.job.rounds}; what was charged stays charged. "
        f"Continue with: securefl resume {run.folder}"
    )


def _console(as_json: bool) -> Console:
    """Words go to stdout, or to stderr where stdout belongs to the JSON object."""
    from rich.console import Console

    return Console(stderr=as_json, highlight=False)


def _reported(error: BaseException, *, as_json: bool, verbose: bool) -> int:
    """Tell the person what went wrong and what to do, in words and, if asked for, as JSON."""
    code, message = _explained(error, verbose=verbose)
    if message:
        typer.echo(f"securefl: {message}", err=True)
    if as_json:
        failure = {"error": type(error).__name__, "message": message, "exit_code": code}
        typer.echo(msgspec.json.encode(failure).decode())
    return code


def _explained(error: BaseException, *, verbose: bool) -> tuple[int, str]:
    """Exit code and message for whatever ended a command."""
    match error:
        case SecureFLError():
            return error.exit_code, str(error)
        case typer.Abort() | KeyboardInterrupt():
            return Interrupted.exit_code, "stopped before the first round; nothing was charged"
    usage = getattr(error, "format_message", None)  # a wrong argument; the type has no public name in every typer
    if callable(usage):
        return BadInput.exit_code, f"{str(usage()).rstrip('.?')}. Help: securefl --help"
    return _explained_protocol(error, verbose=verbose)


def _explained_protocol(error: BaseException, *, verbose: bool) -> tuple[int, str]:
    from protocols.errors import ConfigurationError, ProtocolError, RoundAborted

    match error:
        case RoundAborted():
            return 5, str(error)
        case ProtocolError():
            return 4, f"{type(error).__name__}: {error}"
        case ConfigurationError():
            return 2, str(error)
    hint = "" if verbose else "; run again with -v for the traceback"
    return 1, f"unexpected {type(error).__name__}: {error}{hint}"


def _entry() -> NoReturn:
    raise SystemExit(main())


if __name__ == "__main__":
    _entry()
