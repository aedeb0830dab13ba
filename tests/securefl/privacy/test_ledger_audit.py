from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from securefl.errors import LedgerError
from securefl.privacy import accountant
from securefl.privacy.ledger import Verified, Witness, export, read, verify, verify_export
from securefl.privacy.ledger.chain import Content
from securefl.privacy.ledger.chain import charged as chained
from securefl.privacy.ledger.file import LedgerFile
from securefl.privacy.mechanism import Budget
from tests.securefl.privacy.ledgers import BUDGET, DATA, IDENTITY, ROUND, STRANGER, charge, charged, opened

Check = Callable[[Path, bytes | None, list[Witness]], Verified]


def by_file(path: Path, key: bytes | None, witnessed: list[Witness]) -> Verified:
    return verify(path, key, witnessed)


def by_export(path: Path, key: bytes | None, witnessed: list[Witness]) -> Verified:
    return verify_export(export(path), key, witnessed)


both = pytest.mark.parametrize("check", [by_file, by_export])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return charged(tmp_path / "ledger.sqlite")


def witness(path: Path) -> Witness:
    with closing(opened(path)) as ledger:
        return Witness.decoded(ledger.witness())


@both
def test_an_unaltered_ledger_is_verified_with_what_was_spent_under_each_budget(path: Path, check: Check) -> None:
    seen = [witness(path)]
    with closing(opened(path, Budget(9, 1e-6))) as ledger:
        ledger.charge("run", 4, 1, ROUND, DATA, simulated=True)
        seen.append(Witness.decoded(ledger.witness()))
    with closing(opened(path, None)) as ledger:
        charge(ledger, 5)
    found = check(path, IDENTITY.public, seen)
    assert [(spent.sequence, spent.budget, spent.epsilon) for spent in found.spent] == [
        (3, BUDGET, accountant.epsilon(ROUND * 3, 1e-5)),
        (4, Budget(9, 1e-6), accountant.epsilon(ROUND * 4, 1e-6)),
    ]
    assert (found.attributed, found.witnessed, found.simulated, len(found.chain.entries)) == (True, 2, 1, 5)
    lines = str(found).split("\n")
    assert lines[1].startswith("5 charges (1 without a budget), 1 simulated; head 5:")
    assert lines[2] == f"after charge 3: epsilon {found.spent[0].epsilon:.3f} of 3 at delta 1e-05"
    assert (
        lines[4] == "links and signatures hold, under the expected key; budgets were kept; 2 witnessed heads are in it"
    )
    assert lines[5].startswith("not shown: that sampling and noise were as charged")


@both
def test_without_the_owners_key_it_is_said_that_nobody_vouches_for_the_name(path: Path, check: Check) -> None:
    found = check(path, None, [])
    assert not found.attributed
    assert "under the key that it names itself: compare it with the owner's" in str(found)


@both
def test_another_clients_key_is_refused(path: Path, check: Check) -> None:
    with pytest.raises(LedgerError, match="it is not this client's"):
        check(path, STRANGER.public, [])


@both
def test_a_restored_older_copy_is_told_by_its_witnesses(path: Path, tmp_path: Path, check: Check) -> None:
    old = shutil.copy(path, tmp_path / "old.sqlite")
    with closing(opened(path)) as ledger:
        charge(ledger, 4)
        seen = Witness.decoded(ledger.witness())
    shutil.copy(old, path)
    assert check(path, IDENTITY.public, []).witnessed == 0
    with pytest.raises(LedgerError, match="rolled back: it had 4 charges and now has 3; ask its owner"):
        check(path, IDENTITY.public, [seen])
    with closing(opened(path)) as ledger:
        charge(ledger, 4, run="another run")
        charge(ledger, 5)
        assert Witness.decoded(ledger.witness()).contradicts(seen) is None
    with pytest.raises(LedgerError, match="rolled back: charge 4 is another one"):
        check(path, IDENTITY.public, [seen])


@both
def test_a_ledger_begun_anew_is_told_by_its_witnesses(path: Path, check: Check) -> None:
    seen = witness(path)
    path.unlink()
    charged(path, 5)
    with pytest.raises(LedgerError, match="another ledger: its id was"):
        check(path, IDENTITY.public, [seen])


@both
def test_an_owner_whose_program_did_not_keep_the_budget_is_told(tmp_path: Path, check: Check) -> None:
    path = charged(tmp_path / "ledger.sqlite", 0)
    chain = read(path)
    content = Content(1, "run", 1, 1, ROUND * 20, Budget(1, 1e-5), DATA, False, "then")
    with closing(LedgerFile(str(path), chain)) as file, file.writing():
        file.append(chained(chain, IDENTITY, content))
    with pytest.raises(LedgerError, match=r"charge 1 makes epsilon [\d.]+, above its budget of 1"):
        check(path, IDENTITY.public, [])


def test_an_export_is_whole_and_may_be_laid_out_otherwise(path: Path) -> None:
    document = export(path)
    assert verify_export(document) == verify(path)
    assert verify_export(json.dumps(json.loads(document)).encode()) == verify(path)
    assert json.loads(document)["entries"][0]["releases"][0]["mechanism"] == "dpsgd"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"steps": 3', '"steps": 1', "entry 1 does not follow"),
        ('"round": 2', '"round": 9', "entry 2 does not follow"),
        ('"data": "diagnoses"', '"data": "x-rays"', "its header is not signed by its owner"),
        ('"format": 2', '"format": 3', "is no export of a ledger that this securefl can read"),
        ('"unit": "record"', '"unit": "visit"', "is no export of a ledger that this securefl can read"),
        ('"simulated"', '"simulate"', "is no export of a ledger that this securefl can read"),
        ('"digest": "', '"digest": "AAAA', "a digest in it is not that of its entry"),
    ],
)
def test_a_falsified_export_is_refused(path: Path, old: str, new: str, said: str) -> None:
    document = export(path).decode()
    assert old in document
    with pytest.raises(LedgerError, match=said):
        verify_export(document.replace(old, new, 1).encode())


def test_bytes_that_are_no_export_are_refused(path: Path) -> None:
    for document in (b"", b"{}", b"\xff", b"[1]", path.read_bytes()):
        with pytest.raises(LedgerError, match="is no export"):
            verify_export(document)


def test_verifying_changes_nothing(path: Path) -> None:
    before = path.read_bytes(), path.stat().st_mtime_ns
    verify(path, IDENTITY.public)
    export(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(path.parent.iterdir()) == [path]
