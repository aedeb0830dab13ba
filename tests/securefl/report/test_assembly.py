"""What a report says of a run: its status, whose word each figure is, and "unknown" for what nobody knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import jsonschema
import msgspec
import pytest
from msgspec.structs import replace

from protocols.errors import Forged
from securefl import report
from securefl.errors import NotARun
from securefl.privacy.mechanism import Budget
from securefl.report import endorsements, facts, schema, status
from securefl.report.canonical import canonical
from securefl.report.canonical import read as read_canonical
from securefl.report.document import Report
from securefl.report.statement import Statement
from tests.securefl.report.runs import (
    CLIENT_LEVEL,
    CLIENTS,
    IDENTITIES,
    JOB,
    MODEL,
    NOT_PRIVATE,
    RUN,
    SURVEYED,
    Scene,
    found,
)

SIMULATION = "[simulation]\nenabled = true\n"
SCENES = {
    "record level": Scene(),
    "client level": Scene(f"{CLIENT_LEVEL}[protection]\ncolluders = 1\n"),
    "no privacy": Scene(NOT_PRIVATE),
    "ckks": Scene(f'{JOB}[protection]\nkind = "ckks"\n'),
    "plain": Scene(f'{JOB}[protection]\nkind = "plain"\n'),
    "simulation": Scene(f"{JOB}{SIMULATION}"),
    "unfinished": Scene(rounds=4),
    "nothing yet": Scene(rounds=0),
    "a survey": Scene(SURVEYED, found=found()),
    "a survey of which nobody told": Scene(SURVEYED),
    "a survey to come": Scene(SURVEYED, rounds=4),
    "a silent client": Scene(silent=frozenset({"hospital-4"})),
}


def assembled(scene: Scene, folder: Path) -> Report:
    return report.assembled(scene.write(folder / "run"))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("record level", "private"),
        ("client level", "private"),
        ("plain", "private"),
        ("no privacy", "not private"),
        ("simulation", "simulation"),
        ("unfinished", "unfinished"),
        ("nothing yet", "unfinished"),
        ("a silent client", "unfinished"),
        ("a survey", "private"),
        ("a survey to come", "unfinished"),
    ],
)
def test_a_run_has_one_word(tmp_path: Path, name: str, word: str) -> None:
    found = assembled(SCENES[name], tmp_path).status
    assert found.word == word
    assert found.reasons


def test_a_contradiction_comes_before_everything_else(tmp_path: Path) -> None:
    lied = Scene(f"{NOT_PRIVATE}{SIMULATION}", change=lambda statement: replace(statement, model="00" * 32))
    found = assembled(lied, tmp_path).status
    assert found.word == "violated"
    assert len(found.reasons) == 5


def test_what_an_audit_finds_is_a_violation(tmp_path: Path) -> None:
    from securefl.report import assembly, software

    found = facts.read(Scene().write(tmp_path / "run"))
    made = assembly.assemble(found, software.installed(), violations=["the audit's lower bound is above the claim"])
    assert (made.status.word, made.status.reasons) == ("violated", ("the audit's lower bound is above the claim",))


def test_an_infinite_epsilon_under_a_budget_is_a_violation_even_where_it_is_true(tmp_path: Path) -> None:
    """No budget is infinite: the client charged more than it allows."""
    weak = Scene(JOB.replace("noise_multiplier = 4.0", "noise_multiplier = 0.001"), change=_infinite)
    found = assembled(weak, tmp_path).status
    assert found.word == "violated"
    assert found.reasons == tuple(f"{name}: epsilon infinite exceeds the budget of 9" for name in CLIENTS)


def _infinite(statement: Statement) -> Statement:
    return replace(statement, epsilon_after="infinite")


@pytest.mark.parametrize("word", ["infinite", "none", "unknown"])
def test_a_claim_without_a_figure_is_not_private(tmp_path: Path, word: Literal["infinite", "none", "unknown"]) -> None:
    found = facts.read(Scene().write(tmp_path / "run"))
    first, *others = report.assembled(tmp_path / "run").owners
    first = replace(first, claims=tuple(replace(claim, epsilon=word) for claim in first.claims))
    made = status.of(found, [first, *others], (), ())
    assert made.word == "not private"
    assert "hospital-1: no epsilon towards the server" in made.reasons[0]


def test_a_silent_clients_figures_are_the_servers_copy_or_unknown(tmp_path: Path) -> None:
    owners = {owner.client: owner for owner in assembled(SCENES["a silent client"], tmp_path).owners}
    silent, heard = owners["hospital-4"], owners["hospital-3"]
    assert (silent.source, heard.source) == ("the server's copy", "signed statement")
    assert silent.epsilon_after == pytest.approx(0.93 * 10**0.5)
    assert {claim.epsilon for claim in silent.claims} == {"unknown"}
    assert (silent.before, silent.released, silent.simulated, silent.refused) == ("unknown",) * 4
    assert isinstance(heard.epsilon_after, float) and heard.simulated is False


def test_a_federation_is_claimed_only_when_all_have_spoken(tmp_path: Path) -> None:
    assert assembled(SCENES["a silent client"], tmp_path).federation == ()


def test_run_and_model_are_those_of_the_summary(tmp_path: Path) -> None:
    run = assembled(Scene(), tmp_path).run
    assert (run.id, run.model, run.rounds_done, run.rounds_planned) == (RUN, MODEL, 10, 10)


def test_what_an_unfinished_run_does_not_know_is_unknown(tmp_path: Path) -> None:
    made = assembled(SCENES["nothing yet"], tmp_path)
    assert (made.run.id, made.run.model, made.run.seconds, made.hazards, made.server_view) == ("unknown",) * 5
    assert made.utility.accuracy == "unknown"


@pytest.mark.parametrize("name", SCENES)
def test_a_report_is_valid_by_its_schema(tmp_path: Path, name: str) -> None:
    made = assembled(SCENES[name], tmp_path)
    described = msgspec.json.decode(schema.PATH.read_bytes())
    jsonschema.validate(msgspec.json.decode(canonical(made)), described, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", SCENES)
def test_a_report_that_was_written_is_read_back(tmp_path: Path, name: str) -> None:
    made = assembled(SCENES[name], tmp_path)
    report.write(tmp_path / "run", made)
    assert report.read(tmp_path / "run") == made


def test_every_field_is_always_there(tmp_path: Path) -> None:
    """Whatever object of the report a field is left out of, the report is refused."""
    tree = msgspec.json.decode(canonical(assembled(SCENES["nothing yet"], tmp_path)))
    for section in (tree, tree["run"], tree["utility"], tree["owners"][0], tree["owners"][0]["claims"][0]):
        for name in sorted(section.keys() - {"format"}):
            removed = section.pop(name)
            with pytest.raises(NotARun, match="missing required field"):
                read_canonical(msgspec.json.encode(tree, order="sorted"), Report, "the report")
            section[name] = removed


def test_the_schema_beside_the_code_is_that_of_the_types() -> None:
    assert schema.PATH.read_bytes() == schema.schema(), "run python -m securefl.report.schema"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(msgspec.json.decode(schema.schema()))


def test_a_report_depends_on_its_facts_only(tmp_path: Path) -> None:
    first = assembled(Scene(), tmp_path)
    assert canonical(first) == canonical(report.assembled(tmp_path / "run"))


def test_a_report_is_made_and_rendered_without_torch() -> None:
    program = (
        "import sys; from securefl.report import assembly, card, page, registry, software; "
        "sys.exit(', '.join({'torch', 'opacus', 'tenseal'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_clients_sign_the_report_that_holds_their_words(tmp_path: Path) -> None:
    made = assembled(Scene(), tmp_path)
    signed = [endorsements.endorse(made, own, IDENTITIES[own.statement.client]) for own in made.statements]
    whole = replace(made, signatures=tuple(signed))
    for endorsement in whole.signatures:
        endorsements.check_endorsement(whole, endorsement)  # the signatures of others change nothing
    assert [one.client for one in whole.signatures] == list(CLIENTS)


def test_a_client_does_not_sign_a_report_with_other_words(tmp_path: Path) -> None:
    made = assembled(Scene(), tmp_path)
    own = Scene(change=lambda statement: replace(statement, refused=1)).statements[0]
    with pytest.raises(NotARun, match="does not hold the statement of hospital-1"):
        endorsements.endorse(made, own, IDENTITIES["hospital-1"])


def test_a_changed_report_has_no_valid_signature(tmp_path: Path) -> None:
    made = assembled(Scene(), tmp_path)
    endorsement = endorsements.endorse(made, made.statements[0], IDENTITIES["hospital-1"])
    for changed in (replace(made, created="2026-01-01"), replace(made, hazards=()), replace(made, statements=())):
        with pytest.raises(Forged):
            endorsements.check_endorsement(changed, endorsement)


def test_a_statements_signature_is_none_of_the_report(tmp_path: Path) -> None:
    made = assembled(Scene(), tmp_path)
    own = made.statements[0]
    endorsement = endorsements.endorse(made, own, IDENTITIES["hospital-1"])
    assert endorsement.key == own.key
    with pytest.raises(Forged):
        endorsements.check_endorsement(made, replace(endorsement, signature=own.signature))


def test_budgets_may_differ(tmp_path: Path) -> None:
    def richer(statement: Statement) -> Statement:
        return replace(statement, budget=Budget(12.0, 1e-5)) if statement.client == "hospital-1" else statement

    made = assembled(Scene(change=richer), tmp_path)
    assert made.status.word == "private"
    assert made.owners[0].budget == Budget(12.0, 1e-5)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff\xfe", b'{"format": "securefl-privacy-report/1"}'])
def test_a_damaged_report_is_refused(tmp_path: Path, data: bytes) -> None:
    folder = Scene().write(tmp_path / "run")
    (folder / report.JSON).write_bytes(data)
    with pytest.raises(NotARun, match=r"privacy_report\.json is damaged"):
        report.read(folder)
