from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from securefl.errors import BadInput, BudgetExceeded, LedgerError
from securefl.privacy import accountant
from securefl.privacy.ledger import Entry, Head, Ledger, Owner, Witness
from securefl.privacy.mechanism import DPSGD, SGD, Budget, Release, Skellam
from securefl.privacy.planning import affordable_rounds
from tests.securefl.privacy.ledgers import (
    BUDGET,
    DATA,
    IDENTITY,
    OWNER,
    ROUND,
    SMALL,
    STRANGER,
    TOGETHER,
    charge,
    charged,
    edit,
    opened,
    refused_unchanged,
)

NOISED = Skellam("update", noise_multiplier=8, scale=1e4, dimension=100, honest=10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_a_charge_is_what_it_says_and_is_chained(path: Path) -> None:
    with closing(opened(path)) as ledger:
        empty = ledger.head()
        first = ledger.charge("run", 1, 1, ROUND, DATA, simulated=True)
        second = charge(ledger, 2)
        assert ledger.entries() == (first, second)
        assert isinstance(first, Entry)
        assert (first.sequence, first.run, first.round, first.attempt) == (1, "run", 1, 1)
        assert (first.releases, first.budget, first.fingerprint) == (ROUND, BUDGET, DATA)
        assert (first.simulated, second.simulated) == (True, False)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", first.time)
        assert (empty.sequence, ledger.head()) == (0, Head(2, second.digest))
        assert (first.previous, second.previous) == (empty.digest, first.digest)
        assert [len(value) for value in (empty.digest, first.digest, first.signature)] == [32, 32, 64]


def test_the_header_says_whose_data_and_whom_privacy_hides(path: Path) -> None:
    with closing(opened(path, owner=Owner("hospital-1", "diagnoses", "patient"))) as ledger:
        header = ledger.header
    assert (header.client, header.data, header.unit) == ("hospital-1", "diagnoses", "patient")
    assert (header.neighbours, header.public_key) == ("add-or-remove-one", IDENTITY.public)
    with closing(opened(path, owner=Owner("hospital-1", "diagnoses", "patient"))) as ledger:
        assert ledger.header == header


def test_an_owner_without_a_name_or_with_an_unknown_unit_is_refused() -> None:
    for names in (("", "diagnoses"), ("hospital-1", "")):
        with pytest.raises(BadInput, match="give both a name"):
            Owner(*names)
    with pytest.raises(BadInput, match="choose one of record, patient, client"):
        Owner("hospital-1", "diagnoses", "visit")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        (replace(OWNER, client="hospital-2"), "is the ledger of 'hospital-1', not of 'hospital-2': open it under"),
        (replace(OWNER, data="x-rays"), "of the data set 'diagnoses', not of 'x-rays': open it under that name"),
        (replace(OWNER, unit="patient"), "hides each record, not each patient, .*: go on with the unit 'record'"),
        (replace(OWNER, unit="client"), "hides each record, not each client"),
    ],
)
def test_another_client_data_set_or_unit_is_refused_untouched(path: Path, owner: Owner, said: str) -> None:
    assert re.search(said, refused_unchanged(charged(path), owner))


def test_another_identity_is_refused_untouched(path: Path) -> None:
    said = refused_unchanged(charged(path), identity=STRANGER)
    assert f"by the identity {IDENTITY.public.hex()}, not by {STRANGER.public.hex()}: open it with" in said


def test_a_new_ledger_object_and_a_new_engine_every_round_do_not_reset_epsilon(path: Path) -> None:
    for number in range(1, 6):
        with closing(opened(path)) as ledger:
            charge(ledger, number)
            assert ledger.epsilon() == accountant.epsilon(ROUND * number, BUDGET.delta)
    assert accountant.epsilon(ROUND * 5, BUDGET.delta) > 1.1 * accountant.epsilon(ROUND, BUDGET.delta)


def test_a_budget_spans_runs_and_jobs(path: Path) -> None:
    other = DPSGD(noise_multiplier=3, sampling_rate=0.25, steps=5)
    with closing(opened(path)) as ledger:
        ledger.charge("first run", 1, 1, ROUND, DATA, simulated=False)
        ledger.charge("second run", 1, 1, [other], DATA, simulated=False)
        assert ledger.epsilon() == accountant.epsilon([*ROUND, other], BUDGET.delta)


