"""Two sums over one model, the second without the victim: refused by those who are in both; what is not, is shown."""

from __future__ import annotations

import numpy as np
import pytest

from protocols.aggregation.server import Aggregate
from protocols.aggregation.session import Terms
from protocols.base import Exchange
from securefl import vector
from securefl.attacks.collusion import COLLUDER
from securefl.attacks.difference import HAIR, NAMES, cell, differences, federated
from securefl.attacks.scene import VICTIM, Scene
from securefl.attacks.settings import setting
from securefl.attacks.updates import HINTED, KNOWN, linear, odd_one_out, recovered, true_update
from securefl.errors import RoundFailed
from securefl.outcome import Outcome


@pytest.mark.attack("the difference of two sums over one model")
def test_a_second_sum_over_a_model_is_refused_by_those_who_helped_to_open_the_first() -> None:
    undefended = differences(setting("secagg"), "never", 0.0)
    assert undefended.known >= KNOWN and not undefended.refused
    defended = differences(setting("secagg"), "round", 0.0)
    assert defended.known == 0.0 and defended.refused


@pytest.mark.attack("the difference of two sums over nearly one model")
def test_a_model_moved_by_a_hair_is_another_round_unless_the_cohort_is_the_same_in_the_plan() -> None:
    assert differences(setting("secagg"), "round", HAIR).known >= KNOWN
    assert differences(setting("secagg"), "plan", HAIR).refused


@pytest.mark.attack("the difference of two attempts at one round")
def test_a_second_attempt_at_a_round_that_had_its_sum_is_refused() -> None:
    for rule, refused in (("never", False), ("round", True)):
        scene = federated(setting("secagg"), rule)  # type: ignore[arg-type]
        start = scene.server.model()
        assert start is not None
        scene.round()
        scene.server._kept.save(round=0)  # the server says that the first attempt came to nothing,
        scene.server.announce(start * 2)  # and would even have other parameters in the second
        if refused:
            with pytest.raises(RoundFailed) as caught:
                scene.round(without=(VICTIM,))
            assert set(caught.value.lost.values()) == {"refused: policy"} and not scene.attempted()
        else:
            assert VICTIM not in scene.round(without=(VICTIM,)).outcome.contributors


def test_the_victim_may_not_join_a_second_sum_either() -> None:
    """It is not in the first and could notice nothing: the others do, who open no sum with it."""
    scene = federated(setting("secagg"), "round")
    start = scene.server.model()
    assert start is not None
    scene.round(without=(VICTIM,))
    scene.server.announce(start)
    with pytest.raises(RoundFailed) as caught:
        scene.round()
    assert {name for name, why in caught.value.lost.items() if why == "refused: policy"} == set(scene.clients) - {
        VICTIM
    }


def hoarded(scene: Scene) -> list[Aggregate]:
    """The sums that the server forms from now on and hands out to nobody."""
    sums: list[Aggregate] = []

    def hoard(agreed: Terms, aggregate: Aggregate, formed: Outcome, exchange: Exchange) -> Outcome:
        sums.append(aggregate)
        return formed

    scene.server._apply = hoard  # type: ignore[method-assign]
    return sums


@pytest.mark.attack("the difference of two sums under CKKS, with a key holder")
def test_a_server_with_a_key_gets_no_second_ciphertext_sum_of_a_round() -> None:
    scene = federated(setting("ckks"), "never")
    truth = true_update(linear, vector.flatten(scene.module()), odd_one_out()[VICTIM])
    sums, key = hoarded(scene), scene.key_of(COLLUDER)
    scene.round()
    scene.round(without=(VICTIM,))
    assert key is not None
    more, less = (key.decode(total.sum.total, total.sum.uploads) for total in sums)
    assert recovered(more - less, truth) >= KNOWN
    scene = federated(setting("ckks"), "round")
    hoarded(scene)
    scene.round()
    with pytest.raises(RoundFailed) as caught:
        scene.round(without=(VICTIM,))
    assert set(caught.value.lost.values()) == {"refused: policy"}


def test_noise_on_the_sums_hides_their_difference() -> None:
    """Of 650 coordinates with noise 18 times the clip, the share is above 0.25 with less than 1e-30."""
    assert differences(setting("client-dp"), "never", 0.0).known < HINTED


def test_with_client_level_noise_a_sum_has_the_same_divisor_whoever_contributed() -> None:
    scene = federated(setting("client-dp"), "round")
    view = scene.round(without=(VICTIM,))
    total, mean = scene.total(view), view.mean_update
    assert total is not None and mean is not None and np.allclose(total, 5 * mean)


def test_cells_follow_what_owners_demand() -> None:
    default, once, steady = (cell(setting("secagg"), rule) for rule in NAMES)
    assert [found.verdict for found in (default, once, steady)] == ["red", "red", "green"]
    refused = [found.figures[-1].value for found in (default, once, steady)]
    assert refused == [0, 1, 2] and default.remedy and not steady.remedy
