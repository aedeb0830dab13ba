"""Each way in which a run's statements can contradict the plan, the record or themselves is one named line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from msgspec.structs import replace

from securefl.privacy.mechanism import DPSGD
from securefl.report import contradictions, facts
from securefl.report.canonical import many
from securefl.report.statement import Charge, Head, Statement, sign
from tests.securefl.report.runs import CLIENT_LEVEL, IDENTITIES, JOB, NOT_PRIVATE, RUN, Scene

Change = Callable[[Statement], Statement]


def lines(folder: Path) -> list[str]:
    return list(contradictions.found(facts.read(folder)))


def only(client: str, change: Change) -> Change:
    return lambda statement: change(statement) if statement.client == client else statement


@pytest.mark.parametrize("toml", [JOB, CLIENT_LEVEL, NOT_PRIVATE, f"{JOB}[simulation]\nenabled = true\n"])
def test_an_honest_run_contradicts_nothing(tmp_path: Path, toml: str) -> None:
    assert lines(Scene(toml).write(tmp_path / "run")) == []


def spent_before(statement: Statement) -> Statement:
    """Earlier runs are in the ledger: their charges are not in the statement, and its epsilon cannot be recomputed."""
    return replace(statement, before=Head(4, "07" * 32), after=Head(14, "0a" * 32), epsilon_after=4.0)


def test_earlier_runs_in_a_ledger_contradict_nothing(tmp_path: Path) -> None:
    assert lines(Scene(change=spent_before).write(tmp_path / "run")) == []


CHANGES: dict[str, tuple[Change, str]] = {
    "another run": (lambda s: replace(s, run="f" * 32), f"hospital-2 signed a statement on another run, {'f' * 32}"),
    "another plan": (lambda s: replace(s, plan="00" * 32), "hospital-2 took part under another plan"),
    "another model": (lambda s: replace(s, model="00" * 32), "hospital-2 holds another final model"),
    "another relation": (lambda s: replace(s, neighbours="zero-out"), "is not the neighbouring relation of a record"),
    "an uncharged round": (
        lambda s: replace(s, charges=s.charges[:-1], epsilon_after=2.8),
        "hospital-2 contributed to round 10 and did not charge it",
    ),
    "a charge of less": (
        lambda s: replace(s, charges=(Charge(1, 1, (DPSGD(9.0, 0.5, 3),)), *s.charges[1:])),
        "hospital-2 charged something else than the plan releases",
    ),
    "a charge twice": (lambda s: replace(s, charges=(s.charges[0], *s.charges)), "charged one attempt twice"),
    "a smaller epsilon": (lambda s: replace(s, epsilon_after=1.0), "states epsilon 1, and its charges come to 2.98"),
    "a larger epsilon": (lambda s: replace(s, epsilon_after=5.0), "states epsilon 5, and its charges come to 2.98"),
    "less than before": (
        lambda s: replace(s, epsilon_before=5.0),
        "states epsilon 2.98891, and its charges come to 5 or more",
    ),
    "less than infinity": (
        lambda s: replace(s, epsilon_before="infinite"),
        "states epsilon 2.98891, and its charges come to inf or more",
    ),
    "infinity": (lambda s: replace(s, epsilon_after="infinite"), "epsilon infinite exceeds the budget of 9"),
    "infinity for what is finite": (
        lambda s: replace(s, epsilon_after="infinite"),
        "states epsilon inf, and its charges come to 2.98",
    ),
    "no epsilon": (lambda s: replace(s, epsilon_after="unknown"), "states a budget, and not what was spent of it"),
    "none before": (lambda s: replace(s, epsilon_before="none"), "states a budget, and not what was spent of it"),
    "no epsilon for this unit": (
        lambda s: replace(s, unit="client", neighbours="zero-out"),
        "the charges have no epsilon (DPSGD hides one record",
    ),
    "more than the budget": (lambda s: replace(s, epsilon_after=9.5), "epsilon 9.5 exceeds the budget of 9"),
    "a ledger that did not grow": (lambda s: replace(s, after=Head(3, "0a" * 32)), "the ledger grew by less"),
    "a seed": (
        lambda s: replace(s, simulated=True),
        "drew noise or samples from a seed, and the plan is no simulation",
    ),
    "a doubt": (lambda s: replace(s, doubts=("ada: set back",)), "hospital-2 says: ada: set back"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_false_statement_is_named(tmp_path: Path, name: str) -> None:
    change, expected = CHANGES[name]
    found = lines(Scene(change=only("hospital-2", change)).write(tmp_path / "run"))
    assert any(expected in line for line in found), found
    assert all("hospital-2" in line for line in found)


def less_than_earlier_runs(statement: Statement) -> Statement:
    return replace(spent_before(statement), epsilon_before=4.5)


def test_epsilon_does_not_fall_by_a_run(tmp_path: Path) -> None:
    found = lines(Scene(change=only("hospital-2", less_than_earlier_runs)).write(tmp_path / "run"))
    assert found == ["hospital-2 states epsilon 4, and its charges come to 4.5 or more"]


@pytest.mark.parametrize("spent", [12.0, "infinite"])
def test_who_refused_all_rounds_since_earlier_runs_had_spent_more_contradicts_nothing(
    tmp_path: Path, spent: float | Literal["infinite"]
) -> None:
    """An earlier run had a larger budget, or none."""

    def refused(statement: Statement) -> Statement:
        stands = Head(4, "07" * 32)
        return replace(
            statement, charges=(), before=stands, after=stands, epsilon_before=spent, epsilon_after=spent, refused=10
        )

    folder = Scene(change=only("hospital-3", refused)).write(tmp_path / "run")
    history = folder / "history.jsonl"
    history.write_text(history.read_text("utf-8").replace('"hospital-2","hospital-3"', '"hospital-2"'), "utf-8")
    assert lines(folder) == []


def test_charges_that_are_not_the_plans_are_named_and_not_computed(tmp_path: Path) -> None:
    """Hundreds of different ones would take many minutes."""
    different = tuple(Charge(n, 1, (DPSGD(1 + n / 1000, 0.123, 7),)) for n in range(1, 301))

    def extreme(statement: Statement) -> Statement:
        return replace(statement, charges=different, after=Head(300, "0a" * 32))

    folder = Scene(change=only("hospital-2", extreme)).write(tmp_path / "run")
    assert "hospital-2 charged something else than the plan releases" in lines(folder)


def test_a_forged_statement_is_named(tmp_path: Path) -> None:
    folder = Scene().write(tmp_path / "run")
    first, second, *others = Scene().statements
    forged = replace(second, statement=replace(second.statement, refused=3))
    (folder / "statements.json").write_bytes(many([first, forged, *others]))
    assert lines(folder) == ["hospital-2: the signature of hospital-2 does not verify"]


def test_two_statements_of_one_client_are_named(tmp_path: Path) -> None:
    folder = Scene().write(tmp_path / "run")
    (folder / "statements.json").write_bytes(many([*Scene().statements, Scene().statements[0]]))
    assert lines(folder) == ["hospital-1 signed 2 statements on one run"]


def test_a_client_outside_the_plan_is_named(tmp_path: Path) -> None:
    folder = Scene().write(tmp_path / "run")
    stranger = sign(replace(Scene().statements[0].statement, client="mallory"), IDENTITIES["hospital-1"])
    (folder / "statements.json").write_bytes(many([*Scene().statements, stranger]))
    assert lines(folder) == ["mallory is not in the plan"]


def test_a_client_that_cannot_read_the_model_contradicts_nothing(tmp_path: Path) -> None:
    blind = only("hospital-2", lambda statement: replace(statement, model="unknown"))
    assert lines(Scene(change=blind).write(tmp_path / "run")) == []


def test_rounding_of_another_machine_contradicts_nothing(tmp_path: Path) -> None:
    def shifted(statement: Statement) -> Statement:
        assert isinstance(statement.epsilon_after, float) and statement.run == RUN
        return replace(statement, epsilon_after=statement.epsilon_after * (1 + 1e-9))

    assert lines(Scene(change=shifted).write(tmp_path / "run")) == []
