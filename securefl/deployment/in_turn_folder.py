"""The folder of one run without a server, at one of its sites: job, plan, what this peer keeps and reports."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from securefl import job as jobs
from securefl import settings
from securefl.errors import BadInput, NotARun
from securefl.job import Job
from securefl.plan import Plan
from securefl.progress import Tell, nobody
from securefl.report import JSON
from securefl.run_folder import ENGINE, JOB, PLAN, STORE, private_folder, write
from securefl.settings import InTurnApart

_PROPOSED: Final = "proposed"
_ENDED: Final = "ended"


@dataclass(frozen=True)
class InTurnFolder:
    """``path`` has the run's name."""

    path: Path

    @property
    def run(self) -> str:
        return self.path.name

    @property
    def store(self) -> Path:
        """What this peer keeps as a server."""
        return self.path / STORE

    @property
    def proposed(self) -> bool:
        """Whether this site proposes the run to the others."""
        return (self.path / _PROPOSED).exists()

    @property
    def ended(self) -> bool:
        """Whether it is over here, its report written by this peer or another."""
        return (self.path / _ENDED).exists() or (self.path / JSON).exists()

    def end(self) -> None:
        write(self.path / _ENDED, b"")

    def job(self) -> Job:
        return jobs.load(self.path / JOB)

    def job_text(self) -> str:
        """The job as it was proposed."""
        return (self.path / JOB).read_text(encoding="utf-8")

    def plan(self) -> Plan:
        """Raises ``NotARun`` for a damaged file."""
        try:
            return msgspec.json.decode((self.path / PLAN).read_bytes(), type=Plan)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, BadInput) as error:
            raise NotARun(f"{self.path / PLAN} is damaged ({error}): have the run proposed again") from error

    def engine(self) -> InTurnApart:
        found = settings.read(self.path)
        if not isinstance(found, InTurnApart):
            raise NotARun(f"{self.path} is not a run without a server")
        return found

    def make(self, job: str, plan: Plan, engine: InTurnApart, proposed: bool = False) -> None:
        """Whole or not at all; nothing where it is there already."""
        if self.path.exists():
            return
        partial = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        private_folder(partial)
        write(partial / JOB, job.encode())
        write(partial / PLAN, plan.encoded())
        settings.write(engine, partial)
        if proposed:
            write(partial / _PROPOSED, b"")
        os.replace(partial, self.path)


def all_in(runs: Path, tell: Tell = nobody) -> list[InTurnFolder]:
    """Those that lie in a site's folder of runs; ``tell`` hears of those that cannot be read, which are left out."""
    found = []
    for path in sorted(runs.glob("[0-9a-f]*")):
        try:
            if (path / ENGINE).exists() and isinstance(settings.read(path), InTurnApart):
                InTurnFolder(path).plan()
                found.append(InTurnFolder(path))
        except NotARun as error:
            tell(str(error))
    return found
