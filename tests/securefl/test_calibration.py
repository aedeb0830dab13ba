"""From a target to the noise: the least that keeps a whole run within it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from securefl import job
from securefl.calibration import calibrated, plan_of
from securefl.errors import BadInput, BadJob
from securefl.job import Job, file
from securefl.preview import lines, preview
from securefl.privacy.accountant import epsilon
from securefl.privacy.mechanism import DPSGD, NoisedSum, Skellam
from securefl.releases import releases
from tests.securefl.federation import NAMES, model

Tables = Mapping[str, Mapping[str, object]]

TABLES: Tables = {
    "data": {"loader": "own_data:load", "clients": list(NAMES)},
    "model": {"factory": "own_data:model"},
    "job": {"name": "t", "rounds": 4},
    "training": {"learning_rate": 0.5, "sampling_rate": 1.0, "steps": 2},
    "privacy": {"epsilon": 3.0, "delta": 1e-5},
}
CLIENT: Tables = {"privacy": {"unit": "client"}}
ADAPTIVE: Tables = {"privacy": {"unit": "client", "adaptive_quantile": 0.5}}


def changed(changes: Tables) -> dict[str, object]:
    return {name: {**TABLES.get(name, {}), **changes.get(name, {})} for name in {**TABLES, **changes}}


def of(changes: Tables) -> Job:
    return job.checked(changed(changes))


def cost(found: Job) -> float:
    """Epsilon of the whole run, as its clients' ledgers will have it."""
    assert found.budget is not None
    released = releases(plan_of(found, model()))
    return epsilon(released * found.rounds, found.budget.delta, found.privacy.unit)


def with_noise(found: Job, factor: float) -> Job:
    assert found.privacy.noise_multiplier is not None
    return replace(found, privacy=replace(found.privacy, noise_multiplier=factor * found.privacy.noise_multiplier))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training": {"sampling_rate": 0.2}},
        {"privacy": {"target_epsilon": 1.0}},
        CLIENT,
        ADAPTIVE,
        CLIENT | {"protection": {"kind": "plain"}},
        CLIENT | {"protection": {"kind": "ckks"}},
        CLIENT | {"protection": {"colluders": 1}},
    ],
    ids=["record", "sampled", "target", "client", "adaptive", "plain", "ckks", "colluders"],
)
def test_the_noise_is_the_least_that_keeps_the_whole_run_within_the_target(changes: Tables) -> None:
    asked = of(changes)
    assert not asked.calibrated and asked.privacy.noise_multiplier is None
    found = calibrated(asked, model())
    target = asked.privacy.target_epsilon or 3.0
    assert found.calibrated
    assert cost(found) <= target < cost(with_noise(found, 0.99))
    assert cost(replace(found, job=replace(found.job, rounds=5))) > target


def test_all_that_a_round_releases_is_counted() -> None:
    """Metrics and the count for the clip are charged to the same budget as the update."""
    alone = calibrated(of({}), model())
    beside: Tables = {"metrics": {"noise_multiplier": 8.0}, "data": {"held_out": "own_data:more"}}
    together = calibrated(of(beside), model())
    assert cost(together) <= 3.0 < cost(with_noise(together, 0.99))
    training, metrics = releases(plan_of(together, model()))
    assert isinstance(training, DPSGD) and isinstance(metrics, NoisedSum)
    assert alone.privacy.noise_multiplier is not None
    assert training.noise_multiplier > 1.01 * alone.privacy.noise_multiplier
    adaptive = calibrated(of(ADAPTIVE), model())
    update, count = releases(plan_of(adaptive, model()))
    assert isinstance(update, Skellam) and isinstance(count, Skellam)
    assert count.noise_multiplier == 5 * update.noise_multiplier


def test_where_few_bits_make_rounding_coarse_the_run_is_within_the_target_all_the_same() -> None:
    """The scale falls by halves as the noise grows, and with it what rounding costs rises: no smooth search."""
    found = calibrated(of(CLIENT | {"protection": {"bits": 16}}), model())
    assert cost(found) <= 3.0
    assert found.privacy.noise_multiplier is not None
    finer = calibrated(of(CLIENT), model()).privacy.noise_multiplier
    assert finer is not None and finer <= found.privacy.noise_multiplier


def test_a_target_above_the_budget_is_no_larger_budget() -> None:
    found = calibrated(of({"privacy": {"target_epsilon": 9.0}}), model())
    assert found.privacy.noise_multiplier == calibrated(of({}), model()).privacy.noise_multiplier


@pytest.mark.parametrize(
    "changes", [{"privacy": {"noise_multiplier": 4.0}}, {"privacy": {"enabled": False}}], ids=["given", "off"]
)
def test_where_there_is_nothing_to_solve_the_job_is_itself(changes: Tables) -> None:
    asked = of(changes)
    assert calibrated(asked, model()) is asked


def test_a_calibrated_job_is_written_down_with_its_noise_and_is_the_same_when_read(tmp_path: Path) -> None:
    """What runs again from the folder must not solve again: another version might find another number."""
    found = calibrated(of({"privacy": {"target_epsilon": 2.0, "ledger": str(tmp_path)}}), model())
    (tmp_path / "job.toml").write_text(found.to_toml(), encoding="utf-8")
    again = job.load(tmp_path / "job.toml")
    assert again == found
    assert again.privacy.noise_multiplier is not None and again.privacy.target_epsilon is None
    assert calibrated(again, model()) is again


