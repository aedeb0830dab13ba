"""What one client puts into a round, before encoding: as long as the plan says, and no more than was charged."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from securefl import DPSGD, SGD, Dataset, evaluation, global_state, training, vector
from securefl.contribution import Material
from securefl.errors import BadInput, TrainingFailed
from securefl.plan import AdaptiveClip, ClientLevel, HeldOut, Plan, PrivacyTerms
from securefl.privacy.mechanism import Training
from securefl.releases import METRICS_BOUND, sums
from tests.securefl.federation import WHOLE, model, records
from tests.securefl.test_plan import plan

HELD_OUT = records(50, 30)
ADAPTIVE = AdaptiveClip(0.5, 0.2, 5.0)
PRIVATE = DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=2)


def of(privacy: PrivacyTerms, mechanism: Training = WHOLE) -> Plan:
    names = tuple("abcde")
    return plan(
        protection="secagg", clients=names, weights=(1.0,) * 5, dimension=22, mechanism=mechanism, privacy=privacy
    )


def material(held_out: Dataset | None = HELD_OUT, data: Dataset | None = None) -> Material:
    return Material(data or records(0), model, held_out)


def start(chosen: Plan) -> NDArray[np.float32]:
    return global_state.first(chosen, vector.flatten(vector.build(model, 0)))


def level(noise: float = 2.0, clip: float = 0.5, adaptive: AdaptiveClip | None = None) -> PrivacyTerms:
    return PrivacyTerms(ClientLevel(noise, clip, adaptive), unit="client")


# ---- the vector


@pytest.mark.parametrize("mechanism", [WHOLE, PRIVATE])
@pytest.mark.parametrize(
    "privacy", [PrivacyTerms(), level(), level(adaptive=ADAPTIVE), PrivacyTerms(held_out=HeldOut(5.0))]
)
def test_an_update_is_as_long_as_the_vector_that_it_starts_from(mechanism: Training, privacy: PrivacyTerms) -> None:
    chosen = of(privacy, mechanism)
    found = material().update(chosen, start(chosen), os.urandom)
    assert found.shape == start(chosen).shape
    assert np.isfinite(found).all()
    noise = material().noise(chosen, os.urandom)
    assert (noise is None) is (privacy.client_level is None)
    assert noise is None or noise.shape == found.shape


def test_without_anything_else_it_is_the_trained_update() -> None:
    chosen = of(PrivacyTerms())
    module = vector.build(model, 0)
    expected = training.train(module, records(0), chosen.mechanism, chosen.optimizer)
    assert material().update(chosen, start(chosen), os.urandom).tobytes() == expected.tobytes()


@pytest.mark.parametrize("adaptive", [None, ADAPTIVE])
@pytest.mark.parametrize(("clip", "within"), [(1e-3, False), (1e3, True)])
def test_with_client_level_privacy_it_is_in_clips_with_the_count_behind(
    adaptive: AdaptiveClip | None, clip: float, within: bool
) -> None:
    trained = material().update(of(PrivacyTerms()), start(of(PrivacyTerms())), os.urandom).astype(np.float64)
    chosen = of(level(clip=clip, adaptive=adaptive))
    found = material().update(chosen, start(chosen), os.urandom)
    np.testing.assert_allclose(found[:22], trained / max(clip, np.linalg.norm(trained)), rtol=1e-6)
    assert found[22:].tolist() == ([] if adaptive is None else [0.5 if within else -0.5])


def test_the_clip_is_the_one_that_the_round_begins_with() -> None:
    chosen = of(level(clip=1e3, adaptive=ADAPTIVE))
    later = start(chosen)
    later[22] = 1e-3
    assert material().update(chosen, later, os.urandom)[22] == -0.5


def test_the_module_that_it_starts_from_is_the_announced_one() -> None:
    chosen = of(PrivacyTerms())
    other = start(chosen) + np.float32(0.5)
    module = vector.build(model, 0)
    vector.load(module, other)
    expected = training.train(module, records(0), chosen.mechanism, chosen.optimizer)
    assert material().update(chosen, other, os.urandom).tobytes() == expected.tobytes()


def test_training_that_fails_is_zeros_within_the_clip_and_only_with_client_level_privacy() -> None:
    """Where noise hides clients, whether training failed is hidden too; elsewhere the round goes on without it."""
    broken = material(data=Dataset(np.full((40, 10), 3e37, np.float32), np.arange(40) % 2))
    chosen = of(level(adaptive=ADAPTIVE), SGD(1.0, 5))
    assert broken.update(chosen, start(chosen), os.urandom).tolist() == [0.0] * 22 + [0.5]
    chosen = of(PrivacyTerms(), SGD(1.0, 5))
    with pytest.raises(TrainingFailed):
        broken.update(chosen, start(chosen), os.urandom)


class Breaks(nn.Linear):
    """The owner's own code fails, as it may for some records and not for others."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("patient 4711")


