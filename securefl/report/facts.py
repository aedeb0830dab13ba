"""What a run folder says, as values. Reads only; a run that was interrupted is read as far as it got."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from securefl import job, settings
from securefl.audit import result as audits
from securefl.audit.result import Audit
from securefl.errors import BadInput, NotARun
from securefl.plan import Plan
from securefl.records import RoundRecord, Summary
from securefl.report import canonical
from securefl.report.document import Flow, Traffic
from securefl.report.statement import SignedStatement
from securefl.run_folder import AUDIT, HISTORY, JOB, PLAN, STATEMENTS, SUMMARY, TRANSCRIPT, lines
from securefl.settings import EMBEDDED, Engine

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True):
    """One line of the transcript: that a message travelled, not what was in it."""

    kind: str
    direction: Literal["up", "down"]
    client: str
    bytes: int


@dataclass(frozen=True)
class Facts:
    """One run. ``summary`` is None while the run is not finished; ``statements`` are those that clients have sent;
    ``audit`` is one of the same mechanism, where there is one; ``engine``: where the clients were.
    """

    job: job.Job
    plan: Plan
    history: tuple[RoundRecord, ...]
    traffic: tuple[Traffic, ...]
    summary: Summary | None
    statements: tuple[SignedStatement, ...]
    audit: Audit | None = None
    engine: Engine = EMBEDDED


def read(folder: Path) -> Facts:
    """The facts in a run folder. Raises ``NotARun`` for a folder that is not a run, or is damaged."""
    if not (folder / JOB).is_file():
        raise NotARun(f"{folder} is not a run: it has no {JOB}. Name a folder that 'securefl run' or 'demo' made")
    return Facts(
        job=_job(folder / JOB),
        plan=_decoded(folder / PLAN, Plan),
        history=tuple(lines(folder / HISTORY, RoundRecord)),
        traffic=traffic(folder),
        summary=_decoded(folder / SUMMARY, Summary) if (folder / SUMMARY).exists() else None,
        statements=_statements(folder / STATEMENTS),
        audit=audits.read(folder / AUDIT) if (folder / AUDIT).exists() else None,
        engine=settings.read(folder),
    )


def traffic(folder: Path) -> tuple[Traffic, ...]:
    """All messages in a run's transcript, by kind. Raises ``NotARun`` for one that is damaged."""
    return _counted(lines(folder / TRANSCRIPT, Message))


def _job(path: Path) -> job.Job:
    try:
        return job.load(path)
    except BadInput as error:
        raise NotARun(f"{path} is damaged: {error}") from error


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise NotARun(f"{path.parent} is not a whole run: {path.name} is missing") from error
    except OSError as error:
        raise NotARun(f"{path} cannot be read ({error.strerror}): check what it is and who may read it") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotARun(f"{path} is damaged: {error}") from error


def _statements(path: Path) -> tuple[SignedStatement, ...]:
    try:
        data = path.read_bytes() if path.exists() else b"[]"
    except OSError as error:
        raise NotARun(f"{path} cannot be read: {error}") from error
    return canonical.read_many(data, SignedStatement, str(path))


def _counted(messages: Iterable[Message]) -> tuple[Traffic, ...]:
    """Messages by kind, in the order in which each kind first travelled."""
    flows: dict[str, dict[str, Flow]] = {}
    for message in messages:
        directions = flows.setdefault(message.kind, {"up": Flow(0, 0), "down": Flow(0, 0)})
        before = directions[message.direction]
        directions[message.direction] = Flow(before.count + 1, before.bytes + message.bytes)
    return tuple(Traffic(kind, **directions) for kind, directions in flows.items())
