"""What travels as "the model": parameters, and behind them what else moves with each round."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import MalformedMessage
from securefl import global_state, protection
from securefl.announcement import Announcement
from securefl.errors import BadInput
from securefl.global_state import Measured
from securefl.plan import AdaptiveClip, ClientLevel, HeldOut, Plan, PrivacyTerms
from tests.securefl.test_plan import plan

ADAPTIVE = AdaptiveClip(0.5, 0.2, 5.0)
FIXED_LEVEL = ClientLevel(1.0, 2.0)
LEVEL = ClientLevel(1.0, 2.0, ADAPTIVE)
MEASURED = HeldOut(5.0)
TERMS = {
    "nothing": (PrivacyTerms(), ()),
    "a fixed clip": (PrivacyTerms(FIXED_LEVEL, unit="client"), ()),
    "an adaptive clip": (PrivacyTerms(LEVEL, unit="client"), ("clip",)),
    "metrics": (PrivacyTerms(held_out=MEASURED), ("accuracy", "loss")),
    "exact metrics": (PrivacyTerms(held_out=HeldOut(None)), ("accuracy", "loss")),
    "all": (PrivacyTerms(LEVEL, MEASURED, "client"), ("clip", "accuracy", "loss")),
}
EVERY = pytest.mark.parametrize(("terms", "names"), TERMS.values(), ids=TERMS)
PARAMETERS = np.array([0.25, -1.5], np.float32)


def of(terms: PrivacyTerms) -> Plan:
    return plan(privacy=terms)


@EVERY
def test_what_follows_the_parameters_is_what_the_plan_moves(terms: PrivacyTerms, names: tuple[str, ...]) -> None:
    assert global_state.extras(of(terms)) == names
    assert global_state.length(of(terms)) == 2 + len(names)


@EVERY
def test_the_first_vector_begins_with_the_model_and_has_measured_nothing(
    terms: PrivacyTerms, names: tuple[str, ...]
) -> None:
    vector = global_state.first(of(terms), PARAMETERS)
    assert vector.dtype == np.float32
    assert vector.tolist() == [0.25, -1.5, *({"clip": 2.0}.get(name, -1.0) for name in names)]
    np.testing.assert_array_equal(global_state.parameters(of(terms), vector), PARAMETERS)
    assert global_state.measured(of(terms), vector) is None


@EVERY
@pytest.mark.parametrize("kind", ["plain", "secagg", "ckks-unmasked", "ckks"])
def test_encodings_and_announcements_have_room_for_all_of_it(
    terms: PrivacyTerms, names: tuple[str, ...], kind: str
) -> None:
    chosen = msgspec.structs.replace(of(terms), protection=kind, bits=54 if "ckks" in kind else 32, bound=1.0)
    assert protection.parameters(chosen).dimension == 2 + len(names)
    vector = global_state.first(chosen, PARAMETERS)
    announced = Announcement("run", 1, 1, chosen, vector.astype("<f4").tobytes(), b"")
    np.testing.assert_array_equal(announced.vector(), vector)


def test_a_clip_that_does_not_move_is_the_plan_s_and_no_number_of_the_vector() -> None:
    """A server that reads the vector must not be able to move it."""
    chosen = of(TERMS["a fixed clip"][0])
    assert global_state.clip(chosen, np.array([9.0, 9.0], np.float32)) == 2.0


def test_without_client_level_privacy_there_is_no_clip() -> None:
    chosen = of(TERMS["metrics"][0])
    with pytest.raises(ValueError, match="cuts no update off"):
        global_state.clip(chosen, global_state.first(chosen, PARAMETERS))


@given(*[st.floats(0, 4, width=32)] * 3)
def test_numbers_come_back_by_name_whichever_others_there_are(clip: float, accuracy: float, loss: float) -> None:
    numbers = {"clip": clip, "accuracy": accuracy, "loss": loss}
    for terms, names in TERMS.values():
        chosen = of(terms)
        vector = np.array([*PARAMETERS, *(numbers[name] for name in names)], np.float32)
        assert global_state.measured(chosen, vector) == (Measured(accuracy, loss) if "loss" in names else None)
        if terms.client_level is not None:
            assert global_state.clip(chosen, vector) == (clip if "clip" in names else 2.0)


def test_a_metric_of_zero_is_known() -> None:
    chosen = of(TERMS["metrics"][0])
    assert global_state.measured(chosen, np.zeros(4, np.float32)) == Measured(0.0, 0.0)


@pytest.mark.parametrize("clip", [1e-46, 1e-10, 1e10, 3.5e38, 1e300])
@pytest.mark.parametrize("adaptive", [None, ADAPTIVE])
def test_a_clip_that_float32_might_not_hold_in_all_rounds_is_refused_with_the_plan(
    clip: float, adaptive: AdaptiveClip | None
) -> None:
    """It travels as one: it could be 0 or infinite, and every client would refuse."""
    with pytest.raises(BadInput):
        ClientLevel(1.0, clip, adaptive)


# ---- what a server may announce


@EVERY
def test_the_first_vector_and_any_finite_parameters_pass(terms: PrivacyTerms, names: tuple[str, ...]) -> None:
    for parameters in (PARAMETERS, np.array([3e38, -3e38], np.float32)):
        global_state.check(of(terms), global_state.first(of(terms), parameters))


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_of_another_length_or_that_is_not_finite_is_refused(
    terms: PrivacyTerms, names: tuple[str, ...], bad: float
) -> None:
    sound = global_state.first(of(terms), PARAMETERS)
    for wrong in (sound[:-1], np.append(sound, np.float32(0)), sound[:, None], sound[:0]):
        with pytest.raises(BadInput):
            global_state.check(of(terms), wrong)
    for place in range(len(sound)):
        wrong = sound.copy()
        wrong[place] = bad
        with pytest.raises(BadInput):
            global_state.check(of(terms), wrong)


@pytest.mark.parametrize("clip", [0.0, -0.0, -2.0, 2.0 * 2**-21, 2.0 * 2**21, 1e-45, 3e38])
def test_a_clip_that_no_round_leads_to_is_refused(clip: float) -> None:
    """A server chooses what it announces: at a clip of nothing, an update of zeros would be told from others."""
    chosen = of(TERMS["an adaptive clip"][0])
    vector = np.array([*PARAMETERS, clip], np.float32)
    with pytest.raises(BadInput, match="than any that this plan leads to"):
        global_state.check(chosen, vector)
    text = vector.astype("<f4").tobytes()
    with pytest.raises(MalformedMessage):
        Announcement("run", 1, 1, chosen, text, b"").vector()


@pytest.mark.parametrize("clip", [2.0 * 2**-20, 2.0, 2.0 * 2**20])
def test_a_clip_that_a_round_can_lead_to_passes(clip: float) -> None:
    global_state.check(of(TERMS["an adaptive clip"][0]), np.array([*PARAMETERS, clip], np.float32))
