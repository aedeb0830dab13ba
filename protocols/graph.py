"""Who masks with whom, and how many must survive: the complete graph of Bonawitz et al. (CCS 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from protocols.base import ClientId
from protocols.errors import ConfigurationError

LARGEST_COMPLETE = 100


class CohortRules(Struct, frozen=True):
    """What a client demands of a cohort before it takes part.

    ``minimum``: fewest clients in the key list. ``colluders`` (n_C): clients that may work with the server.
    ``threshold``: shares that open a secret; None means floor(2n/3) + 1, computed by each client from the key list.
    """

    minimum: int = 3
    threshold: int | None = None
    colluders: int = 0

    def __post_init__(self) -> None:
        if self.minimum < 3:
            raise ConfigurationError(f"a minimum cohort of {self.minimum}: a sum of fewer than 3 hides nobody")
        if self.colluders < 0 or self.minimum <= 3 * self.colluders:
            raise ConfigurationError(f"{self.colluders} colluders need a minimum cohort above {3 * self.colluders}")

    @property
    def fewest(self) -> int:
        """The smallest cohort that these rules allow."""
        return max(self.minimum, self.threshold or 0)

    def least(self, cohort: int) -> int:
        """The fewest of a cohort whose sum may be formed: the threshold, and never below the minimum."""
        return max(self.threshold_for(cohort), self.minimum)

    def binding(self, cohort: int, roster: int) -> int:
        """How many equal signed tags settle a model: the threshold, and a majority of the roster.

        No two models can have that many, and whoever was away can be shown that many later.
        """
        return max(self.threshold_for(cohort), roster // 2 + 1)

    def threshold_for(self, cohort: int) -> int:
        """The threshold t for a cohort, checked against an active server: 2t > n + n_C and t - n_C >= 2.

        Two survivor sets of t signatures each then share an honest client, who signs only one of them.
        """
        if cohort < self.minimum:
            raise ConfigurationError(f"a cohort of {cohort} is below the minimum of {self.minimum}")
        t = two_thirds(cohort) if self.threshold is None else self.threshold
        if t > cohort:
            raise ConfigurationError(f"threshold {t} is above the cohort of {cohort}")
        if 2 * t <= cohort + self.colluders or t - self.colluders < 2:
            low = max((cohort + self.colluders) // 2 + 1, self.colluders + 2)
            raise ConfigurationError(
                f"threshold {t} is too low for {cohort} clients: it must be between {low} and {cohort}"
            )
        return t


def two_thirds(clients: int) -> int:
    """The default threshold: just over two thirds, which tolerates a third of dropouts and an active server."""
    return 2 * clients // 3 + 1


def neighbours(me: ClientId, cohort: Sequence[ClientId]) -> tuple[ClientId, ...]:
    """The clients that ``me`` masks with: on the complete graph, all others."""
    return tuple(client for client in cohort if client != me)
