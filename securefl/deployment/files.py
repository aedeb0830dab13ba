"""Files of a deployment: small ones that others sent, and private ones."""

from __future__ import annotations

import os
from pathlib import Path

from securefl.errors import BadInput
from securefl.run_folder import explained


def read_small(path: Path, limit: int, what: str) -> bytes:
    """A file of at most ``limit`` bytes. Raises ``BadInput`` that calls it ``what``."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BadInput(f"cannot read {what} at {path} ({error.strerror}): check the path") from error
    if len(data) > limit:
        raise BadInput(f"{path} is larger than {what} can be ({limit:,} bytes): check that it is the right file")
    return data


def write_private(path: Path, data: bytes) -> None:
    """A whole file that only its owner may read, in the place of one that may be there."""
    partial = path.with_name(f"{path.name}.partial")
    with explained(path):
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
