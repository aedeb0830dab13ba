"""Who masks with whom, who holds whose shares, and how many of them open a secret.

Up to ``LARGEST_COMPLETE`` clients everybody is everybody's neighbour (Bonawitz et al., CCS 2017). Beyond, each has a
logarithmic number of neighbours on a random ring (Bell et al., CCS 2020, section 4): every client then does O(log n)
work on masks and shares, under assumptions of its own (:mod:`protocols.degree`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from msgspec import Struct

from protocols.base import ClientId
from protocols.degree import Parameters, Sparse, parameters
from protocols.errors import ConfigurationError
from protocols.primitives import digest

LARGEST_COMPLETE = 100


class CohortRules(Struct, frozen=True):
    """What a client demands of a cohort before it takes part.

    ``minimum``: fewest clients in the key list, and fewest whose sum may be formed, whatever the server does.
    ``colluders`` (n_C): clients that may work with the server. ``threshold``: shares that open a secret; None means
    floor(2n/3) + 1, computed by each client from the key list. ``sparse``: what is assumed beyond ``LARGEST_COMPLETE``
    clients; None keeps the graph complete at any size, and so does a threshold, since it counts everybody's shares.
    """

    minimum: int = 3
    threshold: int | None = None
    colluders: int = 0
    sparse: Sparse | None = Sparse()

    def __post_init__(self) -> None:
        if self.minimum < 3:
            raise ConfigurationError(f"a minimum cohort of {self.minimum}: a sum of fewer than 3 hides nobody")
        if self.colluders < 0 or self.minimum <= 3 * self.colluders:
            raise ConfigurationError(f"{self.colluders} colluders need a minimum cohort above {3 * self.colluders}")

    @property
    def fewest(self) -> int:
        """The smallest cohort that these rules allow."""
        return max(self.minimum, self.threshold or 0)

    def complete(self, cohort: int) -> bool:
        """Whether everybody masks with everybody."""
        return self._assumed(cohort) is None

    def degree_for(self, cohort: int) -> int:
        """How many neighbours each client has."""
        assumed = self._assumed(cohort)
        return cohort - 1 if assumed is None else self._sized(cohort, assumed).degree

    def least(self, cohort: int) -> int:
        """The fewest of a cohort whose sum may be formed: never below the minimum.

        On the complete graph, the threshold. On a sparse one, all but the dropouts that its degree was made for: with
        fewer, the survivors' graph might fall apart into groups whose sums the server could read one by one.
        """
        assumed = self._assumed(cohort)
        fewest = self.threshold_for(cohort) if assumed is None else cohort - assumed.dropped(cohort)
        return max(fewest, self.minimum)

    def quorum(self, cohort: int) -> int:
        """How many signatures prove a survivor set to who was not asked itself: no two sets can have that many."""
        return self.threshold_for(cohort) if self.complete(cohort) else two_thirds(cohort)

    def binding(self, cohort: int, roster: int) -> int:
        """How many equal signed tags settle a model: a quorum of the cohort, and more than (roster + n_C) / 2.

        No two models can have that many, and whoever was away can be shown that many later.
        """
        return max(self.quorum(cohort), (roster + self.colluders) // 2 + 1)

    def threshold_for(self, cohort: int) -> int:
        """How many shares open a secret, checked against an active server.

        On the complete graph 2t > n + n_C and t - n_C >= 2: two survivor sets of t signatures each then share an honest
        client, who signs only one of them. On a sparse graph t is of each client's own neighbours.
        """
        if cohort < self.minimum:
            raise ConfigurationError(f"a cohort of {cohort} is below the minimum of {self.minimum}")
        assumed = self._assumed(cohort)
        return self._of_everybody(cohort) if assumed is None else self._sized(cohort, assumed).threshold

    def _assumed(self, cohort: int) -> Sparse | None:
        """What the sparse graph of such a cohort assumes; None where its graph is complete."""
        return self.sparse if self.threshold is None and cohort > LARGEST_COMPLETE else None

    def _sized(self, cohort: int, assumed: Sparse) -> Parameters:
        return parameters(cohort, assumed, colluders=self.colluders)

    def _of_everybody(self, cohort: int) -> int:
        t = two_thirds(cohort) if self.threshold is None else self.threshold
        if t > cohort:
            raise ConfigurationError(f"threshold {t} is above the cohort of {cohort}")
        if 2 * t <= cohort + self.colluders or t - self.colluders < 2:
            low = max((cohort + self.colluders) // 2 + 1, self.colluders + 2)
            raise ConfigurationError(
                f"threshold {t} is too low for {cohort} clients: it must be between {low} and {cohort}"
            )
        return t

    def graph(self, members: tuple[ClientId, ...], keys: bytes) -> Graph:
        """The graph among ``members`` (sorted) of the key list with digest ``keys``.

        Raises ``ConfigurationError`` if these rules do not allow such a cohort.
        """
        return _graph(self, members, keys)


def two_thirds(clients: int) -> int:
    """The default threshold: just over two thirds, which tolerates a third of dropouts and an active server."""
    return 2 * clients // 3 + 1


@dataclass(frozen=True)
class Graph:
    """One key list's graph. ``ring``: the members in random order; each is joined to ``degree`` / 2 on either side.

    ``threshold``: of a client's holders, how many open its secrets. ``least``, ``quorum``: see ``CohortRules``.
    """

    members: tuple[ClientId, ...]
    ring: tuple[ClientId, ...] = field(repr=False)
    degree: int
    threshold: int
    least: int
    quorum: int
    _known: dict[ClientId, tuple[ClientId, ...]] = field(default_factory=dict, repr=False, compare=False)
    _places: dict[ClientId, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def complete(self) -> bool:
        return self.degree == len(self.members) - 1

    @property
    def tolerated(self) -> int:
        """How many of a client's holders may be missing."""
        return self.degree + self.complete - self.threshold

    def neighbours(self, me: ClientId) -> tuple[ClientId, ...]:
        """The clients that ``me`` masks with and whose shares it holds, sorted."""
        if me not in self._known:
            self._known[me] = self._neighbours(me)
        return self._known[me]

    def holders(self, me: ClientId) -> tuple[ClientId, ...]:
        """Who holds shares of this client's secrets: its neighbours, and on the complete graph itself.

        Elsewhere a share of one's own would count towards opening one's self seed but never one's mask key, and the
        condition on the threshold (Bell et al., section 4) knows no such holder.
        """
        return self.members if self.complete else self.neighbours(me)

    def place(self, dealer: ClientId, receiver: ClientId) -> int:
        """Where among the parts that ``dealer`` deals is the one for ``receiver``, a neighbour."""
        return 1 + self.neighbours(dealer).index(receiver)

    def _neighbours(self, me: ClientId) -> tuple[ClientId, ...]:
        if self.complete:
            return tuple(client for client in self.members if client != me)
        if not self._places:
            self._places.update((name, place) for place, name in enumerate(self.ring))
        place, reach = self._places[me], self.degree // 2
        return tuple(sorted(self.ring[(place + step) % len(self.ring)] for step in range(-reach, reach + 1) if step))


@lru_cache(maxsize=8)
def _graph(rules: CohortRules, members: tuple[ClientId, ...], keys: bytes) -> Graph:
    n = len(members)
    # A random order that nobody chooses: whoever wants another has to put another entry on the list and hash again. How
    # often is what the security parameter makes room for.
    ring = members if rules.complete(n) else tuple(sorted(members, key=lambda name: _rank(keys, name)))
    return Graph(members, ring, rules.degree_for(n), rules.threshold_for(n), rules.least(n), rules.quorum(n))


def _rank(keys: bytes, name: ClientId) -> bytes:
    return digest("ring", keys, name.encode())
