"""What is installed here: versions, and a hash of each package as it lies on the disk."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

from protocols.primitives import digest
from securefl.report.document import Software
from securefl.report.statement import Hash

OURS: Final = ("securefl", "protocols")
DEPENDENCIES: Final = ("torch", "opacus", "dp-accounting", "cryptography", "tenseal", "numpy", "msgspec", "rfc8785")


def installed() -> Software:
    """Versions and hashes on this machine; "unknown" where a package is missing or keeps no record of its files.

    The hash of a dependency is that of its list of files and their hashes (RECORD, PEP 376), which pip wrote; of ours,
    of the source itself.
    """
    own = {name: _sources(Path(__file__).parents[2] / name) for name in OURS}
    return Software(versions(), own | {name: _record(name) for name in DEPENDENCIES})


def versions() -> dict[str, str]:
    """Versions by package, of Python and of the platform too; what a client puts into its statement."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    return found | {name: _version(name) for name in ("securefl", *DEPENDENCIES)}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def _record(name: str) -> Hash:
    try:
        listed = metadata.distribution(name).read_text("RECORD")
    except metadata.PackageNotFoundError:
        return "unknown"
    return hashlib.sha256(listed.encode()).hexdigest() if listed else "unknown"


def _sources(package: Path) -> Hash:
    """Of all Python files in a package, with their names."""
    files = sorted(package.rglob("*.py"))
    parts = [part for file in files for part in (file.relative_to(package).as_posix().encode(), file.read_bytes())]
    return digest("securefl sources 1", *parts).hex() if files else "unknown"
