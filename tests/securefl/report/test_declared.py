"""The hazards that job file and engine give away are those that a run tells of."""

from __future__ import annotations

import pytest

from securefl import job as jobs
from securefl import pilots
from securefl.job.sections import Data
from securefl.report import declared
from securefl.settings import EMBEDDED, Nvflare, Ray
from tests.securefl.verification import toy


@pytest.mark.parametrize("name", pilots.names())
def test_a_pilots_hazards_follow_from_its_name(name: str) -> None:
    found = jobs.from_pilot(name)
    assert declared.of_data(found.data) == pilots.pilot(name).hazards != ()


@pytest.mark.parametrize("test", [None, "own:test"])
@pytest.mark.parametrize("known", [0, 1, 3])
def test_hazards_of_own_data_are_what_nobody_knows_who_has_not_its_code(known: int, test: str | None) -> None:
    clients = ("ada", "bob", "cyd")
    found = declared.of_data(
        Data(clients, "own", loader="own:load", test=test, sizes=dict.fromkeys(clients[:known], 40))
    )
    texts = {one.kind: one.text for one in found}
    assert "how own:load scales the features is not checked" in texts["preprocessing"]
    assert ("public-test" in texts) is (test is not None)
    unknown = clients[known:]
    assert ("sample-counts" in texts) is bool(unknown)
    assert not unknown or f"the row counts of {', '.join(unknown)} are divisors" in texts["sample-counts"]


def test_a_run_without_sites_is_one_process() -> None:
    assert declared.of_run(toy.job(), EMBEDDED)[-1].kind == "single-process"


def test_a_run_on_a_cluster_is_one_owners() -> None:
    found = declared.of_run(toy.job(), Ray())[-1]
    assert found.kind == "single-process" and "one cluster, whose owner could read all of it" in found.text


def test_a_run_over_sites_tells_that_the_server_saw_how_long_each_client_took() -> None:
    *of_data, timing = declared.of_run(toy.job(), Nvflare("/somewhere"))
    assert tuple(of_data) == declared.of_data(toy.job().data)
    assert (timing.kind, timing.weight) == ("timing", "uncovered")
    assert "how long each client took" in timing.text
