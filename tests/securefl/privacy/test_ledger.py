from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from securefl.errors import BadInput, BudgetExceeded, LedgerError
from securefl.privacy import accountant
from securefl.privacy.ledger import Entry, Ledger
from securefl.privacy.mechanism import DPSGD, SGD, Budget

ROUND = DPSGD(noise_multiplier=4, sampling_rate=0.5, steps=3)
BUDGET = Budget(epsilon=3, delta=1e-5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def charged(path: Path) -> Path:
    """A closed ledger of hospital-1 with three charges."""
    with closing(Ledger(path, "hospital-1", BUDGET)) as ledger:
        for number in (1, 2, 3):
            ledger.charge("run", number, 1, ROUND)
    return path


def edit(path: Path, *statements: str) -> None:
    """What someone with a database tool and no scruples does: drop the triggers, edit, put them back."""
    with closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()


def refused_unchanged(path: Path, client: str = "hospital-1") -> str:
    """The message with which ``path`` is refused, after checking that neither it nor its folder was touched."""
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir(path.parent))
    with pytest.raises(LedgerError) as refusal:
        Ledger(path, client, BUDGET)
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir(path.parent))) == before
    return str(refusal.value)


def test_a_charge_is_what_it_says_and_is_chained(path: Path) -> None:
    with closing(Ledger(path, "hospital-1", BUDGET)) as ledger:
        empty = ledger.head()
        first = ledger.charge("run", 1, 1, ROUND)
        second = ledger.charge("run", 2, 1, ROUND)
        assert ledger.entries() == [first, second]
        assert isinstance(first, Entry)
        assert (first.sequence, first.run, first.round, first.attempt) == (1, "run", 1, 1)
        assert (first.mechanism, first.budget) == (ROUND, BUDGET)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", first.time)
        assert (first.previous, second.previous, ledger.head()) == (empty, first.digest, second.digest)
        assert {len(link) for link in (empty, first.digest, second.digest)} == {32}


def test_a_new_ledger_object_and_a_new_engine_every_round_do_not_reset_epsilon(path: Path) -> None:
    for number in range(1, 6):
        with closing(Ledger(path, "hospital-1", BUDGET)) as ledger:
            ledger.charge("run", number, 1, ROUND)
            assert ledger.epsilon() == accountant.epsilon([ROUND] * number, BUDGET.delta)
    assert accountant.epsilon([ROUND] * 5, BUDGET.delta) > 1.1 * accountant.epsilon([ROUND], BUDGET.delta)


def test_a_budget_spans_runs_and_jobs(path: Path) -> None:
    other = DPSGD(noise_multiplier=3, sampling_rate=0.25, steps=5)
    with closing(Ledger(path, "hospital-1", BUDGET)) as ledger:
        ledger.charge("first run", 1, 1, ROUND)
        ledger.charge("second run", 1, 1, other)
        assert ledger.epsilon() == accountant.epsilon([ROUND, other], BUDGET.delta)


def test_a_refused_charge_names_spent_after_cap_and_rounds_left_and_charges_nothing(path: Path) -> None:
    budget = Budget(epsilon=1.5, delta=1e-5)
    with closing(Ledger(path, "hospital-1", budget)) as ledger:
        affordable = accountant.affordable_rounds(ROUND, budget)
        for number in range(1, affordable + 1):
            ledger.charge("run", number, 1, ROUND)
        spent, after = (accountant.epsilon([ROUND] * count, 1e-5) for count in (affordable, affordable + 1))
        with pytest.raises(BudgetExceeded) as refusal:
            ledger.charge("run", affordable + 1, 1, ROUND)
        assert str(refusal.value) == (
            f"hospital-1: budget refused: spent epsilon {spent:.3f}, this round would make it {after:.3f}, "
            f"the cap is 1.500; rounds like this one that still fit: 0"
        )
        assert len(ledger.entries()) == affordable
        smaller = DPSGD(noise_multiplier=40, sampling_rate=0.5, steps=1)
        ledger.charge("run", affordable + 1, 2, smaller)


def test_a_refusal_of_a_large_round_still_counts_what_fits(path: Path) -> None:
    with closing(Ledger(path, "hospital-1", BUDGET)) as ledger, pytest.raises(BudgetExceeded) as refusal:
        ledger.charge("run", 1, 1, DPSGD(noise_multiplier=1e-100, sampling_rate=0.5, steps=3))
    assert (refusal.value.spent, refusal.value.rounds_left, refusal.value.after) == (0.0, 0, float("inf"))


def test_the_owner_may_change_the_budget_and_each_entry_records_its_own(charged: Path) -> None:
    for number, budget in enumerate((Budget(10, 1e-5), Budget(2.5, 1e-6), None), start=4):
        with closing(Ledger(charged, "hospital-1", budget)) as ledger:
            assert ledger.charge("run", number, 1, ROUND).budget == budget
    tight = Budget(0.5, 1e-5)
    with closing(Ledger(charged, "hospital-1", tight)) as ledger:
        with pytest.raises(BudgetExceeded):
            ledger.charge("run", 7, 1, ROUND)
        assert [entry.budget for entry in ledger.entries()][2:] == [BUDGET, Budget(10, 1e-5), Budget(2.5, 1e-6), None]


