"""What a run folder says, as values. Reads only; a run that was interrupted is read as far as it got."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from securefl import job
from securefl.errors import BadInput, NotARun
from securefl.plan import Plan
from securefl.records import RoundRecord, Summary

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True):
    """One line of the transcript: that a message travelled, not what was in it."""

    kind: str
    direction: Literal["up", "down"]
    client: str
    bytes: int


@dataclass(frozen=True)
class Flow:
    """Messages in one direction: how many, and their bytes in all."""

    count: int = 0
    bytes: int = 0

    @property
    def mean(self) -> float:
        """Bytes a message."""
        return self.bytes / self.count if self.count else 0.0

    def __add__(self, message: Message) -> Flow:
        return Flow(self.count + 1, self.bytes + message.bytes)


@dataclass(frozen=True)
class Traffic:
    """All messages of one kind: from clients to the server, and from the server to clients."""

    kind: str
    up: Flow
    down: Flow


@dataclass(frozen=True)
class Facts:
    """One run. ``summary`` is None while the run is not finished; ``digest`` is the plan's SHA-256 in hex."""

    job: job.Job
    plan: Plan
    digest: str
    history: tuple[RoundRecord, ...]
    traffic: tuple[Traffic, ...]
    summary: Summary | None


def read(folder: Path) -> Facts:
    """The facts in a run folder. Raises ``NotARun`` for a folder that is not a run, or is damaged."""
    if not (folder / "job.toml").is_file():
        raise NotARun(f"{folder} is not a run: it has no job.toml. Name a folder that 'securefl run' or 'demo' made")
    plan = _decoded(folder / "plan.json", Plan)
    return Facts(
        job=_job(folder / "job.toml"),
        plan=plan,
        digest=hashlib.sha256(plan.encoded()).hexdigest(),
        history=_lines(folder / "history.jsonl", RoundRecord),
        traffic=_counted(_lines(folder / "transcript.jsonl", Message)),
        summary=_decoded(folder / "summary.json", Summary) if (folder / "summary.json").exists() else None,
    )


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
    except (OSError, msgspec.DecodeError) as error:
        raise NotARun(f"{path} is damaged: {error}") from error


def _lines(path: Path, kind: type[T]) -> tuple[T, ...]:
    """One value a line; no file, no values. A last line without its end was cut short by a crash, and is left out."""
    try:
        whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        return tuple(msgspec.json.decode(line, type=kind) for line in whole.splitlines() if line)
    except (OSError, msgspec.DecodeError) as error:
        raise NotARun(f"{path} is damaged: {error}") from error


def _counted(messages: tuple[Message, ...]) -> tuple[Traffic, ...]:
    """Messages by kind, in the order in which each kind first travelled."""
    flows: dict[str, dict[str, Flow]] = {}
    for message in messages:
        directions = flows.setdefault(message.kind, {"up": Flow(), "down": Flow()})
        directions[message.direction] += message
    return tuple(Traffic(kind, **directions) for kind, directions in flows.items())
