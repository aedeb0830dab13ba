from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from securefl.errors import LedgerError
from securefl.privacy.fingerprint import fingerprint, fingerprint_key, refuse_twin
from securefl.privacy.ledger import Ledger, Owner
from tests.securefl.privacy.ledgers import IDENTITY, ROUND, STRANGER

KEY = fingerprint_key(IDENTITY)
FEATURES = np.arange(24, dtype=np.float32).reshape(6, 4)
LABELS = np.arange(6, dtype=np.int64)


def of(features: NDArray[np.generic], labels: NDArray[np.generic] = LABELS, key: bytes = KEY) -> bytes:
    return fingerprint(key, features, labels)


def test_equal_records_have_equal_fingerprints_however_they_lie_in_memory() -> None:
    assert len(of(FEATURES)) == 32
    assert of(FEATURES.copy()) == of(np.asfortranarray(FEATURES)) == of(FEATURES)


def test_other_records_shapes_types_labels_or_keys_have_other_fingerprints() -> None:
    one_changed = FEATURES.copy()
    one_changed[5, 3] += 1
    found = [
        of(FEATURES),
        of(one_changed),
        of(FEATURES[::-1]),
        of(FEATURES.reshape(6, 2, 2)),
        of(FEATURES.astype(np.float64)),
        of(FEATURES.view(np.int32)),
        of(FEATURES[:5], LABELS[:5]),
        of(FEATURES, LABELS[::-1]),
        of(FEATURES, key=fingerprint_key(STRANGER)),
        of(np.zeros((0, 4), np.float32), LABELS[:0]),
    ]
    assert len(set(found)) == len(found)


def ledger(folder: Path, data: str, client: str = "hospital-1", features: NDArray[np.float32] = FEATURES) -> Path:
    path = folder / data / f"{client}.sqlite"
    path.parent.mkdir(exist_ok=True)
    with closing(Ledger(path, IDENTITY, Owner(client, data), None)) as opened:
        opened.charge("run", 1, 1, ROUND, of(features), simulated=False)
    return path


def test_the_same_records_under_another_name_are_refused(tmp_path: Path) -> None:
    diagnoses = ledger(tmp_path, "diagnoses")
    new = tmp_path / "diagnoses-2" / "hospital-1.sqlite"
    with pytest.raises(LedgerError) as refusal:
        refuse_twin(new, of(FEATURES))
    assert f"charged under the name 'diagnoses' already, in {diagnoses}: name the data set so" in str(refusal.value)
    refuse_twin(new, of(FEATURES + 1))


def test_the_same_records_under_their_own_name_or_another_clients_are_not_refused(tmp_path: Path) -> None:
    refuse_twin(ledger(tmp_path, "diagnoses"), of(FEATURES))
    ledger(tmp_path, "shared", client="hospital-2")
    refuse_twin(tmp_path / "own" / "hospital-3.sqlite", of(FEATURES))


def test_a_twin_is_found_behind_other_charges_and_beside_what_is_no_ledger(tmp_path: Path) -> None:
    path = ledger(tmp_path, "diagnoses")
    with closing(Ledger(path, IDENTITY, Owner("hospital-1", "diagnoses"), None)) as opened:
        opened.charge("run", 2, 1, ROUND, of(FEATURES + 1), simulated=False)
    (tmp_path / "a-file").touch()
    for name in ("a-folder", "empty", "foreign"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty" / path.name).touch()
    with closing(sqlite3.connect(tmp_path / "foreign" / path.name)) as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
    with pytest.raises(LedgerError, match="'diagnoses'"):
        refuse_twin(tmp_path / "new" / path.name, of(FEATURES))


def test_a_sibling_that_was_altered_is_not_passed_over(tmp_path: Path) -> None:
    path = ledger(tmp_path, "diagnoses")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER entry_delete")
        connection.commit()
    with pytest.raises(LedgerError, match="was altered"):
        refuse_twin(tmp_path / "new" / path.name, of(FEATURES + 1))


def test_a_folder_of_ledgers_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file or directory"):
        refuse_twin(tmp_path / "missing" / "new" / "hospital-1.sqlite", of(FEATURES))
