"""``site.toml``: what it may say, and the words in which a mistake is told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from securefl.deployment import site_file, template
from securefl.errors import BadInput, BadJob
from securefl.plan import LocalOptimizer, Plan
from securefl.policy import Policy
from securefl.privacy.mechanism import DPSGD, Budget

OWN = """
name = "clinic"
[data]
name = "diabetes"
loader = "own:records"
held_out = "own:others"
test = "own:public"
[model]
factories = ["own:small", "own:large"]
[budget]
epsilon = 2
delta = 1e-6
unit = "patient"
[policy]
minimum = 4
protections = ["secagg"]
[training]
device = "cuda:1"
"""
CODE = """
import numpy as np
from torch import nn

def records(name):
    assert name == "clinic"
    return np.zeros((7, 3)), np.array([0, 1, 0, 1, 0, 1, 0])

def others(name):
    return np.zeros((2, 3)), np.array([0, 1])

def public():
    return np.zeros((3, 3)), np.array([0, 1, 1])

def small():
    return nn.Linear(3, 2)

def large():
    return nn.Sequential(nn.Linear(3, 9), nn.Linear(9, 2))
"""
PILOT = 'name = "hospital-2"\n[data]\npilot = "breast-cancer"\n'
PLAN = Plan(
    "trial",
    "secagg",
    ("a", "b", "c"),
    (1.0, 1.0, 1.0),
    1.0,
    3,
    None,
    1,
    DPSGD(1.0, 0.5, 1, 1.0),
    LocalOptimizer(0.1),
    "0" * 64,
    8,
    0,
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "own", raising=False)


def test_a_file_of_ones_own_says_everything(own: None) -> None:
    found = site_file.parse(OWN)
    assert (found.name, found.data_name, found.unit, found.device, found.seed) == (
        *("clinic", "diabetes", "patient", "cuda:1", None),
    )
    assert found.budget == Budget(2.0, 1e-6)
    assert found.policy == Policy(minimum=4, protections=("secagg",))
    held_out, test = found.held_out(), found.test()
    assert held_out is not None and test is not None
    assert (len(found.load()), len(held_out), len(test)) == (7, 2, 3)
    assert [sum(p.numel() for p in factory().parameters()) for factory in found.factories()] == [8, 56]


def test_a_pilot_brings_data_and_model() -> None:
    found = site_file.parse(PILOT)
    assert (found.data_name, found.budget, found.unit) == ("breast-cancer", None, "record")
    assert len(found.load()) > 0
    assert len(found.factories()) == 1
    assert found.test() is not None


def test_a_pilot_may_be_given_other_models(own: None) -> None:
    assert len(site_file.parse(PILOT + '[model]\nfactories = ["own:small"]\n').factories()) == 1


def test_plans_are_approved_by_hand_unless_the_owner_says_otherwise() -> None:
    assert not site_file.parse(PILOT).accepts(PLAN)
    assert site_file.parse(f'{PILOT}[accept]\nplans = ["{PLAN.digest().hex()}"]\n').accepts(PLAN)
    assert not site_file.parse(f'{PILOT}[accept]\nplans = ["{"0" * 64}"]\n').accepts(PLAN)
    assert site_file.parse(f'{PILOT}[accept]\nrule = "policy"\n').accepts_all


def test_the_file_that_is_written_first_is_valid_and_names_the_site() -> None:
    found = site_file.parse(template.site("hospital-1"))
    assert (found.name, found.data_name) == ("hospital-1", "hospital-1-data")
    assert found.budget == Budget(3.0, 1e-5)
    assert not found.accepts(PLAN)


def test_the_file_that_is_written_first_names_every_key() -> None:
    """All of the policy's, so that an owner sees what there is to decide; the rest at least in a comment."""
    text = template.site("x")
    tables = tomllib.loads(text)
    assert set(tables["policy"]) | {"architectures"} == set(Policy.__struct_fields__)
    for key in (*site_file.Data.__struct_fields__, *site_file.Allowance.__struct_fields__):
        assert f"\n{key} = " in text or f"\n# {key} = " in text, key


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("nam = 1", "nam", "unknown section. Did you mean 'name'?"),
        ('[data]\npilot = "heart"', "name", "missing. Write the name under which you were admitted"),
        ('name = "x"', "data", "missing. Add a section"),
        ("name = 3", "name", "expected text in quotes, got 3"),
        ('name = "x"\n[data]\n', "data.loader", 'missing. Write loader = "package.module:function"'),
        ('name = "x"\n[data]\nloader = "own:records"', "data.name", "missing. Name the data set"),
        ('name = "x"\n[data]\nloader = "a:b"\nname = "n"', "model.factories", "missing. Write factories"),
        (PILOT.replace("breast", "brest"), "data.pilot", "unknown pilot 'brest-cancer'. Did you mean 'breast-cancer'?"),
        (PILOT + 'loader = "a:b"', "data", "names a pilot and data of your own"),
        (PILOT.replace("hospital-2", "clinic"), "data.pilot", "no records for 'clinic'. A trial's sites are called"),
        (PILOT + "[budget]\nepsilon = 1", "budget.delta", "missing. Write a number between 0 and 1"),
        (PILOT + "[budget]\nepsilon = 1\ndelta = 2", "budget.delta", "impossible value 2"),
        (PILOT + '[budget]\nepsilon = 1\ndelta = 0.1\nunit = "x"', "budget.unit", "unknown value 'x'"),
        (PILOT + "[policy]\nminimun = 4", "policy.minimun", "unknown key. Did you mean 'minimum'?"),
        (PILOT + '[policy]\nminimum = "4"', "policy.minimum", 'expected a whole number, got "4"'),
        (PILOT + '[policy]\nprotections = ["secag"]', "policy.protections[0]", "Did you mean 'secagg'?"),
        (PILOT + '[policy]\nsame_cohort = "allways"', "policy.same_cohort", "unknown value 'allways'"),
        (PILOT + '[accept]\nplans = ["abc"]', "accept.plans[0]", "List plans by their SHA-256"),
        (PILOT + '[accept]\nrule = "all"', "accept.rule", "unknown value 'all'. Known are: none, policy"),
        (PILOT + '[training]\ndevice = "gpu"', "training.device", 'Write device = "cpu"'),
        (PILOT + "[simulation]\nseed = -1", "simulation.seed", "a seed protects nobody"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_to_write(text: str, key: str, words: str) -> None:
    with pytest.raises(BadJob) as raised:
        site_file.parse(text)
    assert raised.value.key == f"site.toml, {key}"
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PILOT + "[policy]\nminimum = 2", "site.toml: a policy's minimum and members are at least 3"),
        (PILOT + "[budget]\nepsilon = 1\ndelta = 1e-300", "site.toml: delta is 1e-300"),
        (PILOT.replace("hospital-2", "a b"), "site.toml: 'a b' is not a site's name"),
        ("name = [", "site.toml: not valid TOML"),
        ("name = " + "[" * 5000, "site.toml: nested too deeply"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_the_file(text: str, words: str) -> None:
    with pytest.raises(BadInput) as raised:
        site_file.parse(text)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("own:records", "own:recrods", "data.loader"),
        ("own:others", "nowhere:others", "data.held_out"),
        ("own:public", "own.public", "data.test"),
        ("own:large", "own:lareg", "model.factories"),
    ],
)
def test_code_that_is_not_installed_is_told_with_its_key(old: str, new: str, key: str, own: None) -> None:
    found = site_file.parse(OWN.replace(old, new))
    with pytest.raises(BadJob) as raised:
        found.load(), found.held_out(), found.test(), found.factories()
    assert raised.value.key == f"site.toml, {key}"


def test_a_file_that_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    with pytest.raises(BadInput, match="cannot read the site's file"):
        site_file.read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(BadInput, match="not text in UTF-8"):
        site_file.read(path)
