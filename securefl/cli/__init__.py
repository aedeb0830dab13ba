"""The command line: ``securefl`` with its commands. It alone prints.

Exit codes: 0 ok, 1 a fault of ours, 2 bad input, 3 budget refused, 4 verification failed, 5 too few clients left,
130 interrupted. With ``--json`` the last line of stdout is one JSON object, also after an error; words go to stderr.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Final, NoReturn

import msgspec
import typer

from securefl.cli import auditing, keeping, language, machine, measuring, peering, running, serving, siting
from securefl.cli.options import Interrupted
from securefl.errors import BadInput, SecureFLError

_VERBOSE: Final = ("-v", "--verbose")

app = typer.Typer(
    name="securefl",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    except (Exception, KeyboardInterrupt, SystemExit) as error:
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


app.command()(running.demo)
app.command()(running.run)
app.command()(running.check)
app.command()(running.resume)
app.command()(measuring.audit)
app.command()(measuring.attack)
app.command()(language.generate)
app.command()(language.estimate)
app.command()(auditing.report)
app.command()(auditing.verify)
app.add_typer(auditing.ledger)
app.add_typer(serving.server)
app.add_typer(siting.site)
app.command()(keeping.client)
serving.server.command()(peering.relay)
siting.site.command()(peering.propose)
app.command()(machine.doctor)


def _reported(error: BaseException, *, as_json: bool, verbose: bool) -> int:
    """Tell the person what went wrong and what to do, in words and, if asked for, as JSON."""
    code, message = _explained(error, verbose=verbose)
    message = message.encode(errors="backslashreplace").decode()  # what was typed need not be UTF-8
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
        case SystemExit():
            return BadInput.exit_code, f"code that the job names ended the process (exit {error.code}): correct it"
        case OSError():
            return BadInput.exit_code, _explained_system(error)
        case MemoryError():
            return BadInput.exit_code, "there is not enough memory for this: use a smaller job, or a larger machine"
    usage = getattr(error, "format_message", None)  # a wrong argument; the type has no public name in every typer
    if callable(usage):
        return BadInput.exit_code, f"{str(usage()).rstrip('.?')}. Help: securefl --help"
    return _explained_protocol(error, verbose=verbose)


def _explained_system(error: OSError) -> str:
    """Files and folders that are not as a command needs them; what a part of ours knows more about, it says itself."""
    place = "a file" if error.filename is None else os.fsdecode(error.filename)
    why = error.strerror or error
    return f"{place} cannot be used ({why}): check what it is, who may read and write it, and that the disk has space"


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
