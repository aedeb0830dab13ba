"""A ledger that is set back to an older copy is noticed: by the server, which leaves out its owner, and by peers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.aggregation.session import Roster
from protocols.errors import Inconsistent, MalformedMessage, ProtocolError
from protocols.primitives import Identity
from securefl import DPSGD, SGD, Client, Ledger, Server, Store
from securefl.account import load_identity
from securefl.errors import NotARun, RoundFailed
from securefl.plan import ClientLevel, PrivacyTerms
from securefl.privacy.ledger import Head, Owner, Witness
from securefl.privacy.mechanism import Budget
from securefl.report.statement import Statement
from securefl.round import enrol
from securefl.testimony import statement
from securefl.witnesses import Witnesses
from tests.securefl.federation import CELLS, NAMES, RUN, client, direct, server

ALICE, BOB = (Identity.generate(os.urandom).public for _ in range(2))


def head(ledger: int, sequence: int, link: int = 0) -> bytes:
    """What a ledger of that number shows after so many charges; ``link`` tells histories of one length apart."""
    name = bytes([ledger]) * 32
    return Witness(name, Head(sequence, bytes([100 + link]) * 32 if sequence else name)).encoded()


def refusal(memory: Witnesses, shown: bytes, run: str = "run", owner: bytes = ALICE) -> str:
    with pytest.raises(Inconsistent) as caught:
        memory.see(run, owner, "ada", shown)
    return str(caught.value)


# ---- one memory


def test_a_ledger_that_grows_or_stays_is_seen_again_and_again() -> None:
    memory = Witnesses(Store())
    for sequence in (0, 0, 1, 1, 5):
        memory.see("run", ALICE, "ada", head(1, sequence))
    seen = memory.of("run", ALICE)
    assert seen is not None
    assert (seen.head, seen.contradiction) == (head(1, 5), "")


@pytest.mark.parametrize(
    ("later", "why"),
    [
        (head(1, 2), "rolled back: it had 3 charges and now has 2"),
        (head(1, 0), "rolled back: it had 3 charges and now has 0"),
        (head(1, 3, link=1), "rolled back: charge 3 is another one"),
        (head(2, 9), "another ledger"),
        (b"", "does so no longer"),
    ],
)
def test_what_one_ledger_cannot_show_after_the_other_is_refused_by_name(later: bytes, why: str) -> None:
    memory = Witnesses(Store())
    memory.see("run", ALICE, "ada", head(1, 3))
    message = refusal(memory, later)
    assert "ada" in message and why in message


def test_what_was_seen_first_stays_and_so_does_the_doubt() -> None:
    """A rollback that was seen once is not forgotten when the true ledger is back."""
    memory = Witnesses(Store())
    memory.see("run", ALICE, "ada", head(1, 3))
    refusal(memory, head(1, 2))
    refusal(memory, head(1, 2))
    memory.see("run", ALICE, "ada", head(1, 4))
    seen = memory.of("run", ALICE)
    assert seen is not None
    assert seen.head == head(1, 4) and "rolled back" in seen.contradiction
    refusal(memory, head(1, 3))


def test_another_run_may_have_another_ledger_and_still_knows_the_one_from_before() -> None:
    """Other data, other ledger; but the same one is no shorter in a later run."""
    memory = Witnesses(Store())
    memory.see("one", ALICE, "ada", head(1, 3))
    memory.see("two", ALICE, "ada", head(2, 0))
    assert "rolled back: it had 3 charges and now has 2" in refusal(memory, head(1, 2), "three")
    memory.see("three", ALICE, "ada", head(1, 3))


def test_another_owner_s_ledgers_are_its_own() -> None:
    """Nobody can have another left out by showing that one's head first."""
    memory = Witnesses(Store())
    memory.see("run", BOB, "bob", head(1, 9))
    memory.see("run", ALICE, "ada", head(1, 3))
    assert memory.of("run", BOB) != memory.of("run", ALICE)


def test_who_keeps_no_ledger_shows_nothing_ever() -> None:
    memory = Witnesses(Store())
    for _ in range(2):
        memory.see("run", ALICE, "ada", b"")
    assert memory.of("run", ALICE) is None


