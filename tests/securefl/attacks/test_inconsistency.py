"""Clients that are given different models: their updates add up only where nothing binds masks to the model."""

from __future__ import annotations

import msgspec
import pytest

import securefl.client
import securefl.server
from protocols.aggregation.session import Roster, Terms
from securefl.announcement import terms
from securefl.attacks import inconsistency
from securefl.attacks.inconsistency import cell, federated, suppressed_sum
from securefl.attacks.scene import unchanged
from securefl.attacks.settings import setting
from securefl.attacks.updates import KNOWN, odd_one_out, recovered, true_update
from securefl.errors import RoundFailed
from securefl.plan import Plan


def blind(plan: Plan, roster: Roster, run: str, round: int, attempt: int, tag: bytes, key_id: bytes) -> Terms:
    """Weak: the session does not say which model its members were given."""
    return terms(plan, roster, run, round, attempt, b"", key_id)


def known(kind: str) -> float:
    """The share of the victim's hidden layers that the sum of silenced clients has; 0 where there is no sum."""
    scene = federated(setting(kind))
    start = scene.server.model()
    assert start is not None
    truth = true_update(inconsistency.network, start, odd_one_out()["victim"])[:-10]
    summed = suppressed_sum(scene)
    return 0.0 if summed is None else recovered(summed[:-10], truth)


@pytest.mark.attack("model inconsistency in a federation")
def test_silenced_clients_leave_the_victims_update_only_where_the_model_is_not_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as weak:
        for module in (securefl.client, securefl.server):
            weak.setattr(module, "terms", blind)
        assert known("secagg") >= KNOWN
    assert known("secagg") == 0.0


@pytest.mark.parametrize("kind", ["secagg", "ckks", "client-dp"])
def test_the_attempt_ends_before_anybody_has_trained(kind: str) -> None:
    scene = federated(setting(kind))
    with pytest.raises(RoundFailed) as caught:
        scene.round()
    assert not scene.attempted() and "victim" not in caught.value.lost
    reasons = set(caught.value.lost.values())
    assert reasons == {"refused: behind"} if kind == "ckks" else all("another session" in why for why in reasons)
    scene.rewrite = unchanged
    assert len(scene.round().outcome.contributors) == 5


def test_only_hidden_units_are_dead_in_what_the_others_are_given() -> None:
    scene = federated(setting("secagg"))
    start = scene.server.model()
    assert start is not None
    assert (inconsistency.dead(start) != start).sum() == inconsistency.UNITS


def test_cells_say_what_was_measured() -> None:
    plain, masked = cell(setting("plain"), 4), cell(setting("secagg"), 4)
    assert (plain.verdict, masked.verdict) == ("red", "green") and plain.remedy and not masked.remedy
    assert msgspec.json.decode(msgspec.json.encode(plain), type=type(plain)) == plain
