"""What a client signs, and what a reader of it refuses."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from protocols.errors import Forged
from protocols.primitives import Identity
from securefl.errors import BadInput, NotARun
from securefl.report.canonical import canonical, digest, read
from securefl.report.statement import SignedStatement, Statement, opened, sign
from tests.securefl.report.runs import IDENTITIES, Scene

SIGNED = Scene().statements[0]
CHANGES: dict[str, object] = {
    "run": "f" * 32,
    "client": "hospital-2",
    "model": "unknown",
    "charges": SIGNED.statement.charges[1:],
    "epsilon_after": 0.5,
    "refused": "unknown",
    "simulated": True,
    "witnessed": {},
    "doubts": ("hospital-2: set back",),
}


def test_a_statement_survives_the_way_to_the_server_and_back() -> None:
    received = read(canonical(SIGNED), SignedStatement, "the statement")
    assert received == SIGNED
    assert opened(received) == SIGNED.statement


@pytest.mark.parametrize(("name", "value"), CHANGES.items())
def test_a_changed_field_breaks_the_signature(name: str, value: object) -> None:
    changed = msgspec.convert(msgspec.structs.asdict(SIGNED.statement) | {name: value}, Statement)
    with pytest.raises(Forged, match="does not verify"):
        opened(replace(SIGNED, statement=changed))


def test_a_signature_is_by_the_key_beside_it_and_no_other() -> None:
    other = IDENTITIES["hospital-2"]
    with pytest.raises(Forged):
        opened(replace(SIGNED, key=other.public.hex()))
    assert opened(sign(SIGNED.statement, other)) == SIGNED.statement  # whose key it is, a roster has to say


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(Forged):
        opened(replace(SIGNED, key="ff" * 32))


@pytest.mark.parametrize("field", ["key", "signature"])
def test_hex_of_the_wrong_length_is_refused_when_it_is_read(field: str) -> None:
    short = canonical(SIGNED).replace(getattr(SIGNED, field).encode(), b"00")
    with pytest.raises(NotARun, match="the statement is damaged"):
        read(short, SignedStatement, "the statement")


def test_a_statement_of_another_format_is_refused() -> None:
    later = canonical(SIGNED).replace(b"securefl-statement/1", b"securefl-statement/2")
    with pytest.raises(NotARun, match="the statement is damaged"):
        read(later, SignedStatement, "the statement")


def test_a_statement_without_its_format_is_refused() -> None:
    without = canonical(SIGNED).replace(b'"format":"securefl-statement/1",', b"")
    with pytest.raises(NotARun):
        read(without, SignedStatement, "the statement")


def test_infinity_has_to_be_a_word() -> None:
    with pytest.raises(BadInput):
        sign(replace(SIGNED.statement, epsilon_after=float("inf")), Identity(bytes(32)))
    assert opened(sign(replace(SIGNED.statement, epsilon_after="infinite"), Identity(bytes(32))))


def test_the_digest_is_of_the_statement_and_not_of_how_it_was_built() -> None:
    again = read(canonical(SIGNED.statement), Statement, "the statement")
    assert digest(again) == digest(SIGNED.statement)
