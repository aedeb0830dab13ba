"""Who was in: what the final model tells, with noise and without."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from securefl.attacks import membership
from securefl.attacks.membership import Outcome, credit_default, digits, federation, likelihood_ratios, outcome, shadows
from securefl.attacks.settings import SETTINGS, setting
from securefl.privacy.mechanism import DPSGD, SGD

TASK = digits()


@cache
def attacked(name: str, shuffles: int) -> Outcome:
    """LiRA on one target under that setting."""
    scene = federation(setting(name), TASK, 0)
    inside, known = shadows(TASK, scene.plan, shuffles)
    final = scene.model_of("client-0")
    assert final is not None
    confidence = membership._confidence(TASK, torch.from_numpy(np.array(final))[None])[0]
    among = np.isin(np.arange(len(TASK.pool)), membership._members(0))
    ratios = likelihood_ratios(confidence, inside, known)
    return outcome([(ratios[among], ratios[~among])])


@pytest.mark.attack("membership inference: LiRA")
def test_the_final_model_names_members_and_client_level_noise_ends_that() -> None:
    """Whoever guesses has an AUC of 0.5, with a standard error of 0.03: above 0.65 less than once in a million runs."""
    assert attacked("plain", 2).auc > 0.65
    assert attacked("client-dp", 2).auc < 0.65


def test_masks_change_nothing_of_what_the_model_tells() -> None:
    assert attacked("secagg", 2).auc == pytest.approx(attacked("plain", 2).auc, abs=0.05)


def test_record_level_noise_lowers_what_the_model_tells() -> None:
    """Without noise the AUC is 0.79, with it 0.64 +- 0.03: less than one false alarm in 100,000 runs."""
    assert attacked("record-dp", 2).auc < attacked("plain", 2).auc


def test_a_shadow_is_the_federation_that_it_stands_for() -> None:
    scene = federation(setting("plain"), TASK, 0)
    rows = membership._members(0).reshape(1, 3, -1)
    shadow = membership._trained(TASK, scene.plan, rows)[0].numpy()
    final = scene.model_of("client-0")
    assert final is not None and np.corrcoef(shadow, final)[0, 1] > 0.99


def test_a_noised_step_clips_each_record() -> None:
    """Hardly any noise; of two records, one has a gradient within the clip and one far beyond."""

    def loss(flat: torch.Tensor, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (features[:, 0] * flat.sum()).mean()

    flat = torch.zeros(2)
    features, labels = torch.tensor([[0.1], [100.0]]), torch.zeros(2, dtype=torch.int64)
    got = membership._noised(loss, DPSGD(1e-6, 1.0, 1), flat, features, labels)
    assert got.norm() == pytest.approx((0.1 * 2**0.5 + 1) / 2, rel=1e-3)


def test_every_record_is_in_one_shadow_a_shuffle() -> None:
    plan = federation(setting("plain"), TASK, 0).plan
    inside, known = shadows(TASK, replace(plan, rounds=1, mechanism=SGD(1.0, 1)), 2)
    assert inside.shape == known.shape == (26, len(TASK.pool)) and (inside.sum(axis=0) == 2).all()


def test_the_rate_is_of_members_above_all_but_one_of_a_thousand_others() -> None:
    others = np.arange(1000.0)
    found = outcome([(np.array([1000.0, 998.5, 998.0, 5.0]), others)])
    assert (found.found, found.members) == (2, 4)
    assert found.auc == pytest.approx((1000 + 999 + 998.5 + 5.5) / 4000)


def test_the_interval_is_exact() -> None:
    assert Outcome(0, 100, 0.5).at_least == 0.0
    assert Outcome(3, 3, 0.5).at_least == pytest.approx(0.025 ** (1 / 3))


def test_the_verdict_needs_more_hits_than_luck_gives() -> None:
    said = [membership.verdict(Outcome(found, 180, auc)) for found, auc in ((9, 0.7), (4, 0.5), (2, 0.5), (0, 0.6))]
    assert said == ["red", "amber", "green", "amber"]


@pytest.mark.needs_data
def test_credit_default_is_learnt_from_tenths_of_each_feature() -> None:
    task = credit_default()
    assert task.pool.features.shape == task.test.features.shape == (len(TASK.pool), 230)
    assert (task.pool.features.sum(axis=1) == 23).all()
    assert 0.15 < task.test.labels.mean() < 0.3


@pytest.mark.slow
def test_every_setting_has_a_cell_and_only_noise_changes_it() -> None:
    cells = {cell.setting: cell for cell in membership.cells("quick")}
    assert list(cells) == [each.name for each in SETTINGS]
    assert {cells[name].verdict for name in ("plain", "secagg", "ckks-unmasked", "ckks")} == {"red"}
    assert cells["record-dp"].figures[2].value < cells["plain"].figures[2].value
    assert cells["client-dp"].verdict == "green"
