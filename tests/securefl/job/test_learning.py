"""What a job says of learning: values, and errors that name key and remedy."""

from __future__ import annotations

from typing import Any

import pytest

from securefl import job as jobs
from securefl.errors import BadJob
from securefl.learning import Cohort, Schedule, Strategy


def checked(**sections: dict[str, Any]) -> jobs.Job:
    tables: dict[str, object] = {
        "data": {"pilot": "breast-cancer"},
        "privacy": {"enabled": False},
        **sections,
    }
    return jobs.checked(tables)


def test_a_strategy_has_the_values_that_it_is_usually_run_with() -> None:
    assert checked().server_step == Strategy()
    assert checked(strategy={"kind": "fedadam"}).server_step == Strategy("fedadam", 0.1, 0.9, 0.99, 1e-3)
    chosen = checked(strategy={"kind": "fedavgm", "momentum": 0.5, "schedule": "exponential", "decay": 0.9})
    assert chosen.server_step == Strategy("fedavgm", 1.0, 0.5, schedule=Schedule("exponential", 0.9))
    assert chosen.to_toml() == jobs.checked(jobs.file.parse(chosen.to_toml())).to_toml()


def test_weights_are_left_out_where_all_weigh_the_same() -> None:
    job = checked(strategy={"mean": "simple"}, weights={"hospital-1": 0.5})
    assert job.declared_weights == {} and set(job.client_weights) == {1.0}


@pytest.mark.parametrize("kind", ["krum", "Median", "trimmed-mean", "bulyan"])
def test_what_compares_single_updates_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(BadJob, match="the server sees nothing but their sum") as caught:
        checked(strategy={"kind": kind})
    assert caught.value.key == "strategy.kind" and "groups" in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"strategy": {"kind": "fedavgg"}}, "strategy.kind"),
        ({"strategy": {"momentum": 0.9}}, "strategy.momentum"),
        ({"strategy": {"kind": "fedadam", "adaptivity": 0.0}}, "strategy.adaptivity"),
        ({"strategy": {"decay": 0.9}}, "strategy.decay"),
        ({"training": {"schedule": "exponential"}}, "training.decay"),
        ({"training": {"proximal": 0.1}, "strategy": {"kind": "scaffold"}}, "training.momentum"),
        ({"cohort": {"sampling": "fixed"}}, "cohort.size"),
        ({"cohort": {"size": 3}}, "cohort.size"),
        ({"cohort": {"sampling": "fixed", "size": 99}}, "cohort.size"),
        ({"cohort": {"extra": 1}}, "cohort.extra"),
        ({"cohort": {"groups": 2}}, "cohort.groups"),
        ({"cohort": {"groups": 3}, "protection": {"kind": "ckks"}}, "cohort.groups"),
        ({"cohort": {"groups": 3}}, "data.clients"),
        ({"cohort": {"participations": 1}, "job": {"rounds": 3}}, "cohort.participations"),
        (
            {"cohort": {"sampling": "fixed", "size": 4, "participations": 3}, "job": {"rounds": 4}},
            "cohort.participations",
        ),
        ({"stopping": {"patience": 2, "on": "held-out"}}, "stopping.on"),
        ({"stopping": {"patience": 0}}, "stopping.patience"),
        ({"survey": {"noise_multiplier": 1.0}}, "survey"),
    ],
)
def test_what_could_only_fail_later_is_refused_now(sections: dict[str, dict[str, Any]], key: str) -> None:
    with pytest.raises(BadJob) as caught:
        checked(**sections)
    assert caught.value.key == key


def test_a_cohort_decides_the_minimum() -> None:
    cohort = {"sampling": "fixed", "size": 4, "extra": 1, "participations": 3}
    job = checked(cohort=cohort, job={"rounds": 3})
    assert job.asked == Cohort("fixed", 4, 1, 3)
    assert job.minimum == 3


@pytest.mark.parametrize("pilot", ["heart", "clinic-llm", "minilm-topics", "keyboard"])
def test_scores_are_asked_for_only_where_there_are_two_classes(pilot: str) -> None:
    asked: dict[str, dict[str, Any]] = {"data": {"pilot": pilot}, "survey": {"noise_multiplier": 1.0, "scores": 5.0}}
    if pilot == "heart":
        assert checked(**asked).survey is not None
        return
    with pytest.raises(BadJob, match="no two classes"):
        checked(**asked)
