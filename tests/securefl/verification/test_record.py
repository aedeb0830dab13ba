from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace as put
from pathlib import Path

import pytest
from msgspec.structs import replace

from securefl.plan import Plan
from securefl.records import RoundRecord, Summary
from securefl.report import declared, facts
from securefl.report.facts import Facts
from securefl.run_folder import PLAN
from securefl.verification import record


def rounds(change: Callable[[tuple[RoundRecord, ...]], tuple[RoundRecord, ...]]) -> Callable[[Facts], Facts]:
    return lambda found: put(found, history=change(found.history))


def last(**values: object) -> Callable[[Facts], Facts]:
    return rounds(lambda found: (*found[:-1], replace(found[-1], **values)))


def summed(change: Callable[[Summary], Summary]) -> Callable[[Facts], Facts]:
    return lambda found: put(found, summary=found.summary and change(found.summary))


def planned(change: Callable[[Plan], Plan]) -> Callable[[Facts], Facts]:
    return lambda found: put(found, plan=change(found.plan))


# What is changed in a run's facts, and what is said of it.
CHANGES: dict[str, tuple[Callable[[Facts], Facts], str]] = {
    "a round twice": (
        rounds(lambda found: (*found, found[-1])),
        r"history\.jsonl: round 2 stands where round 3 should",
    ),
    "a stranger": (last(contributors=("ada", "bob", "cyd", "eve")), r"history\.jsonl: round 2 has not 3 or more"),
    "too few": (last(contributors=("ada", "bob")), r"history\.jsonl: round 2 has not 3 or more contributors"),
    "one client twice": (last(contributors=("ada", "ada", "bob")), r"history\.jsonl: round 2 has not 3 or more"),
    "a round less": (rounds(lambda found: found[:1]), r"history\.jsonl: bob charged round 2, which is not in it"),
    "no end": (rounds(lambda found: found[:1]), r"history\.jsonl: 1 rounds of 2, and a summary as of a finished run"),
    "other clients": (
        planned(lambda plan: replace(plan, clients=("ada",))),
        rf"job\.toml: gives another clients than {PLAN}",
    ),
    "another bound": (planned(lambda plan: replace(plan, bound=1.0)), rf"job\.toml: gives another bound than {PLAN}"),
    "fewer rounds": (summed(lambda found: replace(found, rounds=1)), r"summary\.json: rounds is 1 and comes to 2"),
    "a lower figure": (
        summed(lambda found: replace(found, epsilon=0.1)),
        r"summary\.json: epsilon is 0\.1 and comes to",
    ),
    "another delta": (summed(lambda found: replace(found, delta=1e-9)), r"summary\.json: delta is 1e-09"),
    "nobody's epsilon": (
        summed(lambda found: replace(found, epsilon=None, epsilon_by_client={})),
        r"summary\.json: has epsilons of other clients",
    ),
    "a modest server": (
        summed(lambda found: replace(found, server_view=replace(found.server_view, updates_received=0))),
        r"summary\.json: server_view is ",
    ),
    "a milder hazard": (
        summed(lambda found: replace(found, hazards=(replace(found.hazards[0], weight="assumed"),))),
        r"summary\.json: hazards is",
    ),
}


def only(kind: str) -> Callable[[Facts], Facts]:
    """A summary that lists one hazard of those that it listed."""
    return summed(lambda found: replace(found, hazards=tuple(one for one in found.hazards if one.kind == kind)))


@pytest.mark.parametrize(
    ("kept", "missing"),
    [("single-process", ["scales the features", "declared public"]), ("preprocessing", ["one process"])],
)
def test_hazards_that_the_job_implies_and_the_summary_leaves_out_are_named(
    secagg: Path, kept: str, missing: list[str]
) -> None:
    found = [line for line in record.mismatches(only(kept)(facts.read(secagg))) if "leaves out a hazard" in line]
    assert all(any(words in line for line in found) for words in missing), found
    assert not any(kept in line for line in found)


def test_a_run_tells_of_what_its_job_implies(secagg: Path) -> None:
    found = facts.read(secagg)
    assert found.summary is not None and found.summary.hazards == declared.of_run(found.job, found.engine)


def test_what_a_client_calls_its_data_is_what_the_job_names(secagg: Path) -> None:
    found = facts.read(secagg)
    other = put(found, job=replace(found.job, data=replace(found.job.data, name="heart")))
    assert "job.toml: the data set is heart, and ada states toy" in list(record.mismatches(other))


def test_an_honest_record_agrees_with_plan_and_statements(secagg: Path, ckks: Path) -> None:
    for folder in (secagg, ckks):
        assert list(record.mismatches(facts.read(folder))) == []


def test_of_a_run_that_is_not_finished_no_round_is_missing(secagg: Path) -> None:
    found = facts.read(secagg)
    assert list(record.mismatches(put(found, history=found.history[:1], summary=None, statements=()))) == []


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_record_cannot_say_is_named(secagg: Path, name: str) -> None:
    change, line = CHANGES[name]
    found = list(record.mismatches(change(facts.read(secagg))))
    assert any(re.match(line, one) for one in found), found


def test_an_epsilon_above_what_was_stated_may_be_of_other_runs_meanwhile(secagg: Path) -> None:
    def more(found: Summary) -> Summary:
        return replace(found, epsilon=8.0, epsilon_by_client=found.epsilon_by_client | {"ada": 8.0})

    assert list(record.mismatches(summed(more)(facts.read(secagg)))) == []
