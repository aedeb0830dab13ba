"""What a run folder says, as values. Reads only; a run that was interrupted is read as far as it got."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from securefl import job
from securefl.errors import BadInput, NotARun
from securefl.plan import Plan
from securefl.records import RoundRecord, Summary

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True):
    """One line of the transcript: that a message travelled, not what was in it."""

    kind: str
    direction: str
    client: str
    bytes: int
    round: int | None = None


@dataclass(frozen=True)
class Traffic:
    """All messages of one kind in one direction."""

    kind: str
    direction: str
    count: int
    bytes: int

    @property
    def mean(self) -> float:
        """Bytes a message."""
        return self.bytes / self.count


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
    """One value a line; no file, no values: a run may be stopped before its first round."""
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
        return tuple(msgspec.json.decode(line, type=kind) for line in lines if line.strip())
    except (OSError, msgspec.DecodeError) as error:
        raise NotARun(f"{path} is damaged: {error}") from error


def _counted(messages: tuple[Message, ...]) -> tuple[Traffic, ...]:
    """Messages by kind and direction, in the order in which each kind first travelled."""
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for message in messages:
        count, total = totals.get((message.kind, message.direction), (0, 0))
        totals[message.kind, message.direction] = (count + 1, total + message.bytes)
    return tuple(Traffic(*name, *numbers) for name, numbers in totals.items())


def mean_bytes(traffic: tuple[Traffic, ...]) -> Mapping[str, Mapping[str, float]]:
    """Bytes a message, by kind and then by direction ("up", "down")."""
    means: dict[str, dict[str, float]] = {}
    for item in traffic:
        means.setdefault(item.kind, {})[item.direction] = item.mean
    return means
