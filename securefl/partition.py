"""Splitting one labelled data set among clients: evenly, by label skew (Dirichlet) or by label shards.

Each returns one sorted index array a client; together they hold every row once. ``RandomState`` is used because its
stream is frozen (NEP 19): a committed seed means the same split under every numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securefl.errors import BadInput

Rows = NDArray[np.int64]


def even(count: int, clients: int, seed: int) -> list[Rows]:
    """``count`` rows are shuffled and dealt out in parts whose sizes differ by one at most ("IID")."""
    if not 1 <= clients <= count:
        raise BadInput(f"{count} rows cannot be dealt to {clients} clients: each needs at least one")
    return [np.sort(part) for part in np.array_split(np.random.RandomState(seed).permutation(count), clients)]


def dirichlet(labels: NDArray[np.int64], clients: int, alpha: float, seed: int) -> list[Rows]:
    """Each class is shared out by its own Dirichlet(alpha) draw: small alpha is skewed, large alpha is even.

    Source: Yurochkin et al., ICML 2019, section 4; Li et al., ICDE 2022 ("label distribution skew"). Raises
    ``BadInput`` when a client would get no rows.
    """
    if clients < 1 or not alpha > 0:
        raise BadInput(f"a Dirichlet split needs a client and alpha > 0, got {clients} clients and alpha {alpha}")
    generator = np.random.RandomState(seed)
    dealt: list[list[Rows]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(_shares(generator, clients, alpha))[:-1] * len(rows)).astype(np.int64)
        for client, piece in enumerate(np.split(rows, cuts)):
            dealt[client].append(piece)
    split = [_sorted(pieces) for pieces in dealt]
    if any(len(rows) == 0 for rows in split):
        raise BadInput(f"alpha {alpha} with seed {seed} leaves a client without rows: raise alpha or take another seed")
    return split


def shards(labels: NDArray[np.int64], clients: int, shards_per_client: int, seed: int) -> list[Rows]:
    """Rows are sorted by label and cut into equal shards; each client is dealt ``shards_per_client`` of them at random.

    Source: McMahan et al., AISTATS 2017, section 3, with 2 shards a client: most clients see at most two labels.
    """
    count = clients * shards_per_client
    if clients < 1 or shards_per_client < 1 or count > len(labels):
        raise BadInput(f"{len(labels)} rows cannot make {clients} x {shards_per_client} shards: use fewer of them")
    pieces = np.array_split(np.argsort(labels, kind="stable"), count)
    order = np.random.RandomState(seed).permutation(count).reshape(clients, shards_per_client)
    return [_sorted([pieces[shard] for shard in hand]) for hand in order]


def _shares(generator: np.random.RandomState, clients: int, alpha: float) -> NDArray[np.float64]:
    shares = generator.dirichlet(np.full(clients, alpha))
    if np.isfinite(shares).all():
        return shares
    # every gamma draw underflowed: the limit for alpha -> 0 gives one client everything
    one: NDArray[np.float64] = np.eye(clients)[generator.randint(clients)]
    return one


def _sorted(pieces: list[Rows]) -> Rows:
    return np.sort(np.concatenate(pieces)).astype(np.int64)
