"""The check of a ledger's file, or of its export, from anybody."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from protocols.primitives import Identity
from securefl.errors import BadInput, LedgerError
from securefl.privacy.ledger import Ledger, Owner, export, read
from securefl.privacy.ledger.audit import Export
from securefl.privacy.mechanism import DPSGD, Budget
from securefl.verification.one_ledger import account

IDENTITY = Identity(bytes(range(32)))
# More than are composed: it would take hours.
MANY = tuple(DPSGD(1 + n / 1000, 0.123, 7) for n in range(201))


def charged(path: Path, budget: Budget | None = Budget(9.0, 1e-5), *releases: DPSGD) -> Path:  # noqa: B008
    ledger = Ledger(path, IDENTITY, Owner("ada", "toy"), budget)
    ledger.charge("run", 1, 1, releases or (DPSGD(4.0, 1.0, 1),), bytes(32), simulated=False)
    ledger.close()
    return path


def test_a_ledger_and_its_export_come_to_the_same(tmp_path: Path) -> None:
    path = charged(tmp_path / "ada.sqlite")
    (tmp_path / "ada.json").write_bytes(export(path))
    one, other = account(path, None), account(tmp_path / "ada.json", IDENTITY.public.hex())
    assert one.epsilons == other.epsilons != ()
    assert one.head == other.head


def test_charges_that_would_take_hours_are_refused_before_they_are_composed(tmp_path: Path) -> None:
    made = msgspec.json.decode(export(charged(tmp_path / "ada.sqlite")), type=Export)
    many = replace(made, entries=(replace(made.entries[0], releases=MANY),))
    (tmp_path / "ada.json").write_bytes(msgspec.json.encode(many))
    with pytest.raises(BadInput, match="201 different releases"):
        account(tmp_path / "ada.json", None)


def test_what_is_never_composed_may_be_of_any_kind(tmp_path: Path) -> None:
    path = charged(tmp_path / "ada.sqlite", None, *MANY)
    assert account(path, None).epsilons == ()


@pytest.mark.parametrize("data", [b"{", b"{}", b'{"entries": 1}', b'{"entries": []}', b"[" * 100_000, b"{\xff"])
def test_what_is_no_export_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ada.json").write_bytes(data)
    with pytest.raises(LedgerError):
        account(tmp_path / "ada.json", None)
    assert read(charged(tmp_path / "ada.sqlite")).entries != ()
