from __future__ import annotations

import numpy as np
import pytest

from securefl import Client, SecAgg, Server, federate, job, training, vector
from securefl.errors import BadInput
from securefl.learning import Cohort
from securefl.objective import IGNORED
from securefl.pilots import keyboard, shakespeare
from securefl.pilots.keyboard import LENGTH, PILOT, START, UNKNOWN, WORDS
from securefl.plan import ClientLevel, PrivacyTerms
from securefl.privacy.mechanism import DPSGD, Budget
from securefl.privacy.planning import affordable_rounds

CLIENT_LEVEL = {
    "job": {"rounds": 8},
    "data": {"pilot": "keyboard"},
    "privacy": {"unit": "client", "noise_multiplier": 0.5, "clip": 0.5, "epsilon": 25.0, "delta": 1e-4},
    "training": {"sampling_rate": 0.5, "steps": 1, "learning_rate": 2.0},
    "cohort": {"sampling": "fixed", "size": 70, "participations": 3},
    "strategy": {"kind": "fedavg", "learning_rate": 3.0},
}


def test_the_declared_figures_are_consistent() -> None:
    assert len(set(PILOT.clients)) == len(PILOT.clients) == len(PILOT.weights) == len(PILOT.rows) == 209
    assert not set(PILOT.clients) & set(shakespeare.PUBLISHED)
    assert PILOT.weights == tuple(round(rows / max(PILOT.rows), 3) for rows in PILOT.rows)
    assert min(PILOT.weights) > 0 and max(PILOT.weights) == 1
    assert len(PILOT.classes) == WORDS


def test_the_budget_covers_the_private_recipe_and_not_one_round_more() -> None:
    recipe, budget = PILOT.private, PILOT.budget
    assert isinstance(recipe.mechanism, DPSGD)
    assert affordable_rounds((recipe.mechanism,), budget) == recipe.rounds
    assert budget.delta <= 0.1 / max(PILOT.rows)


@pytest.mark.parametrize("private", [True, False])
def test_it_is_a_job(private: bool) -> None:
    made = job.from_pilot("keyboard", private=private)
    assert made.clients == PILOT.clients and made.sizes == PILOT.rows


def test_a_job_can_hide_whole_roles() -> None:
    made = job.checked(CLIENT_LEVEL)
    assert made.client_level and made.declared_weights == {}
    assert made.asked == Cohort("fixed", 70, participations=3)


@pytest.mark.needs_data
def test_the_model_has_the_papers_sizes_and_this_vocabulary() -> None:
    module = vector.build(PILOT.model, 0)
    assert len(vector.flatten(module)) == 649_354
    training.check(module)


@pytest.mark.needs_data
def test_clients_are_the_roles_that_say_enough_and_rows_are_as_declared() -> None:
    assert PILOT.clients == shakespeare.roles()
    for client, rows in zip(PILOT.clients, PILOT.rows, strict=True):
        data, later = PILOT.load(client), keyboard.held_out(client)
        assert len(data) == rows
        assert data.features.shape[1] == later.features.shape[1] == LENGTH


@pytest.mark.needs_data
def test_the_vocabulary_is_of_roles_that_are_no_clients() -> None:
    found = keyboard.vocabulary()
    assert sorted(found.values()) == list(range(UNKNOWN + 1, WORDS))
    said = [word for line in shakespeare.published() for word in line]
    assert all(said.count(word) >= 2 for word in list(found)[-50:])
    assert found["the"] == 2


@pytest.mark.needs_data
def test_each_word_is_trained_on_once_in_order_and_what_is_later_is_held_out() -> None:
    known = keyboard.vocabulary() | {"": START}
    for role in ("juliet", "second-lord"):
        lines, later = shakespeare.training(role), shakespeare.held_out(role)
        ids = [known.get(word, UNKNOWN) for line in lines for word in line]
        data = PILOT.load(role)
        assert data.features.ravel()[: len(ids)].tolist()[: len(ids)] == ids[: data.features.size]
        following = [one if one > UNKNOWN else IGNORED for one in ids[1:]]
        padded = following + [IGNORED] * (data.labels.size - len(following))
        assert data.labels.ravel().tolist() == padded
        assert abs(len(later) / (len(lines) + len(later)) - 0.2) < 0.1


@pytest.mark.needs_data
def test_what_is_no_word_of_the_vocabulary_is_never_a_label() -> None:
    test = PILOT.test()
    labels = test.labels[test.labels != IGNORED]
    assert UNKNOWN < labels.min() <= labels.max() < WORDS
    assert (test.features == UNKNOWN).any()
    held = sum(bool(word) for role in PILOT.clients for line in shakespeare.held_out(role) for word in line)
    assert keyboard.coverage() == pytest.approx(0.852, abs=0.001)
    assert 0.98 < len(labels) / (held * keyboard.coverage()) <= 1  # a role's very first word is predicted from nothing


@pytest.mark.needs_data
def test_nobody_else_has_lines() -> None:
    with pytest.raises(BadInput, match="nobody is called 'hamlet'"):
        PILOT.load("hamlet")


@pytest.mark.needs_data
def test_a_round_hides_roles_under_masks_and_noise() -> None:
    names = ("all", "second-lord", "first-soldier", "lieutenant", "officer", "citizens")
    recipe, budget = PILOT.public, Budget(100.0, 1e-4)
    privacy = PrivacyTerms(ClientLevel(noise_multiplier=2.0, clip=0.5), unit="client")
    server = Server(
        *(PILOT.model, SecAgg(), recipe.mechanism, recipe.optimizer),
        rounds=1,
        privacy=privacy,
        cohort=Cohort("fixed", 4),
    )
    clients = [Client(name, PILOT.load(name), PILOT.model, budget=budget, unit="client") for name in names]
    (record,) = federate(server, clients)
    assert len(record.contributors) == 4
    spent = [client.epsilon() for client in clients]
    assert sorted(bool(one) for one in spent) == [False, False, True, True, True, True]
    model = server.model()
    assert model is not None and np.isfinite(model).all()