def test_all_that_a_round_releases_is_charged_together() -> None:
    budget = Budget(accountant.epsilon([*TOGETHER, *ROUND], 1e-5), 1e-5)
    with closing(opened(budget=budget)) as ledger:
        ledger.charge("run", 1, 1, TOGETHER, DATA, simulated=False)
        with pytest.raises(BudgetExceeded):
            ledger.charge("run", 2, 1, TOGETHER, DATA, simulated=False)
        assert ledger.epsilon() == accountant.epsilon(TOGETHER, 1e-5)
        ledger.charge("run", 2, 1, ROUND, DATA, simulated=False)


def test_a_refused_charge_names_spent_after_cap_and_rounds_left_and_charges_nothing(path: Path) -> None:
    budget = Budget(epsilon=1.5, delta=1e-5)
    with closing(opened(path, budget)) as ledger:
        affordable = affordable_rounds(ROUND, budget)
        for number in range(1, affordable + 1):
            charge(ledger, number)
        spent, after = (accountant.epsilon(ROUND * count, 1e-5) for count in (affordable, affordable + 1))
        with pytest.raises(BudgetExceeded) as refusal:
            charge(ledger, affordable + 1)
        assert f"hospital-1: budget refused: spent epsilon {spent:.3f}, " in str(refusal.value)
        assert (refusal.value.spent, refusal.value.after) == (spent, after)
        assert (refusal.value.cap, refusal.value.rounds_left) == (1.5, 0)
        assert len(ledger.entries()) == affordable
        ledger.charge("run", affordable + 1, 2, SMALL, DATA, simulated=False)


def test_a_run_that_does_not_fit_is_refused_with_the_number_of_rounds_that_do(path: Path) -> None:
    affordable = affordable_rounds(ROUND, BUDGET)
    with closing(opened(charged(path, 3))) as ledger:
        ledger.check(ROUND, rounds=affordable - 3)
        with pytest.raises(BudgetExceeded) as refusal:
            ledger.check(ROUND, rounds=affordable)
        assert refusal.value.rounds_left == affordable - 3
        assert refusal.value.spent == accountant.epsilon(ROUND * 3, 1e-5)
        assert refusal.value.after == accountant.epsilon(ROUND * (affordable + 3), 1e-5)
        assert len(ledger.entries()) == 3


def test_rounds_of_several_kinds_are_refused_where_their_composition_exceeds_the_budget() -> None:
    """The rounds that still fit are counted down; another kind in between has them solved anew."""
    kinds: tuple[tuple[Release, ...], ...] = (ROUND, ROUND, SMALL, SMALL, ROUND)
    budget = Budget(1.6, 1e-5)
    fitted: list[Release] = []
    with closing(opened(budget=budget)) as ledger:
        for number, releases in enumerate(itertools.islice(itertools.cycle(kinds), 10), start=1):
            if accountant.epsilon([*fitted, *releases], 1e-5) <= budget.epsilon:
                ledger.charge("run", number, 1, releases, DATA, simulated=False)
                fitted += releases
            else:
                with pytest.raises(BudgetExceeded):
                    ledger.charge("run", number, 1, releases, DATA, simulated=False)
        assert 2 < len(ledger.entries()) < 10
        assert ledger.epsilon() == accountant.epsilon(fitted, 1e-5)


def test_a_refusal_of_a_large_round_still_counts_what_fits() -> None:
    huge = DPSGD(noise_multiplier=1e-100, sampling_rate=0.5, steps=3)
    with closing(opened()) as ledger, pytest.raises(BudgetExceeded) as refusal:
        ledger.charge("run", 1, 1, [huge], DATA, simulated=False)
    assert (refusal.value.spent, refusal.value.rounds_left, refusal.value.after) == (0.0, 0, float("inf"))


def test_the_owner_may_change_the_budget_and_each_entry_records_its_own(path: Path) -> None:
    charged(path)
    for number, budget in enumerate((Budget(10, 1e-5), Budget(2.5, 1e-6), None), start=4):
        with closing(opened(path, budget)) as ledger:
            assert charge(ledger, number).budget == budget
    with closing(opened(path, Budget(0.5, 1e-5))) as ledger:
        with pytest.raises(BudgetExceeded):
            charge(ledger, 7)
        assert [entry.budget for entry in ledger.entries()][2:] == [BUDGET, Budget(10, 1e-5), Budget(2.5, 1e-6), None]


def test_an_attempt_is_charged_once_and_a_retry_is_charged_again(path: Path) -> None:
    with closing(opened(charged(path))) as ledger:
        with pytest.raises(LedgerError, match="round 3, attempt 1 of run 'run' was charged before: a retry must"):
            charge(ledger, 3)
        charge(ledger, 3, 2)
        charge(ledger, 3, run="another run")
        assert ledger.epsilon() == accountant.epsilon(ROUND * 5, BUDGET.delta)


