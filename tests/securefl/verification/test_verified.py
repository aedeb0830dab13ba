from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from benchmarks import forgery
from securefl import report as reports
from securefl.errors import BadInput, NotARun
from securefl.job.file import Table
from securefl.privacy.ledger import read
from securefl.report import words
from securefl.report.document import Report
from securefl.report.statement import Head
from securefl.run import Run
from securefl.verification import Verdict, lines, verified
from tests.securefl.verification import toy

HIDDEN: Table = {"unit": "client", "noise_multiplier": 8.0}
SEEDED: Table = {"enabled": True, "seed": 1, "drop": ["ada@1:1", "ada@1:2"]}  # ada joins, and charges nothing
ABSENT: Table = {"drop": ["ada@0:1", "ada@0:2"]}  # ada takes no part at all
SPARED: Table = {"threshold": 3}  # one client may be silent
# Protection, sections and status of runs in which nobody cheats.
HONEST: dict[str, tuple[str, dict[str, Table], str]] = {
    "no noise": ("secagg", {"privacy": {"enabled": False}}, "not private"),
    "clients hidden": ("secagg", {"privacy": HIDDEN}, "private"),
    "metrics": ("secagg", {"metrics": {"noise_multiplier": 8.0}, "privacy": {"unit": "patient"}}, "private"),
    "simulation": ("secagg", {"simulation": SEEDED, "protection": SPARED}, "simulation"),
    "one absent": ("secagg", {"simulation": ABSENT, "protection": SPARED}, "unfinished"),
}
MORE: dict[str, tuple[str, dict[str, Table], str]] = {
    "plain": ("plain", {"training": {"sampling_rate": 0.5}}, "private"),
    "ckks-unmasked": ("ckks-unmasked", {}, "private"),
    "clients hidden by an adaptive clip": ("ckks", {"privacy": HIDDEN | {"adaptive_quantile": 0.5}}, "private"),
    "exact metrics": ("ckks", {"metrics": {"exact": True}}, "not private"),
    "not disjoint": ("secagg", {"data": {"disjoint": False}, "simulation": {"drop": ["bob@3:2"]}}, "private"),
}


def in_order(folder: Path) -> Verdict:
    verdict = verified(folder)
    assert verdict.problems == ()
    return verdict


# ---- honest runs


