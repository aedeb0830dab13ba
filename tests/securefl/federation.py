"""A small real federation for tests: five clients, forty records each, a linear model of 22 parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from protocols.base import Exchange, Messages
from securefl import CKKS, SGD, CKKSUnmasked, Client, Dataset, Ledger, LocalOptimizer, Plain, SecAgg, Server, Store
from securefl.account import load_identity
from securefl.plan import PrivacyTerms
from securefl.privacy.ledger import Owner
from securefl.privacy.mechanism import Budget, Training, Unit
from securefl.protection import Protection
from securefl.round import enrol

RUN = "0123"
NAMES = ("ada", "bob", "cyd", "dan", "eve")
CELLS: Mapping[str, Protection] = {cell.kind: cell for cell in (Plain(), SecAgg(), CKKSUnmasked(), CKKS())}
# Every record in every step and no noise: training is deterministic, so that all cells must reach one model.
WHOLE = SGD(sampling_rate=1.0, steps=2)


def model() -> nn.Module:
    return nn.Linear(10, 2)


def records(seed: int, count: int = 40) -> Dataset:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, 10)).astype(np.float32)
    return Dataset(features, (features[:, 0] + features[:, 1] > 0).astype(np.int64))


TEST = records(99, 200)


def client(
    name: str,
    budget: Budget | None = None,
    folder: Path | None = None,
    data: Dataset | None = None,
    factory: Callable[[], nn.Module] = model,
    held_out: Dataset | None = None,
    seed: int | None = None,
    unit: Unit = "record",
) -> Client:
    """A client whose ledger and store are files where a folder is given."""
    store = Store(folder / f"{name}.store") if folder else Store()
    ledger = None
    if folder and budget:
        ledger = Ledger(folder / f"{name}.ledger", load_identity(store), Owner(name, "toy", unit), budget)
    own = data or records(NAMES.index(name))
    return Client(
        name, own, factory, budget=budget, test=TEST, ledger=ledger, store=store, held_out=held_out, seed=seed
    )


def clients(names: Sequence[str] = NAMES, budget: Budget | None = None, folder: Path | None = None) -> list[Client]:
    return [client(name, budget, folder) for name in names]


def server(
    cell: str = "secagg",
    mechanism: Training = WHOLE,
    folder: Path | None = None,
    weights: Mapping[str, float] | None = None,
    run: str = RUN,
    shield: Protection | None = None,
    privacy: PrivacyTerms = PrivacyTerms(),  # noqa: B008
    rounds: int = 8,
) -> Server:
    store = Store(folder / "server.store") if folder else None
    return Server(
        model,
        shield or CELLS[cell],
        mechanism,
        LocalOptimizer(0.5),
        rounds=rounds,
        weights=weights,
        test=TEST,
        run=run,
        store=store,
        privacy=privacy,
    )


def enrolled(cell: str = "secagg", mechanism: Training = WHOLE, **more: object) -> tuple[Server, list[Client]]:
    """A server and clients that have pinned each other and, under CKKS, hold the key."""
    coordinator, owners = server(cell, mechanism), clients(**more)  # type: ignore[arg-type]
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    return coordinator, owners


def direct(
    owners: Sequence[Client], tamper: Callable[[str, bytes], bytes | None] = lambda name, reply: reply
) -> Exchange:
    """All clients in this process; ``tamper`` may change a reply or, with None, lose it."""
    by_name = {owner.name: owner for owner in owners}

    def exchange(requests: Messages) -> Iterator[tuple[str, bytes]]:
        for name, request in requests.items():
            if name in by_name and (reply := tamper(name, by_name[name].handle(request))) is not None:
                yield name, reply

    return exchange


def final_model(coordinator: Server, owners: Sequence[Client]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The global model, from whoever can read it."""
    found = coordinator.model()
    if found is None:
        found = next(
            owner.model(coordinator.run) for owner in owners if owner.model_round(RUN) == coordinator.round_number
        )
    assert found is not None
    return found


def random_bytes(count: int) -> bytes:
    return os.urandom(count)
