"""The end of a run: clients that state and sign, liars among them, and servers that ask for what they should not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from protocols.aggregation.messages import Refusal
from protocols.base import Exchange, Messages
from protocols.primitives import Identity
from protocols.wire import decode, encode, kind
from securefl import Client, closing
from securefl import report as reports
from securefl.closing import Endorsed, EndorseRequest, Stated, StateRequest
from securefl.report.canonical import canonical, read
from securefl.report.document import Endorsement, Report
from securefl.report.endorsements import check_endorsement, endorse
from securefl.report.statement import SignedStatement, opened, sign
from securefl.run import Run
from tests.securefl.federation import client, direct
from tests.securefl.verification import toy

STRANGER = Identity(bytes(range(32)))
Lie = Callable[[bytes], bytes | None]


class Ended:
    """A run at its end: who can still be asked, and the report that was made."""

    def __init__(self, folder: Path) -> None:
        run = Run.create(toy.job(rounds=1), folder)
        list(run.rounds())
        self.id = run.finish().id
        self.clients: list[Client] = run._parties.clients
        self.report = reports.read(folder)
        self.roster = {one.name: one.public_key for one in self.clients}

    @property
    def ada(self) -> Client:
        return self.clients[0]

    @property
    def stated(self) -> SignedStatement:
        """What ada stated."""
        return self.report.statements[0]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return Ended(tmp_path_factory.mktemp("closing") / "run")


def lying(ended: Ended, lie: Lie) -> Exchange:
    """All clients, of whom ada says something else than it should."""
    return direct(ended.clients, lambda name, reply: lie(reply) if name == "ada" else reply)


def statement(reply: bytes) -> SignedStatement:
    return read(decode(reply, Stated).statement, SignedStatement, "a reply")


def endorsement(reply: bytes) -> Endorsement:
    return read(decode(reply, Endorsed).endorsement, Endorsement, "a reply")


# ---- what the server is told


def test_every_client_states_its_side_and_signs_it(ended: Ended) -> None:
    found = closing.statements(ended.id, ended.roster, direct(ended.clients))
    assert [signed.statement.client for signed in found] == sorted(ended.roster)
    for signed in found:
        said = opened(signed)
        assert bytes.fromhex(signed.key) == ended.roster[said.client]
        assert (said.run, len(said.charges), set(said.witnessed)) == (ended.id, 1, set(toy.CLIENTS) - {said.client})
    assert found == ended.report.statements


def test_every_contributor_signs_the_report(ended: Ended) -> None:
    bare = replace(ended.report, signatures=())
    found = closing.endorsements(bare, ended.id, ended.roster, direct(ended.clients), toy.CLIENTS)
    assert found == ended.report.signatures and len(found) == len(toy.CLIENTS)
    for signed in found:
        check_endorsement(bare, signed)
    some = closing.endorsements(bare, ended.id, ended.roster, direct(ended.clients), ("bob", "nobody"))
    assert [signed.client for signed in some] == ["bob"]


def stated(change: Callable[[SignedStatement], Struct]) -> Lie:
    return lambda reply: encode(Stated(canonical(change(statement(reply)))))


GARBAGE: dict[str, Lie] = {
    "is silent": lambda reply: None,
    "sends nothing": lambda reply: b"",
    "sends garbage": lambda reply: b"\xff" * 100,
    "refuses": lambda reply: encode(Refusal("policy")),
    "sends a half": lambda reply: reply[: len(reply) // 2],
    "sends more": lambda reply: reply + b"\0",
}
FALSE_STATEMENTS: dict[str, Lie] = GARBAGE | {
    "sends another message": lambda reply: encode(Endorsed(decode(reply, Stated).statement)),
    "sends no JSON": lambda reply: encode(Stated(b"{")),
    "nests without end": lambda reply: encode(Stated(b"[" * 100_000)),
    "sends JSON that is not canonical": lambda reply: encode(Stated(decode(reply, Stated).statement + b"\n")),
    "sends another value": stated(lambda signed: signed.statement),
    "signs for another run": stated(lambda signed: sign(replace(signed.statement, run="another"), STRANGER)),
    "signs under another key": stated(lambda signed: sign(signed.statement, STRANGER)),
    "changes what was signed": stated(
        lambda signed: replace(signed, statement=replace(signed.statement, epsilon_after=0.0))
    ),
    "names a key that is none": stated(lambda signed: replace(signed, key="00" * 32)),
}


@pytest.mark.parametrize("lie", FALSE_STATEMENTS.values(), ids=FALSE_STATEMENTS)
def test_a_client_that_states_what_it_cannot_have_signed_is_left_out(ended: Ended, lie: Lie) -> None:
    found = closing.statements(ended.id, ended.roster, lying(ended, lie))
    assert [signed.statement.client for signed in found] == ["bob", "cyd", "dan"]


def test_a_statement_in_anothers_name_or_on_another_run_is_left_out_under_the_right_key_too(ended: Ended) -> None:
    for change in ({"client": "bob"}, {"run": "another"}):
        own = sign(replace(ended.stated.statement, **change), ended.ada._identity)
        found = closing.statements(ended.id, ended.roster, lying(ended, stated(lambda signed, own=own: own)))
        assert [signed.statement.client for signed in found] == ["bob", "cyd", "dan"]


def endorsed(change: Callable[[Endorsement], Struct]) -> Lie:
    return lambda reply: encode(Endorsed(canonical(change(endorsement(reply)))))


def of_another_report(ended: Ended) -> Lie:
    other = replace(ended.report, created="yesterday")
    return endorsed(lambda signed: endorse(other, ended.stated, ended.ada._identity))


FALSE_SIGNATURES: dict[str, Lie] = GARBAGE | {
    "sends another message": lambda reply: encode(Stated(decode(reply, Endorsed).endorsement)),
    "sends no JSON": lambda reply: encode(Endorsed(b"\xff")),
    "signs in anothers name": endorsed(lambda signed: replace(signed, client="bob")),
    "sends another signature": endorsed(lambda signed: replace(signed, signature="00" * 64)),
    "names another key": endorsed(lambda signed: replace(signed, key=STRANGER.public.hex())),
}


@pytest.mark.parametrize("lie", FALSE_SIGNATURES.values(), ids=FALSE_SIGNATURES)
def test_a_client_that_does_not_sign_the_report_is_left_out(ended: Ended, lie: Lie) -> None:
    found = closing.endorsements(ended.report, ended.id, ended.roster, lying(ended, lie), toy.CLIENTS)
    assert [signed.client for signed in found] == ["bob", "cyd", "dan"]


def test_a_signature_under_another_report_or_by_a_stranger_is_left_out(ended: Ended) -> None:
    by_stranger = endorsed(lambda signed: endorse(ended.report, ended.stated, STRANGER))
    for lie in (of_another_report(ended), by_stranger):
        found = closing.endorsements(ended.report, ended.id, ended.roster, lying(ended, lie), toy.CLIENTS)
        assert [signed.client for signed in found] == ["bob", "cyd", "dan"]


def test_who_was_not_asked_is_not_heard_and_who_answers_twice_is_heard_once(ended: Ended) -> None:
    honest = direct(ended.clients)

    def twice(requests: Messages) -> Iterator[tuple[str, bytes]]:
        for name, reply in honest(requests):
            yield "eve", reply
            yield name, reply
            yield name, encode(Stated(canonical(sign(replace(statement(reply).statement, refused=9), STRANGER))))

    found = closing.statements(ended.id, ended.roster, twice)
    assert found == ended.report.statements


def test_the_first_answer_counts(ended: Ended) -> None:
    ada = sign(replace(ended.stated.statement, refused=9), ended.ada._identity)

    def twice(requests: Messages) -> Iterator[tuple[str, bytes]]:
        yield from direct(ended.clients)(requests)
        yield "ada", encode(Stated(canonical(ada)))

    assert closing.statements(ended.id, ended.roster, twice) == ended.report.statements


def test_nobody_is_asked_for_a_signature_under_a_report_without_statements(ended: Ended) -> None:
    bare = replace(ended.report, statements=())

    def unasked(requests: Messages) -> Iterator[tuple[str, bytes]]:
        raise AssertionError(f"asked {list(requests)}")

    assert closing.endorsements(bare, ended.id, ended.roster, unasked, toy.CLIENTS) == ()


# ---- what a client refuses


def refusal(reply: bytes) -> str:
    return decode(reply, Refusal).reason


def asked(ended: Ended, report: Report, run: str | None = None) -> bytes:
    return ended.ada.handle(encode(EndorseRequest(ended.id if run is None else run, canonical(report))))


def test_a_client_states_the_same_whenever_it_is_asked(ended: Ended) -> None:
    for _ in range(2):
        assert statement(ended.ada.handle(encode(StateRequest(ended.id)))) == ended.stated


def test_a_client_signs_no_report_without_its_statement(ended: Ended) -> None:
    others = replace(ended.report, statements=ended.report.statements[1:])
    changed = replace(ended.stated, statement=replace(ended.stated.statement, epsilon_after=0.0))
    by_stranger = sign(ended.stated.statement, STRANGER)
    for report in (
        others,
        *(replace(others, statements=(false, *others.statements)) for false in (changed, by_stranger)),
    ):
        assert refusal(asked(ended, report)) == "failed"
        assert "does not hold the statement of ada" in ended.ada.errors[-1]
    assert endorsement(asked(ended, ended.report)).client == "ada"


def test_a_client_says_nothing_of_runs_that_it_did_not_join(ended: Ended) -> None:
    for run in ("another", "", "a" * 64):
        assert refusal(ended.ada.handle(encode(StateRequest(run)))) == "policy"
        assert refusal(asked(ended, ended.report, run)) == "policy"
    assert "took part in no round" in ended.ada.errors[-1]


def test_a_client_that_has_stated_its_side_of_a_run_takes_no_further_part_in_it(tmp_path: Path) -> None:
    """Else what it charges afterwards would be in no statement."""
    run = Run.create(toy.job(protection={"threshold": 3}), tmp_path / "run")
    records = run.rounds()
    assert "ada" in next(records).contributors
    said = statement(run._parties.clients[0].handle(encode(StateRequest(run._server.run)))).statement
    assert len(said.charges) == 1
    assert next(records).dropped == {"ada": "refused: policy"}
    assert "is over for this client" in run._parties.clients[0].errors[-1]


def test_a_client_that_accepted_no_plan_says_nothing() -> None:
    new = client("ada")
    assert refusal(new.handle(encode(StateRequest("run")))) == "policy"
    assert "accepted no roster and plan" in new.errors[-1]


def test_a_report_that_cannot_be_read_is_refused(ended: Ended) -> None:
    whole = canonical(ended.report)
    for report in (b"", b"{}", b"\xff", whole + b" ", whole[:-1], b"[" * 100_000, whole.replace(b'"created"', b'"x"')):
        assert refusal(ended.ada.handle(encode(EndorseRequest(ended.id, report)))) == "failed"


requests = st.sampled_from(("state", "endorse", "raw"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=requests, place=st.integers(0, 1 << 20), put=st.binary(max_size=6), cut=st.integers(0, 6))
def test_whatever_is_asked_the_answer_is_a_statement_a_signature_or_a_refusal(
    ended: Ended, which: str, place: int, put: bytes, cut: int
) -> None:
    """Any bytes in the place of others, in requests that are well-formed otherwise, or alone."""
    whole = {
        "state": encode(StateRequest(ended.id)),
        "endorse": encode(EndorseRequest(ended.id, canonical(ended.report))),
        "raw": encode(StateRequest(""))[:4],
    }[which]
    place %= len(whole) + 1
    reply = ended.ada.handle(whole[:place] + put + whole[place + cut :])
    match kind(reply):
        case Stated.KIND:
            assert statement(reply) == ended.stated
        case Endorsed.KIND:
            assert endorsement(reply).client == "ada"
        case _:
            assert refusal(reply) in ("protocol", "policy", "failed", "spent")