@pytest.mark.parametrize("name", [*HONEST, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_an_honest_run_has_no_mismatch(tmp_path: Path, name: str) -> None:
    kind, sections, word = (HONEST | MORE)[name]
    verdict = in_order(toy.finished(toy.job(kind, **sections), tmp_path / "run"))
    assert (verdict.unchecked, verdict.status) == ((), word)
    assert set(verdict.keys) == set(toy.CLIENTS) - ({"ada"} if name == "one absent" else set())


def test_an_honest_run_under_secagg_and_ckks_has_no_mismatch(secagg: Path, ckks: Path) -> None:
    for folder in (secagg, ckks):
        verdict = in_order(folder)
        assert (verdict.unchecked, verdict.status) == ((), "private")
        headers = {name: read(folder / "ledgers" / f"{name}.sqlite").header for name in toy.CLIENTS}
        assert verdict.keys == {name: header.public_key.hex() for name, header in headers.items()}


def test_what_is_proven_and_what_is_not_is_said_with_the_keys_to_compare(secagg: Path) -> None:
    verdict = verified(secagg)
    said = list(lines(verdict))
    kinds = [line.split()[0] for line in said]
    assert kinds == sorted(kinds, key=["proves", "key", "skipped", "unproven", "status"].index)
    assert {"proves", "key", "unproven", "status"} == set(kinds)
    assert [line for line in said if line.startswith("unproven")] == [f"unproven  {one}" for one in words.CANNOT_PROVE]
    assert any("noised" in limit for limit in words.CANNOT_PROVE)
    for client, key in verdict.keys.items():
        assert any(client in line and key in line for line in said)


def test_nothing_is_said_to_be_proven_beside_a_mismatch(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"another")
    said = list(lines(verified(copy)))
    assert said[0] == "MISMATCH  model.safetensors: not the model that the report names"
    assert not any(line.startswith(("proves", "key")) for line in said)


def test_a_run_that_was_stopped_and_resumed_has_no_mismatch(tmp_path: Path) -> None:
    run = Run.create(toy.job(), tmp_path / "run")
    next(run.rounds())
    resumed = Run.open(tmp_path / "run")
    list(resumed.rounds())
    resumed.finish()
    in_order(tmp_path / "run")


def test_checking_changes_nothing_and_needs_no_place_to_write(copy: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    in_order(copy)
    assert {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()} == before


# ---- ledgers


def test_a_ledger_that_is_not_there_is_skipped_and_is_no_mismatch(copy: Path) -> None:
    (copy / "ledgers" / "bob.sqlite").unlink()
    verdict = in_order(copy)
    assert verdict.unchecked == (f"the ledger of bob is not at {copy / 'ledgers' / 'bob.sqlite'}",)
    assert any(line.startswith("skipped   the ledger of bob") for line in lines(verdict))


def test_ledgers_are_found_where_the_auditor_says(copy: Path) -> None:
    elsewhere = copy.rename(copy.with_name("moved")) / "ledgers"
    elsewhere = elsewhere.rename(copy.with_name("elsewhere"))
    assert len(in_order(copy.with_name("moved")).unchecked) == len(toy.CLIENTS)
    verdict = verified(copy.with_name("moved"), elsewhere)
    assert (verdict.problems, verdict.unchecked) == ((), ())
    forgery_target = elsewhere / "ada.sqlite"
    forgery_target.write_bytes((elsewhere / "bob.sqlite").read_bytes())
    (problem,) = verified(copy.with_name("moved"), elsewhere).problems
    assert problem.startswith("ledger of ada: ") and "is signed by" in problem


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Two runs, the second on ledgers that have the first one's charges."""
    place = tmp_path_factory.mktemp("two")
    shared: Table = {"ledger": str(place / "ledgers")}
    folders = [toy.finished(toy.job(privacy=shared), place / name) for name in ("first", "second")]
    yield folders[0], folders[1]


def test_a_run_still_verifies_when_its_ledgers_have_grown(second: tuple[Path, Path]) -> None:
    for folder in second:
        in_order(folder)
    said = reports.read(second[1]).statements[0].statement
    assert isinstance(said.before, Head) and said.before.sequence == 2
    assert isinstance(said.epsilon_after, float) and isinstance(said.epsilon_before, float)
    assert said.epsilon_after > said.epsilon_before > 0


def test_a_client_that_denies_what_was_charged_before_is_found_out_by_its_ledger(second: tuple[Path, Path]) -> None:
    """The epsilons that it states follow from its charges, as if they were the first."""
    place = second[0].parent / "denied"
    copy = Path(shutil.copytree(second[1], place / "run"))
    shutil.copytree(second[0].parent / "ledgers", place / "ledgers")
    forgery.text(copy / "job.toml", str(second[0].parent / "ledgers"), str(place / "ledgers"))
    in_order(copy)
    said = forgery.first(copy)
    nothing = Head(0, said.ledger)
    after = forgery.first(second[0]).epsilon_after
    forgery.sign_again(copy, replace(said, before=nothing, epsilon_before=0.0, epsilon_after=after))
    problems = verified(copy).problems
    assert "ledger of ada: another head before the run than in the statement" in problems
    assert any("ledger of ada: epsilon after the run comes to" in problem for problem in problems)


# ---- what is compared


def test_a_curve_that_is_drawn_otherwise_is_skipped_and_not_passed_over(copy: Path) -> None:
    page = copy / "report.html"
    before, opening, plot = page.read_text(encoding="utf-8").partition('aria-label="Accuracy')
    page.write_text(before + opening + re.sub(r"(<path d=\"M )(\d+)", r"\g<1>1\2", plot, count=3), encoding="utf-8")
    (skipped,) = in_order(copy).unchecked
    assert skipped.startswith("the curves in report.html")


def test_a_page_that_another_process_draws_is_the_same(copy: Path) -> None:
    program = "import sys; from pathlib import Path; from securefl import report; report.render(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(copy)], check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert in_order(copy).unchecked == ()


def test_a_figure_may_differ_by_rounding_which_is_a_part_of_itself_and_a_count_not_at_all(copy: Path) -> None:
    """A delta of 1e-5 is not near another because both are small."""

    def scale(report: Report) -> Report:
        owner, *others = report.owners
        changes = [("epsilon", 1 + 1e-9), ("epsilon", 1 - 1e-5), ("delta", 1 + 1e-9), ("delta", 1 + 1e-5)]
        pairs = zip(owner.claims, changes, strict=True)
        claims = tuple(replace(one, **{name: getattr(one, name) * factor}) for one, (name, factor) in pairs)
        flow, *flows = report.traffic
        more = replace(flow, up=replace(flow.up, bytes=flow.up.bytes + 1))
        return replace(report, owners=(replace(owner, claims=claims), *others), traffic=(more, *flows))

    forgery.report(copy, scale)
    found = [line.partition(" is ")[0] for line in verified(copy).problems if line.startswith("report: ")]
    assert found == [
        "report: owners[0].claims[1].epsilon",
        "report: owners[0].claims[3].delta",
        "report: traffic[0].up.bytes",
    ]


# ---- damaged folders


def test_a_folder_without_a_report_or_a_run_is_no_run(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(NotARun, match="finish the run first"):
        verified(tmp_path)
    (copy / "job.toml").unlink()
    with pytest.raises(NotARun, match=r"it has no job\.toml"):
        verified(copy)


def test_a_run_that_is_not_finished_has_no_report_to_verify(tmp_path: Path) -> None:
    next(Run.create(toy.job(), tmp_path / "run").rounds())
    with pytest.raises(NotARun, match="finish the run first"):
        verified(tmp_path / "run")


@pytest.mark.parametrize("name", ["plan.json", "summary.json", "statements.json", "history.jsonl", "transcript.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[[[[", b'{"run": "\xc3"}\n', b"null\n", b"[" * 100_000])
def test_a_damaged_file_is_named_or_what_it_lacks_is(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    try:
        assert verified(copy).problems
    except NotARun as error:
        assert name in str(error) or "damaged" in str(error)


def test_a_plan_that_can_be_no_plan_is_a_mismatch_and_not_a_crash(copy: Path) -> None:
    forgery.text(copy / "plan.json", '["ada","bob","cyd","dan"]', "[]")
    problems = verified(copy).problems
    assert "plan.json: not the plan that the report names" in problems
    assert any("cannot be checked" in problem for problem in problems)


mutations = st.tuples(st.integers(0, 1 << 20), st.binary(max_size=3), st.integers(0, 3))


def mutated(data: bytes, mutation: tuple[int, bytes, int]) -> bytes:
    """The data with some bytes put in the place of others."""
    place, put, cut = mutation[0] % len(data), *mutation[1:]
    return data[:place] + put + data[place + cut :]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutation=mutations)
def test_no_byte_of_the_report_can_be_changed_unnoticed(copy: Path, mutation: tuple[int, bytes, int]) -> None:
    path = copy / reports.JSON
    original = path.read_bytes()
    assume(mutated(original, mutation) != original)
    path.write_bytes(mutated(original, mutation))
    try:
        assert verified(copy).problems
    except NotARun:
        pass
    finally:
        path.write_bytes(original)


FILES = ("job.toml", "plan.json", "history.jsonl", "transcript.jsonl", "summary.json", "statements.json", "report.html")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), mutation=mutations)
def test_whatever_the_files_hold_the_answer_is_a_verdict_or_no_run(
    copy: Path, name: str, mutation: tuple[int, bytes, int]
) -> None:
    original = (copy / name).read_bytes()
    (copy / name).write_bytes(mutated(original, mutation))
    try:
        list(lines(verified(copy)))
    except BadInput:
        pass
    finally:
        (copy / name).write_bytes(original)


def test_a_ledger_that_is_garbage_is_a_mismatch(copy: Path) -> None:
    (copy / "ledgers" / "ada.sqlite").write_bytes(b"garbage" * 1000)
    (problem,) = verified(copy).problems
    assert problem.startswith("ledger of ada: ") and "is not a ledger" in problem


def test_heads_that_are_no_heads_are_a_mismatch(copy: Path) -> None:
    said = forgery.first(copy)
    forgery.sign_again(copy, replace(said, ledger="none", witnessed={"bob": "zz", "cyd": "00"}))
    problems = verified(copy).problems
    assert "ada states what is no head of the ledger of bob" in problems
    assert "ada states charges, and not where its ledger stood" in problems
    assert "ada states another ledger than bob saw" in problems
