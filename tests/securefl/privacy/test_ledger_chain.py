from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives import Identity
from securefl.errors import LedgerError
from securefl.privacy.ledger.chain import Chain, Content, Head, Owner, Row, Witness, begun, charged, continued, verified
from tests.securefl.privacy.ledgers import BUDGET, DATA, IDENTITY, OWNER, STRANGER, TOGETHER

TIME = "2026-01-01T00:00:00.000000+00:00"


def chain(charges: int, owner: Owner = OWNER, identity: Identity = IDENTITY, run: str = "run") -> Chain:
    grown = begun(owner, identity, TIME)
    for number in range(1, charges + 1):
        content = Content(number, run, number, 1, TOGETHER, BUDGET, DATA, False, TIME)
        grown = grown.grown(charged(grown, identity, content))
    return grown


def rows(of: Chain) -> list[Row]:
    return [entry.row for entry in of.entries]


def header(of: Chain) -> tuple[bytes, bytes]:
    return msgspec.json.encode(of.header), of.signature


FOUR = chain(4)
BYTES32 = st.binary(min_size=32, max_size=32)


def test_what_was_written_is_read_back_all_at_once_or_in_parts() -> None:
    assert verified(header(FOUR), rows(FOUR), "it") == FOUR
    begin = verified(header(FOUR), rows(FOUR)[:1], "it")
    assert continued(begin, rows(FOUR)[1:], "it") == FOUR


def test_the_stored_form_is_pinned() -> None:
    """Whoever changes it changes the format's number, and what older ledgers are told."""
    assert FOUR.id.hex() == "968cc9c4529115959676d181e1e8b2c3755deb97722f6769a9ac574e1dc8154b"
    assert FOUR.entries[0].digest.hex() == "0fabf2af2a952a91aca0556098b72a94e9ab450467c860bb02ba9567dfd2d6ec"
    assert FOUR.entries[0].row[1] == (
        b'{"sequence":1,"run":"run","round":1,"attempt":1,"releases":['
        b'{"mechanism":"dpsgd","noise_multiplier":4.0,"sampling_rate":0.5,"steps":3,"clip":1.0},'
        b'{"mechanism":"noised-sum","released":"metrics","noise_multiplier":9.0,"bound":2.0}],'
        b'"budget":{"epsilon":3.0,"delta":0.00001},"fingerprint":"ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoM=",'
        b'"simulated":false,"time":"2026-01-01T00:00:00.000000+00:00"}'
    )


@given(st.data())
def test_no_changed_byte_in_any_row_is_accepted(data: st.DataObject) -> None:
    stored = [list(row) for row in rows(FOUR)]
    row, field = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 2))
    value = stored[row][field]
    assert isinstance(value, bytes)
    position = data.draw(st.integers(0, len(value) - 1))
    changed = bytearray(value)
    changed[position] ^= data.draw(st.integers(1, 255))
    stored[row][field] = bytes(changed)
    with pytest.raises(LedgerError, match=f"entry {row + 1} does not follow"):
        verified(header(FOUR), [(one[0], one[1], one[2]) for one in stored], "it")


@given(st.permutations(range(4)), st.integers(0, 4))
def test_only_a_beginning_in_order_is_accepted(order: list[int], length: int) -> None:
    chosen = order[:length]
    if chosen == list(range(length)):
        assert verified(header(FOUR), [rows(FOUR)[i] for i in chosen], "it") == chain(length)
    else:
        with pytest.raises(LedgerError, match="does not follow"):
            verified(header(FOUR), [rows(FOUR)[i] for i in chosen], "it")


@pytest.mark.parametrize("other", [chain(1, identity=STRANGER), chain(1, Owner("hospital-1", "x-rays"))])
def test_an_entry_of_another_ledger_is_not_accepted(other: Chain) -> None:
    with pytest.raises(LedgerError, match="entry 1 does not follow"):
        verified(header(FOUR), rows(other), "it")