def test_data_that_changed_are_charged_on_and_the_change_is_recorded(path: Path) -> None:
    with closing(opened(charged(path))) as ledger:
        ledger.charge("run", 4, 1, ROUND, bytes(32), simulated=False)
        assert [entry.fingerprint == DATA for entry in ledger.entries()] == [True, True, True, False]
        assert ledger.epsilon() == accountant.epsilon(ROUND * 4, BUDGET.delta)


def test_what_has_no_epsilon_is_never_charged_budget_or_not() -> None:
    with closing(opened(budget=None)) as ledger:
        with pytest.raises(BadInput, match="SGD has no epsilon"):
            ledger.charge("run", 1, 1, [*ROUND, SGD(0.5, 3)], DATA, simulated=False)  # type: ignore[list-item]
        with pytest.raises(BadInput, match="a charge of nothing"):
            ledger.charge("run", 1, 1, [], DATA, simulated=False)
        with pytest.raises(BadInput, match="a fingerprint of 3 bytes"):
            ledger.charge("run", 1, 1, ROUND, b"abc", simulated=False)
        with pytest.raises(BadInput, match="SGD has no epsilon"):
            ledger.check([SGD(0.5, 3)])  # type: ignore[list-item]
        assert ledger.entries() == ()


def test_a_client_level_ledger_refuses_record_level_noise_and_charges_whole_clients() -> None:
    with closing(opened(owner=Owner("hospital-1", "diagnoses", "client"))) as ledger:
        assert ledger.header.neighbours == "zero-out"
        with pytest.raises(BadInput, match="the unit of this data set is a whole client"):
            charge(ledger, 1)
        ledger.charge("run", 1, 1, [NOISED], DATA, simulated=False)
        assert ledger.epsilon() == accountant.epsilon([NOISED], BUDGET.delta, "client")
        assert ledger.epsilon() < accountant.epsilon([NOISED], BUDGET.delta, "record")


def test_an_epsilon_without_a_budget_needs_a_delta() -> None:
    with closing(opened(budget=None)) as ledger:
        charge(ledger, 1)
        assert ledger.epsilon(1e-3) == accountant.epsilon(ROUND, 1e-3)
        with pytest.raises(BadInput, match="needs a delta"):
            ledger.epsilon()


def test_a_ledger_in_memory_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = set()
    for _ in range(2):
        with closing(opened()) as ledger:
            charge(ledger, 1)
            seen.add(Witness.decoded(ledger.witness()).ledger)
    assert os.listdir(tmp_path) == []
    assert len(seen) == 2, "two ledgers are taken for one that was rolled back"


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_a_charge_reads_and_verifies_only_what_is_new(path: Path) -> None:
    """Otherwise every charge of a long ledger costs what opening it does: here 60 charges, 10 ms or more."""
    with closing(opened(path, None)) as ledger, closing(opened(path, None)) as other:
        for number in range(60):
            charge(ledger, number)
        reading, *again = [seconds(other.entries) for _ in range(11)]
        assert len(other.entries()) == 60
    assert min(again) < reading / 5


def test_what_another_ledger_object_charged_counts_at_the_next_charge(path: Path) -> None:
    budget = Budget(2.0, 1e-5)
    affordable = affordable_rounds(ROUND, budget)
    with closing(opened(path, budget)) as one, closing(opened(path, budget)) as other:
        for number in range(affordable):
            charge((one, other)[number % 2], number)
        for ledger in (one, other):
            with pytest.raises(BudgetExceeded):
                charge(ledger, affordable)
        with pytest.raises(LedgerError, match="was charged before"):
            charge(one, 1)
        assert one.entries() == other.entries()
        assert one.witness() == other.witness()


@pytest.mark.parametrize(
    "statement", ["DELETE FROM entry WHERE sequence = 3", "UPDATE entry SET content = x'7b7d' WHERE sequence = 3"]
)
def test_tampering_with_the_end_of_an_open_ledger_is_noticed_at_the_next_charge(path: Path, statement: str) -> None:
    with closing(opened(charged(path))) as ledger:
        edit(path, statement)
        for _ in range(2):
            with pytest.raises(LedgerError, match="entry 3 was there before and is gone or changed"):
                charge(ledger, 4)