def test_memory_outlives_the_process(tmp_path: Path) -> None:
    for shown in (3, 2):
        memory = Witnesses(Store(tmp_path / "store"))
        if shown == 3:
            memory.see("run", ALICE, "ada", head(1, shown))
        else:
            assert "rolled back" in refusal(memory, head(1, shown))
        memory.save()
    found = Witnesses(Store(tmp_path / "store")).of("run", ALICE)
    assert found is not None and "rolled back" in found.contradiction


def test_any_number_of_heads_is_one_write() -> None:
    store = Store()
    memory = Witnesses(store)
    for owner in range(100):
        memory.see("run", bytes([owner]) * 32, "ada", head(owner, 1))
    assert Witnesses(store).of("run", bytes(32)) is None
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    memory.save()
    memory.save()
    assert statements.count("COMMIT") == 1
    assert all(Witnesses(store).of("run", bytes([owner]) * 32) for owner in range(100))


def test_a_server_remembers_heads_of_attempts_that_failed(tmp_path: Path) -> None:
    coordinator = server(mechanism=DPSGD(4.0, 1.0, 1), folder=tmp_path)
    owners = [client(name, BUDGET, tmp_path) for name in NAMES]
    enrol(coordinator, owners)
    answers = iter(range(100))
    with pytest.raises(RoundFailed):
        coordinator.round(direct(owners, lambda name, reply: reply if next(answers) < len(owners) else None))
    again = Witnesses(Store(tmp_path / "server.store"))
    assert all(again.of(RUN, owner.public_key) for owner in owners)


def test_a_memory_that_was_damaged_is_not_taken_for_none() -> None:
    store = Store()
    store.put({f"witness {ALICE.hex()} run run": b"\xc1 garbage"})
    with pytest.raises(NotARun, match="restore that store"):
        Witnesses(store).of("run", ALICE)


@given(st.binary(max_size=200) | st.binary(min_size=72, max_size=72), st.booleans())
def test_any_bytes_are_a_head_or_a_protocol_error(shown: bytes, before: bool) -> None:
    memory = Witnesses(Store())
    if before:
        memory.see("run", ALICE, "ada", head(1, 3))
    try:
        memory.see("run", ALICE, "ada", shown)
    except ProtocolError:
        return
    found = memory.of("run", ALICE)
    assert (found.head if found else b"") == shown


SHOWN = st.one_of(
    st.just(b""), st.binary(max_size=80), st.builds(head, st.integers(1, 2), st.integers(0, 4), st.integers(0, 1))
)


@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), SHOWN), max_size=12))
def test_of_all_that_is_admitted_in_a_run_each_can_follow_the_one_before(shown: list[tuple[str, bytes]]) -> None:
    memory = Witnesses(Store())
    admitted: dict[str, Witness] = {}
    for run, data in shown:
        try:
            memory.see(run, ALICE, "ada", data)
        except ProtocolError:
            continue
        if data:
            found = Witness.decoded(data)
            assert run not in admitted or found.contradicts(admitted[run]) is None
            admitted[run] = found
        else:
            assert run not in admitted


# ---- whole rounds, with ledgers in files

BUDGET = Budget(100.0, 1e-5)
LEVEL = PrivacyTerms(ClientLevel(4.0, 1.0), unit="client")
ONE_STEP = SGD(sampling_rate=1.0, steps=1)


