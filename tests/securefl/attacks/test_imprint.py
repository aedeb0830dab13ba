"""A planted layer against masks, noise, encryption, and owners who allow no such layer."""

from __future__ import annotations

import numpy as np
import pytest

from securefl import vector
from securefl.attacks.imprint import _data as data
from securefl.attacks.imprint import attacked, defended, handed_out, planted, small, verdict, wide
from securefl.attacks.pictures import identified
from securefl.attacks.scene import Scene
from securefl.attacks.settings import setting


@pytest.mark.attack("imprint by a planted layer")
@pytest.mark.parametrize("protected", ["record-dp", "client-dp", "ckks"])
def test_a_planted_layer_hands_out_records_until_noise_or_encryption_is_there(protected: str) -> None:
    assert identified(*attacked(setting("plain"), 8)).mean() > 0.8
    assert not identified(*attacked(setting(protected), 8)).any()


def test_masks_do_not_stop_it() -> None:
    assert identified(*attacked(setting("secagg"), 8)).mean() > 0.5


@pytest.mark.attack("imprint against owners with an allow-list")
def test_owners_with_an_allow_list_send_nothing_and_still_train_what_they_allow() -> None:
    refused, allowed = defended(setting("secagg"))
    assert (refused.value, allowed.value) == (0.0, 1.0)


def test_the_planted_model_is_of_the_announced_architecture_and_measures_brightness() -> None:
    module = vector.build(wide, 0)
    vector.load(module, planted())
    rows = next(module.parameters()).detach().numpy()
    assert (rows == rows[0, 0]).all()
    assert vector.architecture(vector.build(small, 0)) != vector.architecture(module)


def test_each_of_few_records_that_are_alone_in_their_bins_comes_out_exactly() -> None:
    originals, guesses = attacked(setting("plain"), 1)
    assert identified(originals, guesses).all()
    assert len(guesses) == len(originals)  # empty bins are seen to be empty


def test_an_update_that_moved_nothing_hands_out_the_mean_picture() -> None:
    assert handed_out(np.zeros(len(planted()))).shape == (1, 64)


def test_a_server_without_the_model_cannot_plant_one() -> None:
    scene = Scene(setting("ckks"), wide, data(1), mechanism=setting("ckks").mechanism(), learning_rate=1.0)
    with pytest.raises(ValueError, match="cannot choose the model"):
        scene.server.announce(planted())


def test_the_verdict_is_of_the_share() -> None:
    assert [verdict(share) for share in (1.0, 0.25, 0.2, 0.009, 0.0)] == ["red", "red", "amber", "green", "green"]
