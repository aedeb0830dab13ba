"""A federation whose server is in the adversary's hands: real clients, the real protocol, every byte recorded.

A passive server reads what it was sent. An active one plants models and rewrites requests: it holds its own state, and
no client's, unless a client works with it and hands over its store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from protocols.aggregation.messages import Envelope, Header, InputRequest
from protocols.base import Exchange, Messages
from protocols.encoding import Encoding, Upload
from protocols.errors import DecryptionFailed, MalformedMessage
from protocols.ring import RingVector
from protocols.wire import decode, kind
from securefl import protection, vector
from securefl.announcement import public_tag
from securefl.attacks.settings import BUDGET, Setting
from securefl.client import Client
from securefl.data import Dataset
from securefl.engines.local import LocalEngine
from securefl.holding import Holding
from securefl.outcome import Outcome
from securefl.plan import LocalOptimizer, Plan
from securefl.policy import Policy
from securefl.privacy.mechanism import Training
from securefl.round import enrol
from securefl.server import Server
from securefl.store import Store
from securefl.strategy import divisor

Vector = NDArray[np.float64]
Rewrite = Callable[[str, bytes], bytes]
"""From a client's name and the request that is due to the one that the adversary sends it instead."""


def unchanged(name: str, request: bytes) -> bytes:
    """What a passive server sends."""
    return request


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread, then as before: with models this small, several mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class View:
    """What the server has after one round. ``before``, ``after``: the global parameters, where it can read them.

    ``uploads``: each contributor's vector of exchange 2 as it came, with what a key holder needs to open it.
    """

    plan: Plan
    outcome: Outcome
    before: NDArray[np.float32] | None
    after: NDArray[np.float32] | None
    uploads: Mapping[str, tuple[RingVector, Upload]] = field(repr=False)

    @property
    def mean_update(self) -> Vector | None:
        """The contributors' mean update, shape (dimension,); None where the server cannot read it."""
        if self.before is None or self.after is None:
            return None
        return self.after.astype(np.float64) - self.before

    def update_of(self, client: str, encoding: Encoding | None = None) -> Vector | None:
        """What the adversary makes of one client's upload, by itself, or with a key holder's ``encoding``.

        Where there are masks it is what the masks leave of it, which is uniform; None for what does not open.
        """
        if client not in self.uploads:
            return None
        total, upload = self.uploads[client]
        coder = encoding or _open(self.plan)
        if coder is None:
            return None
        weight = self.plan.weights[self.plan.clients.index(client)]
        try:
            return coder.decode(total.copy(), [upload])[: self.plan.dimension] / weight
        except DecryptionFailed:
            return None


class MaliciousServer(Server):
    """A server that announces whatever it likes."""

    def announce(self, parameters: NDArray[np.float32]) -> None:
        """Go on from these parameters. Raises ``ValueError`` where the server has no model to put them into."""
        if self.vector is None:
            raise ValueError("under CKKS the server cannot choose the model")
        planted = self.vector.copy()
        planted[: self.plan.dimension] = parameters
        self._kept.save(model=planted.astype("<f4").tobytes(), tag=public_tag(planted.astype("<f4").tobytes()))