def test_code_of_the_owner_that_fails_in_training_is_zeros_too() -> None:
    log: list[str] = []
    broken = Material(records(0), lambda: Breaks(10, 2), tell=log.append)
    chosen = of(level(adaptive=ADAPTIVE))
    assert broken.update(chosen, start(chosen), os.urandom).tolist() == [0.0] * 22 + [0.5]
    (told,) = log
    assert "nothing but noise was sent" in told and told.endswith("RuntimeError: patient 4711")
    chosen = of(PrivacyTerms())
    with pytest.raises(RuntimeError, match="patient 4711"):
        broken.update(chosen, start(chosen), os.urandom)


# ---- the noise


def test_noise_is_this_client_s_share_of_what_is_charged_coordinate_by_coordinate() -> None:
    """False alarm: the mean square of 400 values or more is six deviations off with probability below 1e-7."""
    chosen = of(level(2.0, adaptive=ADAPTIVE))
    assert chosen.privacy.client_level is not None
    update, count = sums(chosen, chosen.privacy.client_level)
    found = np.array([material().noise(chosen, os.urandom) for _ in range(400)], np.float64)
    for part, release in ((found[:, :22], update), (found[:, 22:], count)):
        spread = 6 * math.sqrt(2 / part.size)
        assert np.mean(part**2) * release.honest == pytest.approx(release.variance, rel=spread)


# ---- metrics


def metrics(held_out: HeldOut, data: Dataset = HELD_OUT) -> NDArray[np.float64]:
    chosen = of(PrivacyTerms(held_out=held_out))
    return material(data).update(chosen, start(chosen), os.urandom)[22:].astype(np.float64)


def true_sums(data: Dataset, bound: float = 4.0, module: nn.Module | None = None) -> NDArray[np.float64]:
    return evaluation.sums(module or vector.build(model, 0), data, bound)


@pytest.mark.parametrize("noise", [None, 1e-6])
@pytest.mark.parametrize("bound", [0.5, 4.0])
def test_metrics_are_those_of_the_model_that_the_round_begins_with(noise: float | None, bound: float) -> None:
    found = metrics(HeldOut(noise, bound))
    np.testing.assert_allclose(found, true_sums(HELD_OUT, bound) / 30, atol=2e-5)


@pytest.mark.parametrize("declared", [10, 1000])
def test_metrics_are_divided_by_the_declared_size(declared: int) -> None:
    """The realised one depends on which records are there."""
    data = Dataset(HELD_OUT.features, HELD_OUT.labels, declared)
    np.testing.assert_allclose(metrics(HeldOut(None), data), true_sums(HELD_OUT) / declared, rtol=1e-6)


def measured_once(data: Dataset, noise: float | None) -> NDArray[np.float64]:
    chosen = HeldOut(noise)
    found = material(data)._measured(vector.build(model, 0), chosen, os.urandom)
    return np.array(found)


