"""What can go wrong in securefl, as types.

SecureFLError                 everything below; its ``exit_code`` is what the command line returns
├── BadInput             (2)  a job file, an argument, a folder or a data set that cannot be used as given
│   ├── BadJob                a key of a job file: names the key, what is wrong and the remedy
│   ├── DataUnavailable       a data set is neither in ``SECUREFL_DATA``, nor cached, nor downloadable
│   ├── RunExists             the run folder is already taken
│   ├── NotARun               the run folder is missing, incomplete or damaged
│   ├── UnsupportedModel      a model that cannot be trained under the job's guarantee
│   └── MissingExtra          an optional package is not installed; the message has the pip command
├── LedgerError          (4)  a ledger that is not ours, of another format, or altered
├── AccountingMismatch   (4)  two privacy accountants contradict each other
├── VerificationFailed   (4)  a run or ledger that was checked is not what it says
├── BudgetExceeded       (3)  a data owner's budget does not cover what was asked
├── Refused              (2)  a client's policy does not allow what the server asked for
├── TrainingFailed       (2)  local training produced no usable update
└── RoundFailed          (5)  too few clients were left
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class SecureFLError(Exception):
    """Base of every error that securefl raises on purpose; the message says what to do next."""

    exit_code: ClassVar[int] = 2


class BadInput(SecureFLError):
    """Something handed in cannot be used as it is."""


class BadJob(BadInput):
    """A job file is invalid. ``key`` is the dotted key, ``remedy`` what to write instead."""

    def __init__(self, key: str, problem: str, remedy: str) -> None:
        super().__init__(f"{key}: {problem}. {remedy}")
        self.key = key
        self.problem = problem
        self.remedy = remedy


class DataUnavailable(BadInput):
    """A data set could not be found and could not be fetched."""


class RunExists(BadInput):
    """The run folder exists already; nothing in it was touched."""


class NotARun(BadInput):
    """The folder is not a run that can be read or resumed."""


class UnsupportedModel(BadInput):
    """The model cannot be trained as asked; the message names the layer and the fix."""


class MissingExtra(BadInput):
    """A feature needs an optional package that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional package: pip install 'securefl[{extra}]'")
        self.extra = extra


class LedgerError(SecureFLError):
    """A privacy ledger cannot be trusted or read; nothing was charged and nothing was changed."""

    exit_code = 4


class AccountingMismatch(SecureFLError):
    """Two accountants give epsilons that cannot both hold; no figure of either may be relied on."""

    exit_code = 4


class VerificationFailed(SecureFLError):
    """What was to be verified does not hold; the mismatches are listed before."""

    exit_code = 4


class BudgetExceeded(SecureFLError):
    """The owner's budget refuses a charge. All epsilons are at the budget's delta."""

    exit_code = 3

    def __init__(self, client: str, spent: float, after: float, cap: float, rounds_left: int, rounds: int = 1) -> None:
        asked = "one more round" if rounds == 1 else f"{rounds} more rounds"
        super().__init__(
            f"{client}: budget refused: spent epsilon {spent:.3f}, {asked} would make it {after:.3f}, "
            f"the cap is {cap:.3f}; rounds like this one that still fit: {rounds_left}"
        )
        self.client = client
        self.spent = spent
        self.after = after
        self.cap = cap
        self.rounds_left = rounds_left
        self.rounds = rounds


class Refused(SecureFLError):
    """A client's owner does not allow what was asked."""


class TrainingFailed(SecureFLError):
    """Local training ended without a usable update (for example NaN or infinity in it)."""


class RoundFailed(SecureFLError):
    """A round did not complete; the message says what became of the model. ``lost``: who, and where or why.

    ``disputes`` maps those whose shares are in dispute to those who say that they do not open.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        lost: Mapping[str, str] | None = None,
        disputes: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.lost = dict(lost or {})
        self.disputes = dict(disputes or {})