class Federation:
    """Five clients with ledgers in files. ``bob`` keeps an older copy of his."""

    def __init__(self, cell: str, folder: Path) -> None:
        self.folder, self.cell = folder, cell
        self.server = self.new_server()
        self.owners = {name: client(name, BUDGET, folder, unit="client") for name in NAMES}
        enrol(self.server, list(self.owners.values()))
        self.server.set_up(direct(list(self.owners.values())))

    @property
    def roster(self) -> dict[str, bytes]:
        return {name: owner.public_key for name, owner in self.owners.items()}

    def new_server(self) -> Server:
        return server(self.cell, ONE_STEP, self.folder, privacy=LEVEL)

    def restart_server(self) -> None:
        self.server = self.new_server()
        self.server.enrol(self.roster)

    def copy_ledger(self) -> None:
        shutil.copy(self.folder / "bob.ledger", self.folder / "older copy")

    def close(self) -> None:
        self.owners["bob"].account.ledger.close()

    def set_back(self) -> None:
        """Bob goes on with the older copy, in a new process."""
        self.close()
        shutil.copy(self.folder / "older copy", self.folder / "bob.ledger")
        self.reopen(client("bob", BUDGET, self.folder, unit="client"))

    def reopen(self, bob: Client) -> None:
        assert bob.public_key == self.owners["bob"].public_key
        self.owners["bob"] = bob
        bob.pin(self.roster, self.server.plan)

    def round(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Who contributed, and who was lost and why."""
        outcome = self.server.round(direct(list(self.owners.values())))
        return outcome.contributors, dict(outcome.dropped)

    def rounds(self, count: int) -> None:
        for _ in range(count):
            assert self.round() == (NAMES, {})

    def doubts(self) -> dict[str, tuple[str, ...]]:
        """What each client would state about the others' ledgers now."""
        return {name: self._said(owner).doubts for name, owner in self.owners.items()}

    def witnessed(self) -> dict[str, dict[str, str]]:
        return {name: self._said(owner).witnessed for name, owner in self.owners.items()}

    def _said(self, owner: Client) -> Statement:
        return statement(owner.account, RUN, self.server.plan, Roster(dict(self.roster)), "unknown")


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[[str], Federation]]:
    made: list[Federation] = []

    def make(cell: str = "secagg") -> Federation:
        made.append(Federation(cell, tmp_path))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def admit_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without a memory, or one that is on Bob's side."""
    monkeypatch.setattr(Server, "_admit", lambda self, client, shown: None)


def others(value: object) -> dict[str, object]:
    return {name: value for name in NAMES if name != "bob"}


