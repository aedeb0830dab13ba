"""How far a site's ledger has come, kept beside its identity: a site does not start with less than it has spent.

It is on the owner's own machine and guards against a ledger that was lost or restored from an old copy, not against the
owner: others' witnesses do that (:mod:`securefl.witnesses`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from securefl.account import load_identity
from securefl.data import Dataset
from securefl.deployment.site_file import SiteFile
from securefl.deployment.site_folder import SiteFolder
from securefl.errors import LedgerError
from securefl.privacy.fingerprint import fingerprint, fingerprint_key, refuse_twin
from securefl.privacy.ledger import Ledger, Owner, Witness, read
from securefl.run_folder import private_folder
from securefl.run_lock import lock
from securefl.store import Store


def opened(folder: SiteFolder, file: SiteFile, keep: Store, data: Dataset) -> Ledger | None:
    """The ledger of a site's data; None without a budget.

    Raises ``LedgerError`` for one that is another's, one that has less than was charged, or a second of these records.
    """
    if file.budget is None:
        return None
    path = folder.ledger(file.data_name, file.name)
    if not path.exists():
        require(keep, file.data_name, path)
    private_folder(path.parent)
    identity = load_identity(keep)
    # Opened before it is compared: what a killed process left half written is set right only by who may write.
    ledger = Ledger(path, identity, Owner(file.name, file.data_name, file.unit), file.budget)
    require(keep, file.data_name, path)
    refuse_twin(path, fingerprint(fingerprint_key(identity), data.features, data.labels))
    return ledger


def remember(keep: Store, ledger: Ledger) -> None:
    """Keep the head as it is now; on disk when this returns."""
    name, head = _name(ledger.owner.data), ledger.witness()
    if keep.get(name) != head:
        keep.put({name: head})


def check(folder: SiteFolder, file: SiteFile) -> None:
    """The same for who only looks: raises ``LedgerError`` where the ledger has less than was charged."""
    with _kept(folder) as keep:
        require(keep, file.data_name, folder.ledger(file.data_name, file.name))


def lacking_in(folder: SiteFolder) -> str | None:
    """What the ledger of a site's data lacks of what was charged, in words; None where that is nothing."""
    file = folder.site_file()
    with _kept(folder) as keep:
        return lacking(keep, file.data_name, folder.ledger(file.data_name, file.name))


def require(keep: Store, data: str, path: Path) -> None:
    """Raises ``LedgerError`` where the ledger of a data set has less than was charged here."""
    if (why := lacking(keep, data, path)) is not None:
        raise LedgerError(
            f"{path} is not the ledger that this site has charged ({why}): restore the newest copy; if there is none, "
            "securefl site accept-ledger says what to do"
        )


def lacking(keep: Store, data: str, path: Path) -> str | None:
    """What is missing of it, in words; None where nothing is."""
    head = keep.get(_name(data))
    if not head:
        return None
    if not path.exists():
        return f"it is missing, and has {Witness.decoded(head).head.sequence} charges"
    return read(path).lacks(Witness.decoded(head))


def accept(folder: SiteFolder) -> int:
    """Have the ledger count as it is, or begin anew where there is none: how many charges are left in it.

    What was charged beyond those is counted by nobody from then on. Raises ``BadInput`` while the site is running.
    """
    held, file = lock(folder.path), folder.site_file()
    path = folder.ledger(file.data_name, file.name)
    left = read(path).head.sequence if path.exists() else 0
    with _kept(folder) as keep:
        keep.put({_name(file.data_name): b""})
    del held
    return left


@contextmanager
def _kept(folder: SiteFolder) -> Iterator[Store]:
    folder.identity()  # which says what to do where the file is missing; else it would be made
    keep = Store(folder.keep)
    try:
        yield keep
    finally:
        keep.close()


def _name(data: str) -> str:
    return f"ledger head {data}"
