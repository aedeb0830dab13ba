"""A job file either becomes a complete job, or an error with key, problem and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefl import job
from securefl.errors import BadInput, BadJob
from securefl.job import file
from securefl.plan import AdaptiveClip, ClientLevel, HeldOut, PrivacyTerms
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.run import Run


def load(text: str, folder: Path) -> job.Job:
    path = folder / "job.toml"
    path.write_text(text, encoding="utf-8")
    return job.load(path)


def refused(toml: str, old: str, new: str) -> BadJob:
    assert old in toml
    with pytest.raises(BadJob) as caught:
        job.checked(file.parse(toml.replace(old, new, 1)))
    assert caught.value.remedy
    return caught.value


def test_a_job_says_what_its_file_says(toml: str, tmp_path: Path) -> None:
    found = load(toml, tmp_path)
    assert (found.name, found.rounds, len(found.clients)) == ("five hospitals", 10, 5)
    assert found.mechanism == DPSGD(4.0, 0.5, 3, 1.0)
    assert found.budget is not None
    assert (found.budget.epsilon, found.budget.delta) == (3.0, 1e-5)
    assert (found.threshold, found.minimum, found.client_weights) == (4, 4, (1.0,) * 5)


def test_colluders_and_bits_reach_the_protection(toml: str, tmp_path: Path) -> None:
    found = load(toml + "[protection]\ncolluders = 1\nbits = 24\n", tmp_path)
    assert (found.shield.colluders, found.shield.bits, found.minimum, found.threshold) == (1, 24, 4, 4)
    assert load(found.to_toml(), tmp_path) == found
    assert (load(toml, tmp_path).shield.colluders, load(toml, tmp_path).shield.bits) == (0, None)


def test_a_run_of_24_bits_that_withstands_a_colluder_is_resumed_from_its_folder(tmp_path: Path) -> None:
    tables = {"data": {"pilot": "breast-cancer"}, "job": {"rounds": 2}, "privacy": {"enabled": False}}
    asked = job.checked(tables | {"protection": {"colluders": 1, "bits": 24}})
    rounds = Run.create(asked, tmp_path / "run").rounds()
    assert next(rounds).round == 1
    rounds.close()
    again = Run.open(tmp_path / "run")
    assert (again.plan.colluders, again.plan.bits) == (1, 24)
    assert [record.round for record in again.rounds()] == [2]


def test_a_normalised_job_is_the_same_job(toml: str, tmp_path: Path) -> None:
    sections = '[weights]\nhospital-1 = 0.5\n[simulation]\nenabled = true\nseed = 7\ndrop = ["hospital-2@3:4"]\n'
    held_out = toml.replace('loader = "own_data:load"', HELD_OUT)
    for text in (toml + sections, held_out + METRICS + sections, toml.replace("epsilon = 3.0", CLIENT_LEVEL)):
        found = load(text, tmp_path)
        assert load(found.to_toml(), tmp_path) == found


def test_without_differential_privacy_training_is_plain_and_says_so(toml: str, tmp_path: Path) -> None:
    found = load(toml.replace("[privacy]", "[privacy]\nenabled = false"), tmp_path)
    assert found.mechanism == SGD(0.5, 3)
    assert found.budget is None
    assert any("differential privacy is off" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("rounds = 10", "rouns = 10", "job.rouns", "Did you mean 'rounds'?"),
        ("[training]", "[trainings]", "trainings", "Did you mean 'training'?"),
        ("rounds = 10", 'rounds = "ten"', "job.rounds", 'expected a whole number, got "ten"'),
        ("rounds = 10", "rounds = 2.5", "job.rounds", "expected a whole number, got 2.5"),
        ("rounds = 10", "rounds = 0", "job.rounds", "impossible value 0"),
        ("rounds = 10", "", "job.rounds", "missing"),
        ("steps = 3", "steps = true", "training.steps", "expected a whole number, got true"),
        ("sampling_rate = 0.5", "sampling_rate = 1.5", "training.sampling_rate", "impossible value 1.5"),
        ("learning_rate = 0.5", "learning_rate = nan", "training.learning_rate", "not a finite number"),
        ("noise_multiplier = 4.0", "noise_multiplier = inf", "privacy.noise_multiplier", "not a finite number"),
        ("epsilon = 3.0", "", "privacy.epsilon", "enabled = false"),
        ("delta = 1e-5", "delta = 0.5", "privacy.delta", "guarantees nothing"),
        ("epsilon = 3.0", "epsilon = 3.0\ntarget_epsilon = 1.0", "privacy.target_epsilon", "the noise is given"),
        ("epsilon = 3.0", "epsilon = 3.0\nadaptive_quantile = 0.5", "privacy.adaptive_quantile", 'unit = "client"'),
        ("epsilon = 3.0", "epsilon = 3.0\nadaptive_quantile = 2", "privacy.adaptive_quantile", "impossible value 2"),
        ("epsilon = 3.0", 'epsilon = 3.0\nunit = "patent"', "privacy.unit", "Did you mean 'patient'?"),
        ("epsilon = 3.0", "epsilon = 3.0\nadaptive_rate = 0", "privacy.adaptive_rate", "impossible value 0"),
        ("steps = 3", "", "training.steps", "either steps or epochs"),
        ("steps = 3", "steps = 3\nepochs = 1.0", "training.steps", "either steps or epochs"),
        ("steps = 3", "epochs = 0.0", "training.epochs", "how often a round sees a record"),
        ('loader = "own_data:load"', 'loader = "a:b"\ndisjoint = 1', "data.disjoint", "expected true or false, got 1"),
        ('loader = "own_data:load"', 'loader = "a:b"\nheld_out = 1', "data.held_out", "expected text in quotes, got 1"),
        ('loader = "own_data:load"', "", "data", "neither a pilot nor a loader"),
        ('loader = "own_data:load"', "loader = 3", "data.loader", "expected text in quotes, got 3"),
        ('factory = "own_data:model"', "", "model.factory", "no pilot to bring a model"),
        ('"hospital-1", ', '"../hospital", ', "data.clients", "cannot be a client's name"),
        ('"hospital-1", ', '"Hospital-2", ', "data.clients", "two clients have the same name"),
        ('"hospital-1", ', "7, ", "data.clients[0]", "expected text in quotes, got 7"),
        ('name = "five hospitals"', 'name = "\\u001b[2Jgone"', "job.name", "cannot be printed"),
        ("rounds = 10", "rounds = 10\nrounds = 11", "job file", "not valid TOML"),
    ],
)
def test_a_key_that_is_wrong_is_named_with_its_remedy(toml: str, old: str, new: str, key: str, words: str) -> None:
    error = refused(toml, old, new)
    assert error.key == key
    assert words in str(error)


@pytest.mark.parametrize(
    ("section", "key", "words"),
    [
        ('[protection]\nkind = "secag"', "protection.kind", "Did you mean 'secagg'?"),
        ("[protection]\nthreshold = 6", "protection.threshold", "6 is above the cohort of 5 clients"),
        ("[protection]\nthreshold = 2", "protection.threshold", "not a majority"),
        ("[protection]\nminimum = 9", "protection.minimum", "9 is above the cohort"),
        ("[protection]\nminimum = 1", "protection.minimum", "a sum of fewer hides nobody"),
        ('[protection]\nkind = "plain"\nthreshold = 4', "protection.threshold", "has no threshold"),
        ("[protection]\ncolluders = -1", "protection.colluders", "impossible value -1. Write how many clients"),
        ("[protection]\ncolluders = 1.5", "protection.colluders", "expected a whole number"),
        ("[protection]\ncolluders = 2", "protection.colluders", "Write colluders = 1, or name 9 clients"),
        (
            "[protection]\ncolluders = 1\nminimum = 3",
            "protection.colluders",
            "Write colluders = 0, or write minimum = 4",
        ),
        ('[protection]\nkind = "plain"\ncolluders = 1', "protection.colluders", "withstands no colluding client"),
        ('[protection]\nkind = "ckks-unmasked"\ncolluders = 1', "protection.colluders", "withstands no colluding"),
        ("[protection]\nbits = 20", "protection.bits", "impossible value 20. Write bits = 16, 24 or 32"),
        ("[protection]\nbits = 40", "protection.bits", "impossible value 40. Write bits = 16, 24 or 32"),
        ('[protection]\nbits = "24"', "protection.bits", "expected a whole number"),
        (
            '[protection]\nkind = "ckks"\nbits = 24',
            "protection.bits",
            "impossible value 24. Write bits = 32, 40, 48 or",
        ),
        ('[protection]\nkind = "ckks"\nprecision = -1', "protection.precision", "impossible value -1"),
        ('[protection]\nkind = "ckks"\nprecision = "fine"', "protection.precision", "expected a number"),
        (
            '[protection]\nkind = "ckks"\nprecision = 1e-9',
            "protection.precision",
            "is finer than CKKS has for 5 updates",
        ),
        ('[protection]\nkind = "ckks"\nkey_rounds = 2.5', "protection.key_rounds", "expected a whole number"),
        ('[protection]\nkind = "ckks"\nprofile = 3', "protection.profile", "expected text in quotes"),
        ("[weights]\nhospital-6 = 0.5", "weights.hospital-6", "no such client"),
        ("[weights]\nhospital-1 = 1.5", "weights.hospital-1", "not above 0 and at most 1"),
        ("[weights]\nhospital-1 = 0", "weights.hospital-1", "not above 0 and at most 1"),
        ('[weights]\nhospital-1 = "much"', "weights", "expected a number"),
        ('[simulation]\ndrop = ["hospital-9@2"]', "simulation.drop", "no client 'hospital-9'"),
        ('[simulation]\ndrop = ["hospital-1@7"]', "simulation.drop", "CLIENT@EXCHANGE"),
        ('[simulation]\ndrop = ["hospital-1@2:11"]', "simulation.drop", "round 11 never comes"),
        ('[simulation]\ndrop = "hospital-1@2"', "simulation.drop", "expected a list"),
        ("[simulation]\nseed = 7", "simulation.seed", "a seed undoes all noise, so it is for simulations only"),
        ("[simulation]\nenabled = true\nseed = -1", "simulation.seed", "impossible value -1"),
        ("[metrics]\nloss_bound = 2.0", "metrics", "either noised or exact. Write noise_multiplier = 5.0, or exact"),
        ("[metrics]\nexact = true\nnoise_multiplier = 5.0", "metrics", "either noised or exact"),
        ("[metrics]\nexact = true", "metrics", 'no held-out records to measure with. Write held_out = "package'),
        ("[metrics]\nnoise_multiplier = 0", "metrics.noise_multiplier", "impossible value 0"),
    ],
)
def test_a_section_that_cannot_work_is_refused_before_the_start(toml: str, section: str, key: str, words: str) -> None:
    error = refused(toml, "[job]", f"{section}\n[job]")
    assert error.key == key
    assert words in str(error)


CLIENT_LEVEL = 'epsilon = 9.0\nunit = "client"\nadaptive_quantile = 0.5'
METRICS = "[metrics]\nnoise_multiplier = 5.0\nloss_bound = 2.0\n"
HELD_OUT = 'loader = "own_data:load"\nheld_out = "own_data:held_out"\ndisjoint = true'


def test_noise_that_hides_clients_is_no_noise_on_records(toml: str) -> None:
    found = job.checked(file.parse(toml.replace("epsilon = 3.0", CLIENT_LEVEL)))
    assert found.mechanism == SGD(0.5, 3)
    # the count for the clip has five times the noise of the update
    assert found.terms == PrivacyTerms(ClientLevel(4.0, 1.0, AdaptiveClip(0.5, 0.2, 20.0)), unit="client")


def test_noise_that_hides_clients_is_refused_where_it_could_not(toml: str) -> None:
    asked = toml.replace("epsilon = 3.0", CLIENT_LEVEL).replace('loader = "own_data:load"', HELD_OUT)
    error = refused(asked, "[job]", f"{METRICS}[job]")
    assert error.key == "metrics" and "this job is to hide clients" in str(error)
    error = refused(asked, "[job]", "[weights]\nhospital-1 = 0.5\n[job]")
    assert error.key == "weights" and "clients that all weigh the same" in str(error)


def test_held_out_records_disjointness_and_simulation_reach_the_terms_of_the_plan(toml: str) -> None:
    text = METRICS + "[simulation]\nenabled = true\nseed = 7\n" + toml.replace('loader = "own_data:load"', HELD_OUT)
    found = job.checked(file.parse(text))
    assert found.terms == PrivacyTerms(None, HeldOut(5.0, 2.0), "record", disjoint=True, simulated=True)
    assert found.simulation.seed == 7
    exact = job.checked(file.parse(text.replace("noise_multiplier = 5.0\n", "exact = true\n", 1)))
    assert exact.terms.held_out == HeldOut(None, 2.0)


def test_epochs_are_as_many_steps_as_see_each_record_so_often(toml: str) -> None:
    assert job.checked(file.parse(toml.replace("steps = 3", "epochs = 1.0"))).steps == 2
    assert job.checked(file.parse(toml.replace("steps = 3", "epochs = 1.1"))).steps == 3


def test_a_job_that_only_says_what_it_may_spend_leaves_its_noise_to_be_solved_for(toml: str) -> None:
    found = job.checked(file.parse(toml.replace("noise_multiplier = 4.0", "target_epsilon = 1.0")))
    assert not found.calibrated and found.noise is None
    assert job.checked(file.parse(toml)).calibrated
    of_pilot = job.checked(file.parse('[data]\npilot = "breast-cancer"\n[privacy]\ntarget_epsilon = 1.0\n'))
    assert not of_pilot.calibrated


def test_an_unknown_pilot_comes_with_the_known_ones() -> None:
    with pytest.raises(BadJob, match=r"data\.pilot: unknown pilot 'brest-cancer'\. Did you mean 'breast-cancer'\?"):
        job.from_pilot("brest-cancer")
    with pytest.raises(BadJob, match=r"Known are: breast-cancer, clinic-llm, credit, credit-age, digits, heart, "):
        job.from_pilot("zzz")


@pytest.mark.parametrize("kind", ["secagg", "ckks"])
def test_fewer_than_three_clients_cannot_be_masked(toml: str, kind: str) -> None:
    two = toml.replace('"hospital-3", "hospital-4", "hospital-5"', "")
    with pytest.raises(BadJob, match=r"data\.clients: 2 clients under .*; it needs at least 3") as caught:
        job.checked(file.parse(f'{two}[protection]\nkind = "{kind}"\n'))
    assert caught.value.exit_code == 2


def test_three_clients_are_warned_that_nobody_may_drop_out(toml: str) -> None:
    three = job.checked(file.parse(toml.replace('"hospital-4", "hospital-5"', "")))
    assert three.threshold == 3
    assert any("no dropout is tolerated" in warning for warning in three.warnings)
    assert job.checked(file.parse(toml)).warnings == ()


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read the job file"):
        job.load(tmp_path / "none.toml")


def test_a_file_that_is_not_text_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8 text"):
        job.load(tmp_path / "job.toml")


def test_ledgers_lie_beside_the_job_file_so_that_a_second_run_does_not_forget(toml: str, tmp_path: Path) -> None:
    found = load(toml.replace('ledger = "ledgers"\n', ""), tmp_path)
    assert found.ledger_folder(tmp_path / "run-1") == found.ledger_folder(tmp_path / "run-2")
    assert found.ledger_folder(tmp_path / "run-1") == tmp_path / "ledgers" / "diagnoses"


def test_a_demo_keeps_its_ledgers_in_its_run_folder(tmp_path: Path) -> None:
    demo = job.from_pilot("breast-cancer")
    assert demo.ledger_folder(tmp_path / "run") == tmp_path / "run" / "ledgers"


def test_a_name_cannot_leave_the_folder_of_ledgers(toml: str, tmp_path: Path) -> None:
    text = toml.replace('name = "diagnoses"', 'name = "../../etc"').replace('ledger = "ledgers"\n', "")
    assert load(text, tmp_path).ledger_folder(tmp_path).parent == tmp_path / "ledgers"


def test_a_pilot_fills_what_the_file_leaves_out_and_the_file_wins() -> None:
    text = '[job]\nrounds = 4\n[data]\npilot = "breast-cancer"\n[privacy]\nepsilon = 1.5\n'
    found = job.checked(file.parse(text))
    assert found.rounds == 4
    assert found.budget is not None
    assert found.budget.epsilon == 1.5
    assert isinstance(found.mechanism, DPSGD)
    assert len(found.clients) == 5
    assert found.data.name == "breast-cancer"


def test_a_pilot_without_privacy_trains_by_its_public_recipe() -> None:
    assert isinstance(job.from_pilot("breast-cancer", private=False).mechanism, SGD)


def test_a_pilot_may_be_run_on_some_of_its_clients() -> None:
    text = '[data]\npilot = "breast-cancer"\nclients = ["hospital-1", "hospital-2", "hospital-4"]\n'
    found = job.checked(file.parse(text))
    assert len(found.client_weights) == 3
    assert found.federation().clients == ("hospital-1", "hospital-2", "hospital-4")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('name = "another budget"', "data.name"),
        ('loader = "a:b"', "data.loader"),
        ('test = "a:b"', "data.test"),
        ('held_out = "a:b"', "data.held_out"),
        ('clients = ["hospital-1", "hospital-2", "hospital-9"]', "data.clients"),
    ],
)
def test_a_pilots_data_is_the_pilots(line: str, key: str) -> None:
    with pytest.raises(BadJob) as caught:
        job.checked(file.parse(f'[data]\npilot = "breast-cancer"\n{line}\n'))
    assert caught.value.key == key


def test_two_pilots_on_the_same_records_are_charged_under_one_name() -> None:
    passing = job.checked(file.parse('[data]\npilot = "students-pass"\n'))
    assert passing.data.name == "students" and passing.privacy.ledger == "ledgers/students"
    with pytest.raises(BadJob, match="the data of this pilot is called 'students'"):
        job.checked(file.parse('[data]\npilot = "students-pass"\nname = "students-pass"\n'))


def test_a_silence_without_a_round_is_in_the_second(toml: str) -> None:
    text = toml + '[simulation]\ndrop = ["hospital-1@3", "hospital-2@0:5"]\n'
    silences = [(s.client, s.exchange, s.round) for s in job.checked(file.parse(text)).silences]
    assert silences == [("hospital-1", 3, 2), ("hospital-2", 0, 5)]


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.isprintable))
def test_any_printable_name_survives_a_file(name: str) -> None:
    about = job.from_pilot("breast-cancer").to_toml().replace('"breast-cancer"', file._literal(name), 1)
    assert about.startswith("[job]")
    assert job.checked(file.parse(about)).name == name


@given(st.text(max_size=60))
def test_a_slug_is_one_plain_folder_name(name: str) -> None:
    slug = job.slug(name)
    assert slug not in {"", ".", ".."}
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in slug)
