"""Plans that a site was shown and that somebody has to look at first: one file each, until it is approved.

An approval is for one run: whoever coordinates cannot have the same plan trained again and again on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from securefl.deployment.files import write_private
from securefl.errors import BadInput, NotARun
from securefl.plan import Plan
from securefl.run_folder import private_folder

_MOST: Final = 50  # that wait at one site: a coordinator may propose without end


@dataclass(frozen=True)
class Approvals:
    """In a folder of the site. A plan is named by its SHA-256 in hex."""

    folder: Path

    def waiting(self) -> dict[str, Plan]:
        """Plans that wait, by name. Raises ``NotARun`` for a file that was altered."""
        return {path.stem: _read(path) for path in sorted(self.folder.glob("waiting/*.json"))}

    def ask(self, plan: Plan) -> None:
        """Have a plan wait. Raises ``BadInput`` where too many do."""
        path = self._waiting(plan.digest().hex())
        if path.exists():
            return
        if len(list(self.folder.glob("waiting/*.json"))) >= _MOST:
            raise BadInput(f"{_MOST} plans wait for approval in {self.folder}: approve or delete some")
        private_folder(path.parent)
        write_private(path, plan.encoded())

    def approve(self, name: str) -> Plan:
        """Let one run have the plan of this name. Raises ``BadInput`` for one that does not wait."""
        path = self._waiting(name)
        if not path.exists():
            known = ", ".join(self.waiting()) or "none"
            raise BadInput(f"no plan {name!r} waits for approval; those that do: {known}")
        plan = _read(path)
        private_folder(self._approved(name).parent)
        write_private(self._approved(name), b"")
        path.unlink()
        return plan

    def take(self, plan: Plan, run: str) -> bool:
        """Whether this run may have the plan: it was approved, and no other run has taken that."""
        path = self._approved(plan.digest().hex())
        if not path.exists():
            return False
        taken = path.read_text(encoding="utf-8")
        if not taken:
            write_private(path, run.encode())
        return taken in ("", run)

    def _waiting(self, name: str) -> Path:
        return self.folder / "waiting" / f"{_checked(name)}.json"

    def _approved(self, name: str) -> Path:
        return self.folder / "approved" / _checked(name)


def _checked(name: str) -> str:
    if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise BadInput(f"{name!r} is not the name of a plan: it has 64 hexadecimal digits")
    return name


def _read(path: Path) -> Plan:
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, BadInput) as error:
        raise NotARun(f"{path} is damaged ({error}): delete it, and have the plan proposed again") from error
    if plan.digest().hex() != path.stem:
        raise NotARun(f"{path} has another plan than its name says: delete it, and have the plan proposed again")
    return plan
