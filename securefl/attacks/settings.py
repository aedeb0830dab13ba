"""The columns of the table: protections, and privacy with them."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from securefl.plan import ClientLevel, PrivacyTerms
from securefl.privacy.mechanism import DPSGD, SGD, Budget, Training
from securefl.protection import CKKS, CKKSUnmasked, Plain, Protection, SecAgg

RECORD_NOISE: Final = 1.0
"""Noise multiplier of record-level DP in the table, at a clip of 1."""

CLIENT_NOISE: Final = 0.5
"""Noise multiplier of client-level DP in the table: of the noise on the sum, in clips."""

BUDGET: Final = Budget(1e6, 1e-5)
"""Attacks are about what leaks at a given noise; no budget ends them."""


class Setting(Struct, frozen=True):
    """One column. ``noise``: noise multiplier of DP-SGD, where there is any; ``level``: client-level noise likewise."""

    name: str
    title: str
    protection: Protection
    noise: float | None = None
    level: ClientLevel | None = None

    @property
    def private(self) -> bool:
        """Whether there is noise."""
        return self.noise is not None or self.level is not None

    def mechanism(self, steps: int = 1, rate: float = 1.0) -> Training:
        """Local training of so many steps, each on a share ``rate`` of the records."""
        return SGD(rate, steps) if self.noise is None else DPSGD(self.noise, rate, steps)

    @property
    def terms(self) -> PrivacyTerms:
        """What a plan says of privacy beside the mechanism."""
        return PrivacyTerms() if self.level is None else PrivacyTerms(self.level, unit="client")


SETTINGS: Final = (
    Setting("plain", "plain", Plain()),
    Setting("secagg", "secagg", SecAgg()),
    Setting("ckks-unmasked", "CKKS, no masks", CKKSUnmasked()),
    Setting("ckks", "CKKS and masks", CKKS()),
    Setting("record-dp", "plain, record DP", Plain(), noise=RECORD_NOISE),
    Setting("client-dp", "secagg, client DP", SecAgg(), level=ClientLevel(CLIENT_NOISE, 1.0)),
)
"""In the order of the table."""


def setting(name: str) -> Setting:
    """The one of that name."""
    return next(one for one in SETTINGS if one.name == name)
