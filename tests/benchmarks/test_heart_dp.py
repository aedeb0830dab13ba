from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from opacus.accountants.utils import get_noise_multiplier

from benchmarks import flamby, heart_dp, heart_dp_figure
from benchmarks.flamby import PUBLISHED, Published
from securefl import vector
from securefl.data import Dataset
from securefl.pilots.heart import CLIENTS, ROWS
from securefl.privacy.mechanism import DPSGD

# Few steps: what is tested is how they are put together.
RULES = tuple(DPSGD(2.0, rate, steps=1, clip=1.1) for rate in (0.5, 0.4, 0.3, 0.2))


def clients() -> list[Dataset]:
    features = np.random.default_rng(0).uniform(-1, 1, (len(CLIENTS), 30, 13)).astype(np.float32)
    return [Dataset(given, (given[:, 0] > 0).astype(np.int64)) for given in features]


def trained(seed: int, total: heart_dp.Sum) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return vector.flatten(heart_dp.federation(clients(), RULES, 0.1, heart_dp.seeded(seed), total))


@pytest.fixture
def two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart_dp, "ROUNDS", 2)


def check_noise(published: Published) -> None:
    for noise, batches in zip(published.noise, flamby.BATCHES, strict=True):
        found = get_noise_multiplier(
            target_epsilon=published.nominal,
            target_delta=flamby.DELTA,
            sample_rate=1 / batches,
            epochs=flamby.ROUNDS,
            accountant="rdp",
        )
        assert noise == pytest.approx(found, abs=5e-5)


# Opacus would have liked other orders; FLamby had the same.
ORDERS = pytest.mark.filterwarnings("ignore:Optimal order is the")


@ORDERS
@pytest.mark.parametrize("published", PUBLISHED[:2], ids=lambda one: f"nominal {one.nominal:g}")
def test_the_noise_is_what_opacus_calibrates_for_fifteen_epochs(published: Published) -> None:
    check_noise(published)


@ORDERS
@pytest.mark.slow
@pytest.mark.parametrize("published", PUBLISHED[2:], ids=lambda one: f"nominal {one.nominal:g}")
def test_so_is_the_noise_at_the_large_epsilons(published: Published) -> None:
    check_noise(published)


def test_all_steps_cost_more_than_the_nominal_epsilon_at_every_hospital() -> None:
    assert flamby.epsilons(PUBLISHED[0]) == pytest.approx((0.118, 0.133, 0.352, 0.200), abs=0.001)


def test_without_amplification_they_cost_more_still() -> None:
    assert flamby.unamplified(PUBLISHED[0]) == pytest.approx(1.27, abs=0.01)


def test_the_batches_are_of_four_records() -> None:
    assert tuple(math.ceil(rows / 4) for rows in ROWS) == flamby.BATCHES


def test_the_published_accuracies_have_the_published_means() -> None:
    assert [round(float(np.mean(one.accuracy)), 3) for one in PUBLISHED] == [0.629, 0.702, 0.7, 0.698, 0.7]


def test_the_four_mechanisms_are_what_the_curve_says() -> None:
    first, *_, last = flamby.mechanisms(PUBLISHED[1])
    assert first == DPSGD(1.7871, 1 / 50, 100, 1.1)
    assert last == DPSGD(2.5781, 1 / 22, 100, 1.1)


@pytest.mark.usefixtures("two_rounds")
def test_a_federation_through_masked_sums_is_the_one_in_the_clear() -> None:
    clear = trained(1, heart_dp.clear_sum)
    np.testing.assert_allclose(trained(1, heart_dp.masked_sum), clear, atol=1e-5)
    assert np.abs(clear).max() > 0.01


@pytest.mark.usefixtures("two_rounds")
def test_a_seed_repeats_its_draw_and_another_does_not() -> None:
    np.testing.assert_array_equal(trained(1, heart_dp.clear_sum), trained(1, heart_dp.clear_sum))
    assert np.abs(trained(1, heart_dp.clear_sum) - trained(2, heart_dp.clear_sum)).max() > 1e-3


def test_a_masked_sum_that_is_not_the_sum_is_noticed() -> None:
    beyond = [np.full(22, 2 * heart_dp.BOUND, dtype=np.float32)] * len(CLIENTS)
    with pytest.raises(AssertionError, match="not the sum"):
        heart_dp._Checked()(beyond)


@pytest.mark.needs_data
def test_each_hospital_is_tested_on_its_own_rows() -> None:
    records = heart_dp.clinical()
    assert tuple(len(test) for test in records.tests) == heart_dp.TEST_ROWS
    assert [int(test.labels.sum()) for test in records.tests] == [48, 33, 15, 35]


@pytest.mark.needs_data
def test_standardised_records_have_each_hospitals_own_scale() -> None:
    records = heart_dp.standardised()
    for data in records.clients:
        np.testing.assert_allclose(data.features.mean(axis=0), 0, atol=1e-5)
        spread = data.features.std(axis=0, ddof=1)
        np.testing.assert_allclose(spread[spread > 0], 1, atol=1e-4)
    assert [len(test) for test in records.tests] == list(heart_dp.TEST_ROWS)


@pytest.mark.slow
@pytest.mark.needs_data
def test_the_quick_rows_are_of_one_noise_level_and_draw_nothing() -> None:
    before = heart_dp.FIGURE.read_bytes()
    rows = {row.name: row for row in heart_dp.rows(quick=True)}
    assert heart_dp.FIGURE.read_bytes() == before
    assert {name.removeprefix("nominal_0.1_") for name in rows} == {
        "epsilon",
        "epsilon_least_hospital",
        "epsilon_unamplified",
        *(f"{scaling}{what}" for scaling in ("clinical", "standardised") for what in ("", "_deviation", "_pooled")),
        "secagg_largest_difference",
    }
    # One draw. Over 30 of them the mean was 0.780, its deviation 0.024: it is below this once in 10,000 runs.
    assert rows["nominal_0.1_clinical"].value > 0.69
    assert rows["nominal_0.1_clinical"].peer_value == pytest.approx(0.6292, abs=1e-4)


def test_the_figure_is_the_same_whenever_it_is_drawn(tmp_path: Path) -> None:
    values = [[0.6, 0.7], [0.7, 0.8]]
    for name in ("one.svg", "two.svg"):
        lines = dict.fromkeys(("a", "b", "c"), values)
        heart_dp_figure.draw(tmp_path / "new" / name, [0.1, 1], [0.3, 4], lines, [(0.1, 1.2), (1, 15)])
    drawn = (tmp_path / "new" / "one.svg").read_text(encoding="utf-8")
    assert drawn == (tmp_path / "new" / "two.svg").read_text(encoding="utf-8")
    assert "<dc:date>" not in drawn
    assert str(tmp_path) not in drawn


@pytest.mark.usefixtures("two_rounds")
def test_cross_validation_predicts_every_training_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flamby, "STEPS", 5)
    monkeypatch.setattr(flamby, "BATCHES", (2, 2, 2, 2))
    weak = Published(1.0, (0.1,) * 4, (0.5,))
    records = heart_dp.Records("made up", tuple(clients()), tuple(clients()))
    # Noise is a tenth of the clip, where a sum has twelve: over 12 runs it was 0.85 at least, and a guess is 0.5.
    assert heart_dp.cross_validate(weak, records, 1.0, draws=1) > 0.75