def test_an_attempt_is_charged_once_and_a_retry_is_charged_again(charged: Path) -> None:
    with closing(Ledger(charged, "hospital-1", BUDGET)) as ledger:
        with pytest.raises(LedgerError, match="round 3, attempt 1 of run 'run' was charged before: a retry must"):
            ledger.charge("run", 3, 1, ROUND)
        ledger.charge("run", 3, 2, ROUND)
        ledger.charge("another run", 3, 1, ROUND)
        assert ledger.epsilon() == accountant.epsilon([ROUND] * 5, BUDGET.delta)


def test_plain_sgd_is_never_charged(path: Path) -> None:
    with closing(Ledger(path, "hospital-1", None)) as ledger:
        with pytest.raises(BadInput, match="only DPSGD can be charged, not SGD"):
            ledger.charge("run", 1, 1, SGD(0.5, 3))  # type: ignore[arg-type]
        assert ledger.entries() == []


def test_an_epsilon_without_a_budget_needs_a_delta() -> None:
    with closing(Ledger(":memory:", "hospital-1", None)) as ledger:
        ledger.charge("run", 1, 1, ROUND)
        assert ledger.epsilon(1e-3) == accountant.epsilon([ROUND], 1e-3)
        with pytest.raises(BadInput, match="needs a delta"):
            ledger.epsilon()


def test_a_ledger_in_memory_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with closing(Ledger(":memory:", "hospital-1", BUDGET)) as ledger:
            ledger.charge("run", 1, 1, ROUND)
    assert os.listdir(tmp_path) == []


def test_nothing_but_the_ledger_is_left_in_its_folder(charged: Path) -> None:
    assert os.listdir(charged.parent) == [charged.name]


def test_a_file_name_with_signs_that_mean_something_in_an_address_works(tmp_path: Path) -> None:
    odd = tmp_path / "a ledger?mode=memory#100%.sqlite"
    for attempt in (1, 2):
        with closing(Ledger(odd, "hospital-1", BUDGET)) as ledger:
            ledger.charge("run", 1, attempt, ROUND)
            assert len(ledger.entries()) == attempt


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET content = 'x' WHERE sequence = 2",
        "DELETE FROM entry WHERE sequence = 3",
        "INSERT OR REPLACE INTO entry VALUES (3, 'x', 'y')",
        "INSERT INTO entry VALUES (5, 'x', 'y')",
        "UPDATE owner SET client = 'hospital-2'",
        "DELETE FROM owner",
    ],
)
def test_the_database_itself_refuses_everything_but_appending(charged: Path, statement: str) -> None:
    with closing(sqlite3.connect(charged)) as connection:
        with pytest.raises(sqlite3.IntegrityError, match=r"append-only|only grows"):
            connection.execute(statement)
        connection.rollback()
    with closing(Ledger(charged, "hospital-1", BUDGET)) as ledger:
        assert len(ledger.entries()) == 3


@pytest.mark.parametrize(
    "statement",
    [
        """UPDATE entry SET content = replace(content, '"steps":3', '"steps":1') WHERE sequence = 2""",
        "UPDATE entry SET content = CAST(content AS TEXT) WHERE sequence = 2",
        "UPDATE entry SET content = x'00ff' WHERE sequence = 1",
        "UPDATE entry SET digest = zeroblob(32) WHERE sequence = 3",
        "UPDATE entry SET sequence = 9 WHERE sequence = 3",
        "DELETE FROM entry WHERE sequence = 1",
        "DELETE FROM entry WHERE sequence = 2",
        "INSERT INTO entry SELECT 4, content, digest FROM entry WHERE sequence = 3",
        "UPDATE owner SET client = 'hospital-1' || x'00'",
        "DELETE FROM owner",
        "CREATE TABLE extra (x)",
        "CREATE TRIGGER forget AFTER INSERT ON entry BEGIN SELECT 1; END",
    ],
)
def test_tampering_is_noticed_and_nothing_is_charged(charged: Path, statement: str) -> None:
    edit(charged, statement)
    message = refused_unchanged(charged)
    assert re.search(r"was altered: .* restore the ledger from a backup|is the ledger of", message)


def test_a_ledger_whose_triggers_are_gone_is_refused(charged: Path) -> None:
    with closing(sqlite3.connect(charged)) as connection:
        connection.execute("DROP TRIGGER entry_delete")
        connection.commit()
    assert "the triggers that protect them are not as securefl made them" in refused_unchanged(charged)


def test_tampering_under_an_open_ledger_is_noticed_at_the_next_charge(charged: Path) -> None:
    with closing(Ledger(charged, "hospital-1", BUDGET)) as ledger:
        edit(charged, "DELETE FROM entry WHERE sequence = 2")
        with pytest.raises(LedgerError, match="entry 2 does not follow"):
            ledger.charge("run", 4, 1, ROUND)