def test_metrics_carry_the_noise_that_is_charged() -> None:
    """False alarm: a mean square of 600 values, or a correlation of 300 pairs, is six deviations off with probability
    below 1e-7."""
    found = np.array([measured_once(HELD_OUT, 5.0) for _ in range(300)])
    off = (found - true_sums(HELD_OUT) / 30) * 30
    assert np.mean(off**2) == pytest.approx((5.0 * METRICS_BOUND) ** 2, rel=6 * math.sqrt(2 / off.size))
    assert abs(np.corrcoef(off.T)[0, 1]) < 6 / math.sqrt(300)


@pytest.mark.attack("exact metrics with and without a record")
def test_noised_metrics_do_not_tell_whether_a_record_is_there() -> None:
    """Who knows all other records and the model takes them off the sum. Of noised sums the best guess is right with
    probability Phi(1 / 2 / 5) < 0.54. False alarm: of 300 guesses 0.7 are right with probability below 1e-8."""
    others = Dataset(HELD_OUT.features[1:], HELD_OUT.labels[1:], 30)
    there = Dataset(HELD_OUT.features, HELD_OUT.labels, 30)
    without, difference = true_sums(others) / 30, (true_sums(there) - true_sums(others)) / 30

    def right(noise: float | None, guesses: int) -> float:
        truths = np.random.default_rng(1).integers(0, 2, guesses).astype(bool)
        found = [measured_once(there if truth else others, noise) for truth in truths]
        guessed = [(one - without) @ difference > difference @ difference / 2 for one in found]
        return float(np.mean(np.array(guessed) == truths))

    assert right(None, 20) == 1.0
    assert right(5.0, 300) < 0.7


class Picky(nn.Module):
    """The owner's own code fails on a batch with a record whose first feature is above 100."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(10, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if (features[:, 0] > 100).any():
            raise RuntimeError("patient 4711")
        outputs: torch.Tensor = self.last(features)
        return outputs


def test_only_the_owner_is_told_of_records_on_which_its_code_failed() -> None:
    """Neither training nor measuring may fail for it: that would tell that there is such a record."""
    log: list[str] = []
    features = np.zeros((40, 10), np.float32)
    features[:3, 0] = 101
    odd = Dataset(features, np.zeros(40, np.int64))
    chosen = of(PrivacyTerms(held_out=HeldOut(5.0)), DPSGD(4.0, 1.0, 2))
    assert Material(odd, Picky, odd, tell=log.append).update(chosen, start(chosen), os.urandom).size == 24
    for told, times in zip(log, (6, 3), strict=True):
        assert f"records {times} times" in told and "RuntimeError: patient 4711" in told
    log.clear()
    assert Material(records(0), model, HELD_OUT, tell=log.append).update(chosen, start(chosen), os.urandom).size == 24
    assert log == []


def test_a_record_moves_each_sum_by_one_at_most() -> None:
    """Whatever its loss: it is cut off, and what is no number counts as the bound."""
    module = vector.build(model, 0)
    wild = np.concatenate([HELD_OUT.features, 1e30 * np.sign(HELD_OUT.features), 3e38 * np.sign(HELD_OUT.features)])
    data = Dataset(wild, np.concatenate([HELD_OUT.labels] * 3))
    whole = true_sums(data, module=module)
    assert np.isfinite(whole).all()
    for gone in range(len(data)):
        left = Dataset(np.delete(data.features, gone, 0), np.delete(data.labels, gone))
        moved = whole - true_sums(left, module=module)
        assert (moved >= -1e-5).all() and (moved <= 1 + 1e-5).all()


def test_a_client_without_held_out_records_says_what_to_do() -> None:
    chosen = of(PrivacyTerms(held_out=HeldOut(5.0)))
    with pytest.raises(BadInput, match="give it some"):
        material(None).update(chosen, start(chosen), os.urandom)


def test_records_are_no_part_of_what_is_printed() -> None:
    assert "array" not in repr(material()) and "Dataset" not in repr(material())