def test_no_noise_is_enough_where_the_rest_spends_it_all() -> None:
    asked = of({"metrics": {"noise_multiplier": 2.0}, "data": {"held_out": "own_data:more"}})
    with pytest.raises(BadInput, match="no noise multiplier up to 10000 keeps 4 rounds within epsilon 3"):
        calibrated(asked, model())


def test_a_job_that_is_not_calibrated_yet_says_so_where_its_noise_is_needed() -> None:
    asked = of({})
    assert asked.noise is None
    with pytest.raises(BadJob, match="noise_multiplier"):
        _ = asked.mechanism


# ---- steps and epochs


@pytest.mark.parametrize(
    ("epochs", "rate", "steps"), [(1.0, 0.2, 5), (2.0, 0.05, 40), (0.5, 0.2, 3), (0.01, 0.5, 1), (1.1, 0.1, 11)]
)
def test_so_many_epochs_are_so_many_steps(epochs: float, rate: float, steps: int) -> None:
    tables = changed({"privacy": {"noise_multiplier": 4.0}})
    tables["training"] = {"learning_rate": 0.5, "sampling_rate": rate, "epochs": epochs}
    found = job.checked(tables)
    assert found.mechanism == DPSGD(4.0, rate, steps)


@pytest.mark.parametrize("training", [{"steps": 5, "epochs": 1.0}, {}])
def test_steps_or_epochs_say_how_long_a_round_trains_and_not_both(training: dict[str, object]) -> None:
    tables = changed({"privacy": {"noise_multiplier": 4.0}})
    tables["training"] = {"learning_rate": 0.5, "sampling_rate": 0.2, **training}
    with pytest.raises(BadJob, match="either steps or epochs"):
        job.checked(tables)


# ---- keys that are wrong


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"privacy": {"target_epsilo": 1.0}}, "privacy.target_epsilo", "Did you mean 'target_epsilon'?"),
        ({"privacy": {"target_epsilon": 0.0}}, "privacy.target_epsilon", "impossible value 0"),
        ({"privacy": {"target_epsilon": 1.0, "noise_multiplier": 4.0}}, "privacy.target_epsilon", "Leave one key out"),
        ({"privacy": {"unit": "person"}}, "privacy.unit", "Known are: client, patient, record"),
        ({"privacy": {"adaptive_quantile": 0.5}}, "privacy.adaptive_quantile", 'write unit = "client"'),
        (
            {"privacy": {"unit": "client", "adaptive_quantile": 1.5}},
            "privacy.adaptive_quantile",
            "impossible value 1.5",
        ),
        ({"privacy": {"unit": "client", "adaptive_rate": 0.0}}, "privacy.adaptive_rate", "impossible value 0"),
        ({"privacy": {"unit": "client"}, "weights": {"ada": 0.5}}, "weights", "all weigh the same"),
        ({"simulation": {"seed": 1}}, "simulation.seed", "for simulations only"),
        ({"simulation": {"enabled": True, "seed": -1}}, "simulation.seed", "impossible value -1"),
        ({"metrics": {}}, "metrics", "either noised or exact"),
        ({"metrics": {"exact": True, "noise_multiplier": 5.0}}, "metrics", "either noised or exact"),
        ({"metrics": {"noise_multiplier": 5.0}}, "metrics", "no held-out records"),
        ({"metrics": {"noise": 5.0}}, "metrics.noise", "noise_multiplier"),
    ],
)
def test_keys_that_contradict_each_other_or_are_unknown_are_named_with_a_remedy(
    changes: Tables, key: str, words: str
) -> None:
    with pytest.raises(BadJob) as caught:
        of(changes)
    assert caught.value.key == key
    assert caught.value.remedy
    assert words in str(caught.value)


def test_a_job_says_all_of_its_privacy_in_its_file() -> None:
    tables: Tables = ADAPTIVE | {"simulation": {"enabled": True, "seed": 7}, "data": {"disjoint": True}}
    found = of(tables)
    assert job.checked(file.parse(found.to_toml())) == found


# ---- the preview


def test_a_preview_solves_for_the_noise_and_says_what_the_run_will_cost() -> None:
    asked = job.checked({"data": {"pilot": "breast-cancer"}, "privacy": {"target_epsilon": 1.0}})
    shown = preview(asked)
    spending = shown.spending
    assert spending is not None
    assert 0.98 < spending.epsilon <= 1.0 <= spending.budget
    assert spending.affordable >= asked.rounds
    said = dict(lines(shown))["privacy"]
    assert f"noise multiplier {spending.noise_multiplier:g}" in said and "for each record" in said


def test_a_preview_without_privacy_spends_nothing() -> None:
    asked = job.checked({"data": {"pilot": "breast-cancer"}, "privacy": {"enabled": False}})
    shown = preview(asked)
    assert shown.spending is None and "privacy" not in dict(lines(shown))
