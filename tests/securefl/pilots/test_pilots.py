from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from securefl import job, objective, pilots, training, vector
from securefl.errors import BadInput
from securefl.privacy.accountant import epsilon
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.privacy.planning import affordable_rounds

CONVEX = ("breast-cancer", "heart", "credit", "credit-age", "students", "students-pass", "digits")
LARGE = ("mnist", "mnist-shards", "mnist-1000")
TABULAR_AND_VISUAL = (*CONVEX, *LARGE)
LANGUAGE = ("clinic-llm", "minilm-topics", "keyboard")
OFFLINE = ("breast-cancer", "digits")


def test_the_default_pilot_comes_first() -> None:
    assert pilots.names()[0] == "breast-cancer"
    assert set(pilots.names()) == {*TABULAR_AND_VISUAL, *LANGUAGE}


def test_an_unknown_pilot_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="unknown pilot 'lungs': choose one of breast-cancer, heart, credit"):
        pilots.pilot("lungs")


def test_listing_and_describing_pilots_loads_neither_torch_nor_sklearn() -> None:
    code = "import sys; from securefl import pilots; [pilots.pilot(n) for n in pilots.names()]; "
    code += "sys.exit(bool({'torch', 'sklearn', 'opacus'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize("name", TABULAR_AND_VISUAL)
def test_a_pilot_is_consistent(name: str) -> None:
    pilot = pilots.pilot(name)
    assert pilot.name == name
    assert len(set(pilot.clients)) == len(pilot.clients) == len(pilot.weights) >= 3
    assert all(0 < weight <= 1 for weight in pilot.weights)
    assert max(pilot.weights) == 1
    assert len(pilot.rows) == len(pilot.clients) and min(pilot.rows) > 0
    assert isinstance(pilot.private.mechanism, DPSGD)
    assert isinstance(pilot.public.mechanism, SGD)
    assert pilot.hazards and pilot.source
    assert (len(pilot.classes) >= 2) != (pilot.scale is not None)  # classes, or numbers of a scale
    assert (pilot.metric == "mae") == (pilot.scale is not None)
    assert pilot.metric != "auc" or len(pilot.classes) == 2
    training.check(vector.build(pilot.model, 0))


@pytest.mark.parametrize("name", TABULAR_AND_VISUAL)
def test_the_budget_covers_the_private_recipe_and_not_one_round_more(name: str) -> None:
    pilot = pilots.pilot(name)
    assert epsilon([pilot.private.mechanism] * pilot.private.rounds, pilot.budget.delta) <= pilot.budget.epsilon
    assert isinstance(pilot.private.mechanism, DPSGD)
    assert affordable_rounds((pilot.private.mechanism,), pilot.budget) == pilot.private.rounds


@pytest.mark.parametrize("name", TABULAR_AND_VISUAL)
def test_delta_is_far_below_one_over_the_records_of_any_client(name: str) -> None:
    pilot = pilots.pilot(name)
    assert pilot.budget.delta <= 0.1 / max(pilot.rows)


@pytest.mark.parametrize("name", CONVEX)
def test_a_convex_model_starts_alike_whatever_the_seed(name: str) -> None:
    pilot = pilots.pilot(name)
    assert not vector.flatten(vector.build(pilot.model, 1)).any()


@pytest.mark.parametrize("name", LARGE)
def test_a_network_starts_from_its_seed(name: str) -> None:
    model = pilots.pilot(name).model
    first, again, other = (vector.flatten(vector.build(model, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    "name",
    [name if name in OFFLINE else pytest.param(name, marks=pytest.mark.needs_data) for name in TABULAR_AND_VISUAL],
)
def test_records_have_the_declared_counts_and_fit_the_model(name: str) -> None:
    pilot = pilots.pilot(name)
    for client, rows in zip(pilot.clients[:10], pilot.rows, strict=False):
        data = pilot.load(client)
        assert len(data) == rows
        assert np.abs(data.features).max() <= 1  # scaled by constants, which bound the records
    module, test = vector.build(pilot.model, 0), pilot.test()
    training.check_labels(module, test)
    training.check_apart(module, test)
    assert (test.labels.dtype.kind == "f") == (pilot.scale is not None)
    assert objective.weight(test.labels).sum() == len(test)


@pytest.mark.parametrize("name", TABULAR_AND_VISUAL)
@pytest.mark.parametrize("private", [True, False])
def test_a_pilot_is_a_job(name: str, private: bool) -> None:
    made, pilot = job.from_pilot(name, private=private), pilots.pilot(name)
    assert made.clients == pilot.clients
    assert made.sizes == pilot.rows
    assert made.data.name == pilot.records
    assert made.terms.disjoint is pilot.disjoint


def test_each_has_a_section_in_the_docs() -> None:
    folder = Path(__file__).parents[3] / "docs"
    pages = {"pilots.md": pilots.names(), "llm.md": LANGUAGE}
    for page, named in pages.items():
        text = (folder / page).read_text(encoding="utf-8")
        for name in named:
            assert f"`{name}`" in text
