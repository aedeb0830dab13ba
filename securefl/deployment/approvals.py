"""Plans that a site was shown and that somebody has to look at first: one file each, until it is approved or rejected.

An approval is for one run of whoever proposed the plan, and is taken as that run begins: whoever coordinates cannot
have the same plan trained again and again on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from securefl.deployment.files import write_private
from securefl.errors import BadInput, NotARun
from securefl.plan import Plan
from securefl.run_folder import private_folder

COORDINATOR: Final = "the coordinator"
"""Who proposes a run with a server; no site can be called so."""
_MOST: Final = 10  # that wait of one proposer, who may propose without end


@dataclass(frozen=True)
class Waiting:
    """A plan, and who proposed it: the coordinator a run with a server, a member one without."""

    plan: Plan
    by: str = COORDINATOR

    @property
    def name(self) -> str:
        """The plan's SHA-256 in hex."""
        return self.plan.digest().hex()


class _Approved(Struct, frozen=True):
    """``free``: for a run that has not begun. ``runs``: those that have."""

    free: bool = False
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Approvals:
    """In a folder of the site. A plan is named by its SHA-256 in hex, and goes with who proposed it."""

    folder: Path

    def waiting(self) -> list[Waiting]:
        """Plans that wait. Raises ``NotARun`` for a file that was altered."""
        return [_read(path) for path in self._in("waiting")]

    def waits(self, plan: Plan, by: str = COORDINATOR) -> bool:
        return self._path("waiting", plan.digest().hex(), by).exists()

    def ask(self, plan: Plan, by: str = COORDINATOR) -> None:
        """Have a plan wait, in the place of the same proposer's oldest where many do; not one that was rejected."""
        path = self._path("waiting", plan.digest().hex(), by)
        if path.exists() or self._path("rejected", path.name[:_DIGITS], by).exists():
            return
        private_folder(path.parent)
        write_private(path, plan.encoded())
        of_proposer = [other for other in self._in("waiting") if _by(other) == by and other != path]
        for oldest in sorted(of_proposer, key=lambda other: other.stat().st_mtime_ns)[: -(_MOST - 1)]:
            oldest.unlink()

    def approve(self, name: str, by: str | None = None) -> Waiting:
        """Let one run have the plan of this name; one that was rejected, too.

        Raises ``BadInput`` for one that does not wait, or that more than one proposed where ``by`` does not say whose.
        """
        path, found = self._decided(name, by, ("waiting", "rejected"))
        self._write(name, found.by, replace(self._approved(name, found.by), free=True))
        path.unlink()
        return found

    def reject(self, name: str, by: str | None = None) -> Waiting:
        """Have the plan of this name wait no longer, however often it is proposed. Raises as ``approve`` does."""
        path, found = self._decided(name, by, ("waiting",))
        rejected = self._path("rejected", name, found.by)
        private_folder(rejected.parent)
        path.replace(rejected)
        return found

    def allows(self, plan: Plan, run: str, by: str = COORDINATOR) -> bool:
        """Whether this run may have the plan: it was approved, for this run or for one that has not begun."""
        approved = self._approved(plan.digest().hex(), by)
        return approved.free or run in approved.runs

    def take(self, plan: Plan, run: str, by: str = COORDINATOR) -> bool:
        """The same as the run begins: from now on no other may have it."""
        name = plan.digest().hex()
        approved = self._approved(name, by)
        if approved.free and run not in approved.runs:
            self._write(name, by, _Approved(runs=(*approved.runs, run)))
        return approved.free or run in approved.runs

    def _decided(self, name: str, by: str | None, states: tuple[str, ...]) -> tuple[Path, Waiting]:
        _checked(name)
        paths = [path for state in states for path in self._in(state) if path.name.startswith(name)]
        paths = [path for path in paths if by is None or _by(path) == by]
        if not paths:
            known = ", ".join(dict.fromkeys(found.name for found in self.waiting())) or "none"
            of = "" if by is None else f" of {by}"
            raise BadInput(f"no plan {name!r}{of} waits for approval; those that do: {known}")
        if len(paths) > 1:
            *some, last = sorted(_by(path) for path in paths)
            raise BadInput(f"plan {name} was proposed by {', '.join(some)} and {last}: say whose with --by")
        return paths[0], _read(paths[0])

    def _approved(self, name: str, by: str) -> _Approved:
        path = self._path("approved", name, by)
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Approved) if path.exists() else _Approved()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotARun(f"{path} is damaged ({error}): delete it, and approve the plan again") from error

    def _write(self, name: str, by: str, approved: _Approved) -> None:
        path = self._path("approved", name, by)
        private_folder(path.parent)
        write_private(path, msgspec.json.encode(approved))

    def _in(self, state: str) -> Iterator[Path]:
        return iter(sorted(self.folder.glob(f"{state}/*.json")))

    def _path(self, state: str, name: str, by: str) -> Path:
        whose = "" if by == COORDINATOR else f".{by}"
        return self.folder / state / f"{_checked(name)}{whose}.json"


_DIGITS: Final = 64


def _checked(name: str) -> str:
    if len(name) != _DIGITS or not set(name) <= set("0123456789abcdef"):
        raise BadInput(f"{name!r} is not the name of a plan: it has 64 hexadecimal digits")
    return name


def _by(path: Path) -> str:
    return path.stem[_DIGITS + 1 :] or COORDINATOR


def _read(path: Path) -> Waiting:
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, BadInput) as error:
        raise NotARun(f"{path} is damaged ({error}): delete it, and have the plan proposed again") from error
    if plan.digest().hex() != path.stem[:_DIGITS]:
        raise NotARun(f"{path} has another plan than its name says: delete it, and have the plan proposed again")
    return Waiting(plan, _by(path))
