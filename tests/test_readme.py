"""What the README shows is run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_python_example_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    code = block("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("round 15: 5 contributors, accuracy 0.9")


def test_the_owners_terms_are_those_of_a_policy() -> None:
    from securefl import Budget, Client, Policy
    from tests.securefl.federation import model, records

    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
    names = {"Budget": Budget, "Client": Client, "Policy": Policy, "data": records(0), "model": model}
    owner = eval(compile(code.strip(), "README.md", "eval"), names)  # noqa: S307
    assert owner.policy == Policy(protections=("secagg", "ckks"), minimum=5, colluders=1, share=0.4)


def test_the_job_example_is_a_valid_job() -> None:
    from securefl import job

    assert job.checked(tomllib.loads(block("toml"))).clients == ("site-a", "site-b", "site-c")


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (root / target).exists(), target
