"""Flower's SecAgg+ functions, called in the order in which its client mod and its server workflow call them.

Runs in the peers' environment and imports only Flower and numpy: one work a line on standard input, one answer a line.
The clock covers Flower's calls alone; keys, shares and what is to be unmasked are prepared before, checks come after.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from numpy.typing import NDArray

# Flower's defaults: modulus_range and quantization_range of SecAggPlusWorkflow.
MODULUS, QUANTIZATION = 1 << 32, 1 << 22

Vector = list[NDArray[Any]]


@dataclass(frozen=True)
class Client:
    """A client's secrets, in the form in which Flower keeps them."""

    secret: bytes
    public: bytes
    seed: bytes


@dataclass(frozen=True)
class Unmasking:
    """What the workflow holds when all shares are in."""

    clients: dict[int, Client]
    active: frozenset[int]
    shares: dict[int, list[bytes]]
    masked: Vector


def client_mask(dimension: int, peers: int) -> dict[str, Any]:
    """One client masks its quantised vector: ``_collect_masked_vectors`` from the private mask on."""
    clients, plain = cohort(peers + 1), quantized(dimension, 1)
    started = time.perf_counter()
    hidden = mask(clients, 1 + peers // 2, plain)
    seconds = time.perf_counter() - started
    # The same masks on the negated vector take themselves off again, up to the sign.
    opened = negated(mask(clients, 1 + peers // 2, negated(hidden)))
    return answer(seconds, hidden, opened)


def mask(clients: dict[int, Client], own: int, vector: Vector) -> Vector:
    """The body of ``_collect_masked_vectors`` after quantisation."""
    shapes = get_parameters_shape(vector)
    vector = parameters_addition(vector, pseudo_rand_gen(clients[own].seed, MODULUS, shapes))
    for node, peer in clients.items():
        if node == own:
            continue
        shared = generate_shared_key(bytes_to_private_key(clients[own].secret), bytes_to_public_key(peer.public))
        pairwise = pseudo_rand_gen(shared, MODULUS, shapes)
        vector = parameters_addition(vector, pairwise) if own > node else parameters_subtraction(vector, pairwise)
    return parameters_mod(vector, MODULUS)


def server_unmask(clients: int, dimension: int, dropped: int, threshold: int) -> dict[str, Any]:
    """The server takes all masks off: ``unmask_stage`` from the collected shares to the modulus."""
    held = unmasking(clients, dimension, dropped, threshold)
    started = time.perf_counter()
    opened = unmask(held)
    return answer(time.perf_counter() - started, held.masked, opened)


def unmask(held: Unmasking) -> Vector:
    """The loop of ``SecAggPlusWorkflow.unmask_stage``, on the complete graph."""
    vector = held.masked
    for node, shares in held.shares.items():
        secret = combine_shares(shares)
        if node in held.active:
            own = pseudo_rand_gen(secret, MODULUS, get_parameters_shape(vector))
            vector = parameters_subtraction(vector, own)
            continue
        for neighbour, peer in held.clients.items():
            if neighbour == node:
                continue
            shared = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(peer.public))
            pairwise = pseudo_rand_gen(shared, MODULUS, get_parameters_shape(vector))
            add = node > neighbour
            vector = parameters_addition(vector, pairwise) if add else parameters_subtraction(vector, pairwise)
    return parameters_mod(vector, MODULUS)


@cache
def cohort(count: int) -> dict[int, Client]:
    """Clients by node id, with the keys of ``_setup`` and the seed of ``_share_keys``."""
    pairs = [generate_key_pairs() for _ in range(count)]
    return {
        node: Client(private_key_to_bytes(secret), public_key_to_bytes(public), os.urandom(32))
        for node, (secret, public) in enumerate(pairs, 1)
    }


@cache
def unmasking(count: int, dimension: int, dropped: int, threshold: int) -> Unmasking:
    """Shares as the survivors would send them, and the masked sum. The first ``dropped`` clients sent no vector."""
    clients = cohort(count)
    active = frozenset(range(dropped + 1, count + 1))
    shares = {}
    for node, client in clients.items():
        dealt = create_shares(client.seed if node in active else client.secret, threshold, count)
        shares[node] = [dealt[holder - 1] for holder in sorted(active)]
    return Unmasking(clients, active, shares, masked_sum(clients, active, dimension))


def masked_sum(clients: dict[int, Client], active: frozenset[int], dimension: int) -> Vector:
    """The sum of what active clients send; masks between two of them cancel and are left out."""
    dropped = {node: client for node, client in clients.items() if node not in active}
    vector = quantized(dimension, len(active))
    for node in sorted(active):
        vector = mask({**dropped, node: clients[node]}, node, vector)
    return vector


def quantized(dimension: int, clients: int) -> Vector:
    """The sum of so many equal quantised vectors, each led by its factor, as Flower sends it."""
    values = np.arange(dimension, dtype=np.int64) * 2654435761 % QUANTIZATION
    return factor_combine(clients, [values * clients])


def negated(vector: Vector) -> Vector:
    """The vector's additive inverse."""
    return parameters_mod([-part for part in vector], MODULUS)


def answer(seconds: float, hidden: Vector, opened: Vector) -> dict[str, Any]:
    """What the other process reads: seconds, and checksums without the factor."""
    return {"seconds": seconds, "hidden": checksum(hidden), "opened": checksum(opened)}


def checksum(vector: Vector) -> int:
    """CRC-32 of the values as 32-bit little-endian words."""
    return zlib.crc32(vector[1].astype("<u4").tobytes())


def main() -> None:
    """Answer until standard input ends."""
    print(json.dumps(f"Flower {version('flwr')}"), flush=True)
    works = {"ClientMask": client_mask, "ServerUnmask": server_unmask}
    for line in sys.stdin:
        work = json.loads(line)
        print(json.dumps(works[work.pop("type")](**work)), flush=True)


if __name__ == "__main__":
    main()
