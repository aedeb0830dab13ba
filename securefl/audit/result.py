"""An audit as it is kept: what was audited, what was asked and seen, what follows. Reads without torch."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from msgspec import Struct

from securefl.audit import assessment
from securefl.audit.assessment import Assessment, Question, Scores
from securefl.errors import BadInput, NotARun
from securefl.plan import ClientLevel, LocalOptimizer, Plan
from securefl.privacy.mechanism import Release, Training, Unit


class Audit(Struct, frozen=True, forbid_unknown_fields=True):
    """``client``: whose records were audited, or "every client". ``mechanism`` to ``threshold`` are the job's: what the
    result is about. ``released``: what a round of the audited federation, which has canaries, releases.
    """

    job: str
    client: str
    unit: Unit
    mechanism: Training
    optimizer: LocalOptimizer
    level: ClientLevel | None
    protection: str
    minimum: int
    colluders: int
    threshold: int | None
    released: tuple[Release, ...]
    asked: Question
    scores: Scores
    found: Assessment
    seconds: float
    software: dict[str, str]

    def about(self, plan: Plan, delta: float | None) -> bool:
        """Whether a run under this plan, whose owners' budgets have this ``delta``, is what was audited: as long, with
        the same noise, training, protection and fewest clients.
        """
        client = self.client in plan.clients or self.level is not None
        own = (self.mechanism, self.optimizer, self.level, self.protection, self.unit, self.minimum, self.colluders)
        other = (plan.mechanism, plan.optimizer, plan.privacy.client_level, plan.protection, plan.privacy.unit)
        same = own == (*other, plan.minimum, plan.colluders) and self.threshold == plan.threshold
        return same and client and (self.scores.rounds, self.asked.delta) == (plan.rounds, delta)

    def reassessed(self) -> Assessment:
        """What follows from the scores, computed anew."""
        return assessment.assess(self.scores, self.asked)


def encoded(audit: Audit) -> bytes:
    """The content of a file, JSON. A bound without end, which JSON has no number for, is "Infinity"."""
    return msgspec.json.encode(_spelt(msgspec.to_builtins(audit)))


def read(path: Path) -> Audit:
    """The audit in a file that ``securefl audit`` wrote. Raises ``NotARun`` for anything else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Audit, strict=False)
    except OSError as error:
        raise NotARun(f"{path} cannot be read ({error.strerror}): name the file that securefl audit wrote") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadInput) as error:
        raise NotARun(f"{path} is no audit, or damaged ({error}): name the file that securefl audit wrote") from error


def _spelt(value: object) -> object:
    if isinstance(value, dict):
        return {name: _spelt(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(one) for one in value]
    return "Infinity" if value == math.inf else value