def test_a_rolled_back_ledger_has_a_head_that_its_witnesses_do_not_know(charged: Path, tmp_path: Path) -> None:
    old = shutil.copy(charged, tmp_path / "old.sqlite")
    with closing(Ledger(charged, "hospital-1", BUDGET)) as ledger:
        ledger.charge("run", 4, 1, ROUND)
        witnessed = ledger.head()
    shutil.copy(old, charged)
    with closing(Ledger(charged, "hospital-1", BUDGET)) as ledger:
        assert witnessed not in {entry.digest for entry in ledger.entries()}


def test_a_file_that_is_not_sqlite_is_refused_untouched(path: Path) -> None:
    path.write_text("hospital-1 spent epsilon 1.2\n" * 40)
    assert "is not a ledger, or is damaged" in refused_unchanged(path)


def test_an_empty_file_is_refused_untouched(path: Path) -> None:
    path.touch()
    assert "is empty, which no ledger is" in refused_unchanged(path)


def test_a_database_of_another_program_is_refused_untouched(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
        connection.commit()
    assert "is a database of another program: choose another file name" in refused_unchanged(path)


@pytest.mark.parametrize(("version", "said"), [(0, "older format 0"), (2, "newer format 2, this securefl reads 1")])
def test_another_format_is_refused_untouched(charged: Path, version: int, said: str) -> None:
    with closing(sqlite3.connect(charged)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    assert said in refused_unchanged(charged)


def test_another_clients_ledger_is_refused_untouched(charged: Path) -> None:
    assert "is the ledger of 'hospital-1', not of 'hospital-2'" in refused_unchanged(charged, "hospital-2")


def test_a_damaged_ledger_is_refused_untouched(charged: Path) -> None:
    damaged = bytearray(charged.read_bytes())
    damaged[150:4096] = b"\x55" * (4096 - 150)
    charged.write_bytes(damaged)
    assert "restore it from a backup" in refused_unchanged(charged)


def test_a_folder_that_does_not_exist_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file or directory"):
        Ledger(tmp_path / "missing" / "ledger.sqlite", "hospital-1", BUDGET)


def test_a_folder_in_the_ledgers_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(tmp_path, "hospital-1", BUDGET)


def test_threads_that_share_a_ledger_cannot_overspend(path: Path) -> None:
    budget = Budget(epsilon=1.0, delta=1e-5)
    affordable = accountant.affordable_rounds(ROUND, budget)
    counter, refused = itertools.count(1), []

    def spend(ledger: Ledger) -> None:
        for _ in range(affordable):
            try:
                ledger.charge("run", next(counter), 1, ROUND)
            except BudgetExceeded as refusal:
                refused.append(refusal)

    with closing(Ledger(path, "hospital-1", budget)) as one, closing(Ledger(path, "hospital-1", budget)) as other:
        threads = [threading.Thread(target=spend, args=(ledger,)) for ledger in (one, one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(one.entries()), len(refused)) == (affordable, 2 * affordable)


SPENDER = """
import sys
from securefl.errors import BudgetExceeded
from securefl.privacy.ledger import Ledger
from securefl.privacy.mechanism import DPSGD, Budget
path, name, epsilon, rounds = sys.argv[1:]
sys.stdin.readline()
ledger = Ledger(path, "hospital-1", Budget(float(epsilon), 1e-5))
for number in range(int(rounds)):
    try:
        print(ledger.charge(name, number, 1, DPSGD(4, 0.5, 3)).sequence, flush=True)
    except BudgetExceeded:
        print("refused", flush=True)
"""


def spender(path: Path, name: str, epsilon: float, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SPENDER, str(path), name, str(epsilon), str(rounds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_two_processes_that_create_and_spend_at_once_cannot_overspend(
    path: Path, started: list[subprocess.Popen[str]]
) -> None:
    affordable = accountant.affordable_rounds(ROUND, Budget(1.2, 1e-5))
    started += [spender(path, name, 1.2, affordable) for name in ("one", "other")]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [line for process in started for line in process.communicate(timeout=120)[0].split()]
    assert sorted(int(line) for line in said if line != "refused") == list(range(1, affordable + 1))
    with closing(Ledger(path, "hospital-1", BUDGET)) as ledger:
        assert len(ledger.entries()) == affordable


def test_a_kill_in_mid_run_loses_no_charge(path: Path, started: list[subprocess.Popen[str]]) -> None:
    started.append(process := spender(path, "run", 1e4, 100_000))
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    said = [int(process.stdout.readline()) for _ in range(4)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.communicate()[0].split()]
    with closing(Ledger(path, "hospital-1", BUDGET)) as ledger:
        charged = [entry.sequence for entry in ledger.entries()]
        # One charge may be on disk that the process did not live to announce: it is charged, which is the safe side.
        assert charged in (said, [*said, len(said) + 1])
        with pytest.raises(LedgerError, match="was charged before"):
            ledger.charge("run", 0, 1, ROUND)
        assert ledger.charge("run", 0, 2, ROUND).sequence == len(charged) + 1
