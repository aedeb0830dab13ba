from __future__ import annotations

import subprocess
import sys

import pytest

from securefl import pilots, training, vector
from securefl.errors import BadInput
from securefl.privacy.accountant import epsilon
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.privacy.planning import affordable_rounds


def test_the_default_pilot_comes_first() -> None:
    assert pilots.names() == ("breast-cancer", "heart")


def test_an_unknown_pilot_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="unknown pilot 'lungs': choose one of breast-cancer, heart"):
        pilots.pilot("lungs")


def test_listing_and_describing_pilots_loads_neither_torch_nor_sklearn() -> None:
    code = "import sys; from securefl import pilots; [pilots.pilot(n) for n in pilots.names()]; "
    code += "sys.exit(bool({'torch', 'sklearn', 'opacus'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize("name", pilots.names())
def test_a_pilot_is_consistent(name: str) -> None:
    pilot = pilots.pilot(name)
    assert pilot.name == name
    assert len(set(pilot.clients)) == len(pilot.clients) == len(pilot.weights) >= 3
    assert all(0 < weight <= 1 for weight in pilot.weights)
    assert max(pilot.weights) == 1
    assert len(pilot.rows) == len(pilot.clients) and min(pilot.rows) > 0
    assert isinstance(pilot.private.mechanism, DPSGD)
    assert isinstance(pilot.public.mechanism, SGD)
    assert pilot.hazards and pilot.source and len(pilot.classes) == 2
    training.check(vector.build(pilot.model, 0))


@pytest.mark.parametrize("name", pilots.names())
def test_the_budget_covers_the_private_recipe_and_not_one_round_more(name: str) -> None:
    pilot = pilots.pilot(name)
    assert epsilon([pilot.private.mechanism] * pilot.private.rounds, pilot.budget.delta) <= pilot.budget.epsilon
    assert isinstance(pilot.private.mechanism, DPSGD)
    assert affordable_rounds((pilot.private.mechanism,), pilot.budget) == pilot.private.rounds


@pytest.mark.parametrize("name", pilots.names())
def test_a_pilots_model_starts_alike_whatever_the_seed(name: str) -> None:
    pilot = pilots.pilot(name)
    assert not vector.flatten(vector.build(pilot.model, 1)).any()
