"""Clients of one process that are trained in one pass: each charges, fails and answers as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from protocols.aggregation.messages import InputRequest, Refusal
from protocols.base import Exchange
from protocols.wire import decode, encode, kind
from securefl import DPSGD, SGD, Budget, Client, Dataset, LocalOptimizer, Server, training
from securefl.engines.local import LocalEngine, Silence
from securefl.joint import Joint
from securefl.plan import ClientLevel, HeldOut, PrivacyTerms
from securefl.privacy.mechanism import Training
from securefl.releases import releases
from securefl.round import enrol
from securefl.together import Together
from tests.securefl.federation import CELLS, NAMES, RUN, TEST, client, final_model, model, records

BUDGET = Budget(100.0, 1e-5)
PRIVATE = DPSGD(noise_multiplier=2.0, sampling_rate=0.3, steps=3)
SEEDED = PrivacyTerms(simulated=True)
BROKEN = Dataset(np.full((40, 10), 3e37, np.float32), np.arange(40) % 2)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 2))


def parties(
    cell: str = "secagg",
    mechanism: Training = PRIVATE,
    privacy: PrivacyTerms = SEEDED,
    factory=network,
    optimizer: LocalOptimizer = LocalOptimizer(0.5),  # noqa: B008
    data: Mapping[str, Dataset] | None = None,
) -> tuple[Server, list[Client]]:
    """Clients of different sizes whose samples and noise come from seeds."""
    server = Server(factory, CELLS[cell], mechanism, optimizer, rounds=4, test=TEST, run=RUN, privacy=privacy)
    budget = BUDGET if isinstance(mechanism, DPSGD) or privacy.unit == "client" else None
    owners = [
        client(
            *(name, budget, None, (data or {}).get(name, records(place, 30 + 9 * place)), factory),
            held_out=records(50 + place, 20),
            seed=place if privacy.simulated else None,
            unit=privacy.unit,
        )
        for place, name in enumerate(NAMES)
    ]
    return server, owners


def started(server: Server, owners: Sequence[Client], together: bool, *faults: Silence) -> Exchange:
    """The exchange of a round in which clients are trained together, or each alone."""
    by_name = {owner.name: owner for owner in owners}
    enrol(server, owners)
    engine = LocalEngine(by_name, faults, Joint(by_name).ahead) if together else LocalEngine(by_name, faults)
    server.set_up(engine.exchange(0))
    return engine.exchange(1)


def charges(owners: Sequence[Client]) -> list[int]:
    return [len(owner.account.ledger.entries()) for owner in owners]


@pytest.fixture
def nobody_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training alone fails, so that a contribution is proof of training together."""

    def fail(*_: object, **__: object) -> NDArray[np.float32]:
        raise AssertionError("trained alone")

    monkeypatch.setattr(training, "train", fail)


# ---- as if alone


@pytest.mark.parametrize("cell", CELLS)
def test_the_model_is_that_of_training_one_after_the_other(cell: str) -> None:
    models = []
    for together in (False, True):
        server, owners = parties(cell)
        outcome = server.round(started(server, owners, together))
        assert outcome.contributors == NAMES
        assert charges(owners) == [1] * 5
        models.append(final_model(server, owners))
    np.testing.assert_allclose(*models, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("mechanism", "privacy"),
    [
        (SGD(0.3, 3), PrivacyTerms(ClientLevel(3.0, 1e-3), unit="client", simulated=True)),
        (PRIVATE, PrivacyTerms(held_out=HeldOut(2.0), simulated=True)),
    ],
)
def test_what_comes_behind_training_is_the_same(mechanism: Training, privacy: PrivacyTerms) -> None:
    """Clips, noise and measures: noise of held-out metrics is read from where training left off."""
    models = []
    for together in (False, True):
        server, owners = parties("plain", mechanism, privacy)
        server.round(started(server, owners, together))
        models.append(server.vector)
    assert models[0] is not None and models[1] is not None
    np.testing.assert_allclose(*models, rtol=0, atol=5e-5)


@pytest.mark.usefixtures("nobody_alone")
@pytest.mark.parametrize("cell", ["plain", "secagg"])
def test_the_embedded_engine_trains_together(cell: str) -> None:
    server, owners = parties(cell)
    together = Together(owners)
    together.enrol(server)
    assert [server.round(together.exchange(round)).contributors for round in (1, 2)] == [NAMES] * 2
    assert charges(owners) == [2] * 5


@pytest.mark.usefixtures("nobody_alone")
@pytest.mark.parametrize(
    ("factory", "optimizer"),
    [
        (lambda: nn.Sequential(nn.Linear(10, 2), nn.Dropout(0.1)), LocalOptimizer(0.5)),
        (network, LocalOptimizer(0.5, proximal=0.1)),
    ],
    ids=["dropout", "proximal"],
)
def test_what_does_not_fit_is_trained_alone(factory, optimizer: LocalOptimizer) -> None:
    server, owners = parties("plain", factory=factory, optimizer=optimizer)
    with pytest.raises(Exception, match="refused: failed"):
        server.round(started(server, owners, together=True))
    assert "trained alone" in owners[0].errors[-1]
    assert charges(owners) == [1] * 5