def test_whoever_lacks_the_key_cannot_write_another_history() -> None:
    forged = chain(2, identity=STRANGER)
    taken = msgspec.structs.replace(forged.header, public_key=IDENTITY.public)
    with pytest.raises(LedgerError, match="its header is not signed by its owner"):
        verified((msgspec.json.encode(taken), forged.signature), rows(forged), "it")


@pytest.mark.parametrize("row", [(1, "text", b""), (1, None, b""), (None, b"", b""), ("1", b"", b""), (1, b"", 5)])
def test_a_row_of_other_types_is_not_accepted(row: Row) -> None:
    with pytest.raises(LedgerError, match="entry 1 does not follow"):
        verified(header(FOUR), [row], "it")


@given(BYTES32, st.integers(1, 2**64 - 1), BYTES32)
def test_a_witness_is_72_bytes_and_is_read_back(ledger: bytes, sequence: int, digest: bytes) -> None:
    witness = Witness(ledger, Head(sequence, digest if digest != ledger else bytes(32)))
    if witness.head.digest != ledger:
        assert len(witness.encoded()) == 72
        assert Witness.decoded(witness.encoded()) == witness


def test_an_empty_ledger_is_witnessed_too() -> None:
    assert Witness.decoded(chain(0).witness.encoded()) == Witness(FOUR.id, Head(0, FOUR.id))


@given(st.binary(max_size=100))
def test_what_is_no_witness_is_refused(data: bytes) -> None:
    try:
        assert Witness.decoded(data).encoded() == data
    except LedgerError as refusal:
        assert f"{len(data)} bytes that are no head of a ledger" in str(refusal)


def test_a_witness_that_says_empty_and_is_not_is_refused() -> None:
    for data in (bytes(31) + b"\1" + bytes(40), b"\2" * 32 + bytes(7) + b"\1" + b"\2" * 32, b"", bytes(71), bytes(73)):
        with pytest.raises(LedgerError):
            Witness.decoded(data)


def test_a_ledger_that_grew_contradicts_nothing_that_was_witnessed() -> None:
    for earlier in range(5):
        for later in range(earlier, 5):
            assert chain(later).witness.contradicts(chain(earlier).witness) is None
            assert chain(later).lacks(chain(earlier).witness) is None


def test_a_rolled_back_ledger_contradicts_what_was_witnessed() -> None:
    assert chain(1).witness.contradicts(chain(4).witness) == "rolled back: it had 4 charges and now has 1"
    assert chain(0).lacks(chain(4).witness) == "rolled back: it had 4 charges and now has 0"


def test_a_ledger_that_went_on_differently_after_a_rollback_contradicts_what_was_witnessed() -> None:
    """The head alone tells where both have come equally far, the whole ledger also later."""
    other = chain(4, run="another run")
    said = "rolled back: charge 3 is another one than was witnessed before"
    assert chain(3, run="another run").witness.contradicts(chain(3).witness) == said
    assert other.witness.contradicts(chain(3).witness) is None
    assert other.lacks(chain(3).witness) == said


def test_another_ledger_of_the_same_client_is_called_that() -> None:
    other = chain(4, Owner("hospital-1", "x-rays"))
    for said in (other.witness.contradicts(FOUR.witness), other.lacks(FOUR.witness)):
        assert said is not None and said.startswith("another ledger: its id was ")


def test_header_and_entries_print_as_lines_for_people(tmp_path: Path) -> None:
    assert str(FOUR.header) == (
        f"hospital-1: data set 'diagnoses', each record (add-or-remove-one), since {TIME}, "
        f"signed by {IDENTITY.public.hex()}"
    )
    assert str(FOUR.entries[2]) == (
        f"3  {TIME}  run 'run', round 3, attempt 1: "
        "DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=3, clip=1.0) + "
        "NoisedSum(released='metrics', noise_multiplier=9.0, bound=2.0) "
        "under epsilon 3 at 1e-05, data 64656667"
    )
    unbound = msgspec.structs.replace(FOUR.entries[0], budget=None, simulated=True)
    assert str(unbound).endswith("under no budget, data 64656667, SIMULATED")
    assert str(FOUR.head) == f"4:{FOUR.head.digest.hex()}"