@pytest.mark.attack("a ledger set back to an older copy")
@pytest.mark.parametrize("cell", CELLS)
def test_who_sets_its_ledger_back_is_left_out_by_name(
    cell: str, federation: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the server's memory Bob spends the same budget again."""
    five = federation(cell)
    five.copy_ledger()
    five.rounds(2)
    five.set_back()
    with monkeypatch.context() as weak:
        weak.setattr(Server, "_admit", lambda self, client, shown: None)
        assert five.round() == (NAMES, {})
    assert len(five.owners["bob"].account.ledger.entries()) == 1 < 3 == len(five.owners["ada"].account.ledger.entries())
    five.set_back()
    contributors, dropped = five.round()
    assert contributors == ("ada", "cyd", "dan", "eve")
    assert set(dropped) == {"bob"}
    assert "the ledger of bob" in dropped["bob"] and "rolled back: it had 1 charges and now has 0" in dropped["bob"]


@pytest.mark.attack("a ledger set back by one charge after every round")
@pytest.mark.parametrize("cell", ["plain", "secagg"])
def test_who_sets_its_ledger_back_to_where_each_round_began_is_noticed(
    cell: str, federation: Callable[[str], Federation]
) -> None:
    """A head is shown before its round is charged: who contributed must show a longer ledger in the next. Else one copy
    serves for as many rounds as there are, and no two heads ever contradict each other."""
    five = federation(cell)
    five.copy_ledger()
    five.rounds(1)
    for _ in range(2):
        five.set_back()
        contributors, _ = five.round()
        if "bob" not in contributors:
            return
    assert any("bob" in doubt for doubts in five.doubts().values() for doubt in doubts)


@pytest.mark.parametrize("cell", ["secagg", "ckks"])
def test_peers_notice_a_ledger_that_was_set_back_whatever_the_server_does(
    cell: str, federation: Callable[[str], Federation], admit_all: None
) -> None:
    five = federation(cell)
    five.copy_ledger()
    five.rounds(2)
    assert five.doubts() == dict.fromkeys(NAMES, ())
    five.set_back()
    assert five.round() == (NAMES, {})  # it endangers Bob's data and nobody else's: the round goes on
    doubts = five.doubts()
    assert set(doubts) == set(NAMES) and doubts["bob"] == ()
    for name in others(None):
        (doubt,) = doubts[name]
        assert doubt.startswith("bob: rolled back")
        assert any("rolled back" in line for line in five.owners[name].errors)


def test_what_peers_saw_of_a_ledger_is_what_its_owner_showed(federation: Callable[[str], Federation]) -> None:
    five = federation("secagg")
    shown = {name: owner.account.shown().hex() for name, owner in five.owners.items()}
    five.round()
    assert five.witnessed() == {name: {other: shown[other] for other in NAMES if other != name} for name in NAMES}


def test_who_has_its_true_ledger_back_takes_part_again(federation: Callable[[str], Federation], tmp_path: Path) -> None:
    five = federation("secagg")
    five.copy_ledger()
    five.rounds(2)
    shutil.copy(tmp_path / "bob.ledger", tmp_path / "the true one")
    five.set_back()
    assert set(five.round()[1]) == {"bob"}
    shutil.copy(tmp_path / "the true one", tmp_path / "older copy")
    five.set_back()
    assert five.round() == (NAMES, {})


@pytest.mark.parametrize("what", ["another ledger", "none"])
def test_who_goes_on_with_another_ledger_or_none_is_left_out(
    what: str, federation: Callable[[str], Federation], tmp_path: Path
) -> None:
    five = federation("secagg")
    five.round()
    five.close()
    store = Store(tmp_path / "bob.store")
    path = tmp_path / "new" if what == "another ledger" else ":memory:"
    with closing(Ledger(path, load_identity(store), Owner("bob", "toy", "client"), BUDGET)) as ledger:
        old = five.owners["bob"]
        five.reopen(Client("bob", old._material.data, old._material.model, budget=BUDGET, ledger=ledger, store=store))
        contributors, dropped = five.round()
    assert "bob" not in contributors
    assert ("another ledger" if path != ":memory:" else "does so no longer") in dropped["bob"]


def test_a_server_that_was_restarted_still_knows(federation: Callable[[str], Federation]) -> None:
    five = federation("secagg")
    five.copy_ledger()
    five.rounds(2)
    five.restart_server()
    five.set_back()
    assert "rolled back" in five.round()[1]["bob"]


def test_peers_that_were_restarted_still_know(federation: Callable[[str], Federation], admit_all: None) -> None:
    five = federation("secagg")
    five.copy_ledger()
    five.rounds(2)
    for name in ("ada", "cyd"):
        five.owners[name].account.ledger.close()
        five.owners[name] = client(name, BUDGET, five.folder, unit="client")
        five.owners[name].pin(five.roster, five.server.plan)
    five.set_back()
    five.round()
    assert "bob: rolled back" in five.doubts()["ada"][0]


@pytest.mark.parametrize("cell", ["plain", "secagg"])
@pytest.mark.parametrize("garbage", [b"\x00", b"garbage", bytes(72), bytes(71) + b"\x01", os.urandom(500)])
def test_a_head_that_is_none_costs_its_sender_the_round_and_nobody_else(
    cell: str, garbage: bytes, federation: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``bytes(72)`` is a head: of a ledger whose id is zeros, without charges."""
    five = federation(cell)
    monkeypatch.setattr(five.owners["bob"].account, "shown", lambda: garbage)
    contributors, dropped = five.round()
    if garbage == bytes(72):
        assert (contributors, dropped) == (NAMES, {})
        return
    assert contributors == ("ada", "cyd", "dan", "eve")
    assert "no head of a ledger" in dropped["bob"]


def test_a_head_that_is_none_is_no_crash_of_a_peer_whose_server_relays_it(
    federation: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch, admit_all: None
) -> None:
    """A server that relays it ends its own round. What peers answer is still one word."""
    five = federation("secagg")
    monkeypatch.setattr(five.owners["bob"].account, "shown", lambda: b"garbage")
    try:
        five.round()
    except Exception as error:
        assert "Traceback" not in str(error)
    for owner in five.owners.values():
        assert not any("Traceback" in line for line in owner.errors)


def test_a_malformed_head_is_told_from_a_contradiction() -> None:
    with pytest.raises(MalformedMessage, match="ada showed what is no head"):
        Witnesses(Store()).see("run", ALICE, "ada", b"garbage")
