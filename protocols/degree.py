"""Degree and threshold of a random k-regular graph: how few neighbours are enough for secure aggregation.

Bell, Bonawitz, Gascón, Lepoint, Raykova, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020
(eprint 2020/704). Where gamma n and delta n are whole, the values are those of the authors' open implementation
(federated-compute, fcp/secagg/server/graph_parameter_finder.cc); it rounds the others down, this module up.

The graph is a Harary graph on a random ring: the clients in uniformly random order, each joined to the k/2 clients
before and the k/2 after it. The k neighbours of a client hold t-of-k shares of its two secrets, one share each, the
client itself none. Which clients are corrupt and which drop out must not depend on the order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from math import ceil, floor, inf, lgamma, log, log2

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from protocols.errors import ConfigurationError

# A ring of fewer clients has no even degree below that of the complete graph.
FEWEST = 4


class Server(Enum):
    """What the server may do. ``SEMI_MALICIOUS``: anything, once it has relayed all the keys honestly."""

    SEMI_HONEST = "semi-honest"
    SEMI_MALICIOUS = "semi-malicious"


class Sparse(Struct, frozen=True):
    """What a sparse graph is sized for.

    ``corrupt`` (gamma) and ``dropout`` (delta): the largest fractions of the clients that work with the server and that
    leave, as written in decimal and rounded up to whole clients. ``sigma``: statistical security in bits; whoever can
    try 2**h keys to steer the order of the ring gains h bits, so that 128 is 40 against 2**88 tries. ``eta``: a round
    with no more than these dropouts fails with probability at most 2**-eta.
    """

    corrupt: float = 0.1
    dropout: float = 0.1
    sigma: int = 128
    eta: int = 20

    def __post_init__(self) -> None:
        if not (0 <= self.corrupt < 1 and 0 <= self.dropout < 1 and self.corrupt + self.dropout < 1):
            raise ConfigurationError(
                f"corrupt={self.corrupt} and dropout={self.dropout} must be fractions that leave somebody: "
                "neither below 0, and less than 1 together"
            )
        if not (1 <= self.sigma < inf and 1 <= self.eta < inf):
            raise ConfigurationError(f"sigma={self.sigma} and eta={self.eta} are bits: at least 1 each")

        for name in ("corrupt", "dropout"):  # equal assumptions, equal bytes: a session id covers them
            force_setattr(self, name, float(getattr(self, name)))

    def corrupted(self, clients: int) -> int:
        """The most clients that may work with the server."""
        return ceil(_decimal(self.corrupt) * clients)

    def dropped(self, clients: int) -> int:
        """The most clients that may drop out. The graph promises nothing beyond: refuse a smaller survivor set."""
        return ceil(_decimal(self.dropout) * clients)


class Parameters(Struct, frozen=True):
    """``degree`` (k): neighbours of each client, even. ``threshold`` (t): how many of their shares open a secret."""

    degree: int
    threshold: int


@lru_cache(maxsize=64)
def parameters(
    clients: int,
    assumptions: Sparse,
    server: Server = Server.SEMI_MALICIOUS,
    colluders: int | None = None,
) -> Parameters:
    """The smallest even degree below clients - 1 that is safe, and the smallest threshold that is safe with it.

    With c corrupt among the k neighbours of a client and C, D the corrupt and dropped of all n, guaranteed are

    1. no honest client is opened: c < t (semi-honest), or c < 2t - k (semi-malicious: k - c honest neighbours give one
       share each and c corrupt ones both, so that both secrets need 2t <= k + c), except with 2**-(sigma+1);
    2. the honest survivors are connected, so that only their sum is free of masks, except with 2**-(sigma+1);
    3. every client keeps at least t surviving neighbours, except with 2**-eta;
    4. at least two honest clients survive, n - C - D >= 2: the sum of one would be its input;
    5. if ``colluders`` (n_C) is given: 3t >= 2k + 2 n_C + 2 and t >= k/2 + n_C + 2. Then there is one sum, whatever an
       active server does, whoever those clients are and however the ring is ordered (docs/secagg.md, theorem 3).

    Assumption: at most C corrupt and D dropped, chosen independently of the ring's order. For (2) this binds an active
    server too: one that calls honest clients dropped after it has seen the graph may split the survivors into several
    sums, unless (5) holds. (1) holds against it all the same.

    Raises ``ConfigurationError`` with the nearest values that are feasible.
    """
    wanted = _Wanted(clients, server, colluders)
    found = _smallest(wanted, assumptions)
    if found is None:
        raise ConfigurationError(_infeasible(wanted, assumptions))
    return found


def log2_disconnected(clients: int, removed: int, degree: int) -> float:
    """An upper bound on log2 of the probability that removing random clients disconnects the remaining ones.

    Survivors fall apart only if k/2 or more consecutive clients are removed at two places with survivors on both sides
    between them. That gives n(n-k-1)/2 pairs of windows of k/2 clients, each wholly removed with probability
    C(n-k, r-k) / C(n, r). The bound never falls when more clients are removed.
    """
    pairs = clients * (clients - degree - 1) // 2
    if degree > removed or pairs <= 0:
        return -inf
    window = _log2_choose(clients - degree, removed - degree) - _log2_choose(clients, removed)
    return min(0.0, log2(pairs) + window + _slack(clients))


def log2_tail(population: int, marked: int, drawn: int, least: int) -> float:
    """An upper bound on log2 P[X >= least], X the marked ones among ``drawn`` of a population without replacement.

    Never below the true value: rounding errors are covered by 1e-9 + 1e-12 ln(population!) bits, by which it exceeds
    the truth at most twice. At or below the mean it is 0 (probability one).
    """
    top = min(marked, drawn)
    if least > top:
        return -inf
    if least * population <= marked * drawn:
        return 0.0
    first = _log2_choose(marked, least) + _log2_choose(population - marked, drawn - least)
    ratio_sum = _relative_tail(population - marked - drawn, marked, drawn, least)
    return min(0.0, first - _log2_choose(population, drawn) + log2(ratio_sum) + _slack(population))


class _Wanted(Struct, frozen=True):
    """What the parameters are for, beside the assumptions."""

    clients: int
    server: Server
    colluders: int | None


def _smallest(wanted: _Wanted, assumptions: Sparse) -> Parameters | None:
    clients = wanted.clients
    removed = assumptions.corrupted(clients) + assumptions.dropped(clients)
    # Conditions 1 and 3 imply 4; asked first, it also keeps the probabilities below defined (rounding up: r <= n + 1).
    if clients - removed < 2:
        return None
    degrees = range(2, clients - 1, 2)
    secure = -(assumptions.sigma + 1)
    index = bisect_left(degrees, True, key=lambda k: log2_disconnected(clients, removed, k) <= secure)
    while index < len(degrees):
        low, high = _thresholds(wanted, degrees[index], assumptions)
        if low <= high:
            # The lowest threshold: the fewest shares to collect and the most dropouts tolerated.
            return Parameters(degrees[index], low)
        # A further neighbour raises the upper end by one at most and never lowers the lower end.
        index += (low - high + 1) // 2
    return None


def _thresholds(wanted: _Wanted, degree: int, assumptions: Sparse) -> tuple[int, int]:
    """The lowest threshold that meets conditions 1 and 5, and the highest that meets condition 3, for all clients."""
    clients = wanted.clients
    union = log2(clients)
    # The k places around a place on the ring hold a uniformly random k of all n clients, so that the union over the
    # places needs no case for who stands in the middle: the same event for any client is part of it.
    corrupt = _quantile(clients, assumptions.corrupted(clients), degree, -(assumptions.sigma + 1) - union)
    dropped = _quantile(clients, assumptions.dropped(clients), degree, -assumptions.eta - union)
    low = corrupt if wanted.server is Server.SEMI_HONEST else (corrupt + degree + 1) // 2
    if wanted.colluders is not None:
        low = max(low, (2 * degree + 2 * wanted.colluders + 4) // 3, degree // 2 + wanted.colluders + 2)
    # A threshold of one would make every share a secret.
    return max(low, 2), degree - dropped + 1


def _quantile(population: int, marked: int, drawn: int, bound: float) -> int:
    """The smallest count that is reached with a log2 probability of at most ``bound``."""
    counts = range(min(marked, drawn) + 2)
    return bisect_left(counts, True, key=lambda least: log2_tail(population, marked, drawn, least) <= bound)


def _relative_tail(rest: int, marked: int, drawn: int, least: int) -> float:
    """P[X >= least] / P[X = least], above the mean, where the terms fall."""
    top = min(marked, drawn)
    total = term = 1.0
    x = least
    while x < top and term > 2.0**-60 * total:
        term *= (marked - x) * (drawn - x) / ((x + 1) * (rest + x + 1))
        total += term
        x += 1
    # None of the terms left out is larger than the last.
    return total + (top - x) * term


def _log2_choose(n: int, k: int) -> float:
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2)


def _slack(population: int) -> float:
    # Nine values of lgamma, none above ln(population!), each good to about 1e-15 of itself; the rest is for the sums.
    return 1e-9 + 1e-12 * lgamma(population + 1)


def _infeasible(wanted: _Wanted, assumptions: Sparse) -> str:
    """What to change. All of corrupt = dropout = 0 is feasible, so that there is always an answer."""
    clients, server = wanted.clients, wanted.server
    if clients < FEWEST:
        return f"{clients} clients are too few for a sparse graph: it takes {FEWEST}; use the complete graph"

    def largest(fraction: float, changed: Callable[[float], Sparse]) -> float | None:
        percent = range(floor(_decimal(fraction) * 100), -1, -1)
        index = bisect_left(percent, True, key=lambda p: _smallest(wanted, changed(p / 100)) is not None)
        return percent[index] / 100 if index < len(percent) else None

    dropout = largest(assumptions.dropout, lambda f: replace(assumptions, dropout=f))
    corrupt = largest(assumptions.corrupt, lambda f: replace(assumptions, corrupt=f))
    ways = [f"{name}={f}" for name, f in (("dropout", dropout), ("corrupt", corrupt)) if f is not None]
    if wanted.colluders:
        fewer = (c for c in range(wanted.colluders - 1, -1, -1) if _smallest(replace(wanted, colluders=c), assumptions))
        ways += [f"colluders={c}" for c in islice(fewer, 1)]
    if not ways:
        both = min(assumptions.corrupt, assumptions.dropout)
        least = largest(both, lambda f: replace(assumptions, corrupt=f, dropout=f))
        ways = [f"corrupt={least} with dropout={least}"]
    deviating = f", colluders={wanted.colluders}" if wanted.colluders else ""
    return (
        f"no sparse graph of {clients} clients is safe ({server.value} server) with corrupt={assumptions.corrupt}, "
        f"dropout={assumptions.dropout}, sigma={assumptions.sigma}, eta={assumptions.eta}{deviating}; "
        f"the largest that is, all else equal: {' or '.join(ways)}"
    )


def _decimal(fraction: float) -> Fraction:
    # A tenth of 1000 is 100: the float nearest to 0.1 lies above it and would round up to 101.
    return Fraction(str(fraction))