class Scene:
    """One federation under one setting. ``data``: by client, each of weight 1. ``policy``: every owner's, if not the
    default one. ``rewrite`` is what an active server does to its requests; ``dishonest``: the classes of clients that
    deviate.
    """

    def __init__(
        self,
        setting: Setting,
        model: Callable[[], nn.Module],
        data: Mapping[str, Dataset],
        *,
        mechanism: Training,
        learning_rate: float,
        rounds: int = 1,
        policy: Policy | None = None,
        rewrite: Rewrite = unchanged,
        seed: int = 0,
        test: Dataset | None = None,
        dishonest: Mapping[str, type[Client]] = MappingProxyType({}),
    ) -> None:
        self.setting = setting
        self.model = model
        self.rewrite = rewrite
        self._seed = seed
        self._stores = {name: Store() for name in data}
        unit, budget = setting.terms.unit, BUDGET if setting.private else None
        self.clients = {
            name: dishonest.get(name, Client)(
                name, own, model, budget=budget, policy=policy, test=test, unit=unit, store=self._stores[name]
            )
            for name, own in sorted(data.items())
        }
        self.server = MaliciousServer(
            model,
            setting.protection,
            mechanism,
            LocalOptimizer(learning_rate),
            rounds=rounds,
            privacy=setting.terms,
            test=test,
            seed=seed,
            job="attack",
        )
        enrol(self.server, list(self.clients.values()))
        self._uploads: dict[str, tuple[RingVector, Upload]] = {}
        self._exchange = self._spied(LocalEngine(self.clients).exchange(0))
        self.server.set_up(self._exchange)

    @property
    def plan(self) -> Plan:
        return self.server.plan

    def round(self, without: tuple[str, ...] = ()) -> View:
        """One round as the server ran it. Raises ``RoundFailed`` where too few clients went along."""
        self._uploads.clear()
        before = self.server.model()
        with one_thread():
            outcome = self.server.round(self._exchange, without)
        return View(self.plan, outcome, before, self.server.model(), dict(self._uploads))

    def attempted(self) -> Mapping[str, tuple[RingVector, Upload]]:
        """What clients uploaded in the last attempt, also if the round failed."""
        return dict(self._uploads)

    def model_of(self, client: str) -> NDArray[np.float32] | None:
        """The global parameters as a client has them, who works with the adversary."""
        return self.server.model() if self.server.model() is not None else self.clients[client].model(self.server.run)

    def key_of(self, client: str) -> Encoding | None:
        """What opens ciphertexts, handed over by a client who works with the adversary; None without a key."""
        if not self.setting.protection.sealed:
            return None
        held = Holding(self._stores[client], self.server.run, self.plan.digest())
        return protection.encoding(self.plan, held.record.keys[0].to_bytes())

    def module(self, parameters: NDArray[np.float32] | None = None) -> nn.Module:
        """The model, with its first or the given parameters."""
        module = vector.build(self.model, self._seed)
        if parameters is not None:
            vector.load(module, parameters)
        return module

    def total(self, view: View) -> Vector | None:
        """The sum of the contributors' updates; None where the server cannot read it."""
        mean, counted = view.mean_update, view.outcome.contributors
        if self.plan.privacy.client_level is not None:  # there the divisor is the same whoever contributed
            counted = self.plan.clients
        return None if mean is None else mean * divisor(self.plan, counted)

    def _spied(self, exchange: Exchange) -> Exchange:
        def spied(requests: Messages) -> Iterator[tuple[str, bytes]]:
            sent = {name: self.rewrite(name, request) for name, request in requests.items()}
            for name, reply in exchange(sent):
                if kind(requests[name]) == InputRequest.KIND:
                    self._note(name, reply)
                yield name, reply

        return spied

    def _note(self, name: str, reply: bytes) -> None:
        layout = protection.layout(self.plan)
        try:
            opened = decode(reply, Envelope)
            header = msgspec.msgpack.decode(opened.signed.header, type=Header)
            received = layout.ring.unpack(opened.parts[0], layout.length)
        except (MalformedMessage, msgspec.DecodeError):  # a refusal, or a complaint
            return
        self._uploads[name] = received.copy(), Upload(header.session, name, header.seed)


def _open(plan: Plan) -> Encoding | None:
    """The encoding, where it takes no key."""
    return None if protection.KINDS[plan.protection].sealed else protection.encoding(plan, None)


VICTIM: Final = "victim"


def federation(victim: Dataset, others: list[Dataset]) -> dict[str, Dataset]:
    """Records by client: the victim's, and those of others under made-up names."""
    return {VICTIM: victim, **{f"other-{index:02d}": data for index, data in enumerate(others)}}
