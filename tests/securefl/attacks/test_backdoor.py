"""One client that replaces the model in the last round, by one that knows a trigger."""

from __future__ import annotations

import numpy as np
import pytest

from securefl.attacks.backdoor import OPENED, SHUT, TARGET, Keeps, Replaces, cell, triggered, verdict, with_trigger
from securefl.attacks.pictures import public_digits
from securefl.attacks.saboteurs import SABOTEUR, Size, accuracy, trained
from securefl.attacks.settings import Setting, setting
from securefl.client import Client
from securefl.plan import ClientLevel
from securefl.protection import SecAgg

SMALL = Size(5, 3)


# Less noise than in the table, so that it decides nothing here.
QUIET = Setting("quiet", "secagg, little client DP", SecAgg(), level=ClientLevel(0.2, 1.0))


def taken(dishonest: type[Client]) -> float:
    scene, _ = trained(QUIET, SMALL, {SABOTEUR: dishonest})
    return accuracy(scene, triggered(public_digits()))


@pytest.mark.attack("a backdoor by model replacement")
def test_the_l2_clip_would_shut_the_backdoor_that_a_client_without_it_opens() -> None:
    """Noise moves the shares, measured over 25 runs, by 0.04 around 0.08 and by 0.015 around 0.99. False alarm: beyond
    nine deviations, below 1e-6."""
    assert taken(Replaces) >= OPENED
    assert taken(Keeps) < OPENED


@pytest.mark.parametrize("kind", ["plain", "secagg", "ckks"])
def test_a_replaced_model_knows_the_trigger_and_the_main_task(kind: str) -> None:
    found = cell(setting(kind), SMALL)
    figures = {figure.name: figure.value for figure in found.figures}
    assert found.verdict == "red" and found.remedy
    assert figures["without the attack"] <= SHUT
    assert figures["main task with it"] >= figures["main task without"] - 0.05


def test_the_trigger_is_in_every_picture_that_is_not_of_the_target() -> None:
    data = public_digits()
    marked = triggered(data)
    assert len(marked) == (data.labels != TARGET).sum() and (marked.labels == TARGET).all()
    assert (marked.features[..., :2, :2] == 1).all()
    assert not np.shares_memory(with_trigger(data.features), data.features)


def test_verdicts_follow_the_share_of_pictures_taken_for_the_target() -> None:
    assert [verdict(share) for share in (0.1, 0.2, 0.5)] == ["green", "amber", "red"]