def test_who_has_another_model_code_is_trained_alone_and_takes_part() -> None:
    server, owners = parties("plain")
    owners[2]._material = replace(owners[2]._material, model=lambda: network())
    alone, others = parties("plain")
    assert server.round(started(server, owners, together=True)).contributors == NAMES
    alone.round(started(alone, others, together=False))
    np.testing.assert_allclose(final_model(server, owners), final_model(alone, others), rtol=0, atol=2e-5)


# ---- charges


def test_everybody_has_charged_before_anybody_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    from securefl.training import cohort

    server, owners = parties()
    exchange, seen, real = started(server, owners, together=True), [], cohort.train

    def watched(*given, **more):
        seen.append(charges(owners))
        return real(*given, **more)

    monkeypatch.setattr(cohort, "train", watched)
    server.round(exchange)
    assert seen == [[1] * 5]


def test_who_cannot_pay_any_more_drops_out_and_the_others_go_on() -> None:
    server, owners = parties()
    exchange = started(server, owners, together=True)

    def spends(requests: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
        """Between the check at a round's start and the charge, another job takes all that is left."""
        if kind(next(iter(requests.values()))) == InputRequest.KIND:
            account = owners[1].account
            left = account.ledger.affordable(releases(server.plan))
            costly = DPSGD(PRIVATE.noise_multiplier, PRIVATE.sampling_rate, PRIVATE.steps * left)
            account.ledger.charge("other", 1, 1, (costly,), account.fingerprint, simulated=True)
        return list(exchange(requests))

    outcome = server.round(spends)
    assert outcome.dropped == {"bob": "refused: budget"}
    assert charges(owners) == [1] * 5  # bob's is the other job's


def test_who_is_silent_is_neither_charged_nor_trained() -> None:
    server, owners = parties()
    outcome = server.round(started(server, owners, True, Silence("cyd", 2, 1)))
    assert "cyd" in outcome.dropped
    assert charges(owners) == [1, 1, 0, 1, 1]


def test_a_request_that_is_refused_costs_nothing() -> None:
    server, owners = parties()
    exchange = started(server, owners, together=True)

    def garbled(requests: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
        first = next(iter(requests.values()))
        if kind(first) == InputRequest.KIND:
            spoilt = {name: encode(InputRequest(b"\x01", ())) for name in requests}
            replies = list(exchange(spoilt))
            assert {decode(reply, Refusal).reason for _, reply in replies} == {"protocol"}
            return replies
        return list(exchange(requests))

    with pytest.raises(Exception, match="needed"):
        server.round(garbled)
    assert charges(owners) == [0] * 5


def test_a_second_attempt_is_charged_and_trained_anew() -> None:
    server, owners = parties()
    together = Together(owners, [Silence(name, 3, 1) for name in NAMES])
    together.enrol(server)
    for _ in range(2):
        with pytest.raises(Exception, match="needed"):
            server.round(together.exchange(1))
    assert server.round(together.exchange(2)).contributors == NAMES
    assert charges(owners) == [3] * 5


def test_a_client_that_is_asked_for_nothing_prepares_nothing() -> None:
    server, owners = parties()
    enrol(server, owners)
    for request in (b"", b"SF\x01\x02", encode(InputRequest(b"", ()))):
        assert owners[0].prepare(request, lambda material, plan: True) is None
    assert charges(owners) == [0] * 5


def test_one_alone_is_asked_as_ever() -> None:
    """As in an actor, which is given one request at a time: its request is not looked at twice."""

    class Alone:
        def prepare(self, request: bytes, suits: object) -> None:
            raise AssertionError("prepared")

    assert list(Joint({"a": Alone()}).ahead([("a", b"request")])) == [("a", b"request")]


# ---- failures


def test_an_update_with_nan_is_its_client_s_dropout() -> None:
    server, owners = parties("secagg", SGD(1.0, 40), factory=model, data={"bob": BROKEN})
    outcome = server.round(started(server, owners, together=True))
    assert outcome.dropped == {"bob": "refused: failed"}
    assert "NaN or infinity" in owners[1].errors[-1]


def test_with_client_level_privacy_nobody_stays_away() -> None:
    privacy = PrivacyTerms(ClientLevel(1.0, 0.5), unit="client", simulated=True)
    server, owners = parties("secagg", SGD(1.0, 40), privacy, factory=model, data={"bob": BROKEN})
    assert server.round(started(server, owners, together=True)).contributors == NAMES
    assert "nothing but noise was sent" in owners[1].errors[-1]


def test_labels_that_the_model_has_not_are_one_client_s_refusal() -> None:
    server, owners = parties("plain")
    exchange = started(server, owners, together=True)
    data = owners[3]._material.data
    owners[3]._material = replace(owners[3]._material, data=Dataset(data.features, data.labels + 5))
    assert server.round(exchange).dropped == {"dan": "refused: failed"}
    assert all(not owner.errors for owner in owners if owner.name != "dan")


def test_replies_come_as_soon_as_what_fits_in_memory_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more updates are held than clients that are trained at once."""
    from securefl.training import cohort

    monkeypatch.setattr(cohort, "most", lambda dimension: 2)
    server, owners = parties("plain")
    exchange = started(server, owners, together=True)

    def counted(requests: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
        replies = []
        for reply in exchange(requests):
            replies.append(reply)
            if kind(next(iter(requests.values()))) == InputRequest.KIND:
                seen.append(sum(charges(owners)))
        return replies

    seen: list[int] = []
    assert server.round(counted).contributors == NAMES
    assert seen == [2, 2, 4, 4, 5]