def test_tampering_before_the_end_of_an_open_ledger_refunds_nothing_and_is_noticed_when_it_is_opened(
    path: Path,
) -> None:
    with closing(opened(charged(path))) as ledger:
        edit(path, "DELETE FROM entry WHERE sequence = 2")
        charge(ledger, 4)
        assert ledger.epsilon() == accountant.epsilon(ROUND * 4, BUDGET.delta)
    assert "entry 2 does not follow" in refused_unchanged(path)


@pytest.mark.parametrize("replaced", [True, False])
def test_a_charge_in_a_file_that_was_replaced_or_removed_meanwhile_fails(path: Path, replaced: bool) -> None:
    """The open file lives on without a name: what is charged in it, no later run would see."""
    charged(path)
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    with closing(opened(path)) as ledger:
        if replaced:
            copy.replace(path)
        else:
            path.unlink()
        with pytest.raises(LedgerError, match="replaced or removed while it was open"):
            charge(ledger, 4)


def test_a_forked_process_cannot_use_its_parents_ledger(path: Path) -> None:
    program = (
        "import os, sys\n"
        "from tests.securefl.privacy.ledgers import charge, opened\n"
        "ledger = opened(sys.argv[1])\n"
        "if os.fork() == 0:\n"
        "    charge(ledger, 1)\n"
        "os.wait()\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, capture_output=True, text=True)
    assert "was opened before this process was forked off: open it in this process" in done.stderr
    with closing(opened(path)) as ledger:
        assert ledger.entries() == ()


def test_nothing_but_the_ledger_is_left_in_its_folder(path: Path) -> None:
    charged(path)
    assert os.listdir(path.parent) == [path.name]


def test_a_file_name_with_signs_that_mean_something_in_an_address_works(tmp_path: Path) -> None:
    odd = tmp_path / "a ledger?mode=memory#100%.sqlite"
    for attempt in (1, 2):
        with closing(opened(odd)) as ledger:
            charge(ledger, 1, attempt)
            assert len(ledger.entries()) == attempt


def test_threads_that_share_a_ledger_cannot_overspend(path: Path) -> None:
    budget = Budget(epsilon=2.0, delta=1e-5)
    affordable = affordable_rounds(ROUND, budget)
    counter, refused = itertools.count(1), []

    def spend(ledger: Ledger) -> None:
        for _ in range(affordable):
            try:
                charge(ledger, next(counter))
            except BudgetExceeded as refusal:
                refused.append(refusal)

    with closing(opened(path, budget)) as one, closing(opened(path, budget)) as other:
        threads = [threading.Thread(target=spend, args=(ledger,)) for ledger in (one, one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(one.entries()), len(refused)) == (affordable, 2 * affordable)


SPENDER = """
import sys
from securefl.errors import BudgetExceeded
from securefl.privacy.mechanism import Budget
from tests.securefl.privacy.ledgers import charge, opened
path, name, epsilon, rounds = sys.argv[1:]
sys.stdin.readline()
ledger = opened(path, Budget(float(epsilon), 1e-5) if float(epsilon) else None)
for number in range(int(rounds)):
    try:
        print(charge(ledger, number, run=name).sequence, flush=True)
    except BudgetExceeded:
        print("refused", flush=True)
"""


def spender(path: Path, name: str, epsilon: float, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SPENDER, str(path), name, str(epsilon), str(rounds)]
    root = Path(__file__).resolve().parents[3]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)


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
    affordable = affordable_rounds(ROUND, Budget(2, 1e-5))
    started += [spender(path, name, 2, affordable) for name in ("one", "other")]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [line for process in started for line in process.communicate(timeout=120)[0].split()]
    assert sorted(int(line) for line in said if line != "refused") == list(range(1, affordable + 1))
    with closing(opened(path)) as ledger:
        assert len(ledger.entries()) == affordable


def test_a_kill_in_mid_run_loses_no_charge(path: Path, started: list[subprocess.Popen[str]]) -> None:
    started.append(process := spender(path, "run", 0, 100_000))
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    said = [int(process.stdout.readline()) for _ in range(4)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.communicate()[0].split()]
    with closing(opened(path, None)) as ledger:
        found = [entry.sequence for entry in ledger.entries()]
        # One charge may be on disk that the process did not live to announce: it is charged, which is the safe side.
        assert found in (said, [*said, len(said) + 1])
        with pytest.raises(LedgerError, match="was charged before"):
            charge(ledger, 0)
        assert charge(ledger, 0, 2).sequence == len(found) + 1
