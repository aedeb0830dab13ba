"""Finding a public data file: where ``SECUREFL_DATA`` points, then the cache, then its original source.

A file counts only if its SHA-256 is the expected one, wherever it was found: its own, or that of what is inside where
how it was packed may differ. There is no mirror and no retry.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from securefl.errors import DataUnavailable

_TIMEOUT = 30.0  # seconds without a byte
_LARGEST = 256 * 2**20  # bytes; ten times the largest file of any pilot


Unpack = Callable[[bytes], bytes]


def locate(folder: str, file: str, sha256: str, url: str, *, opened: Unpack = bytes, extracted: Unpack = bytes) -> Path:
    """A local file with that hash: ``$SECUREFL_DATA/folder/file``, else the cached copy, else fetched from ``url``.

    ``opened``: the hash is of what this makes of a file's content. ``extracted`` takes the file out of what ``url``
    sends. Raises ``DataUnavailable``, in one line with both remedies, if there is none to be had or its hash differs.
    """
    given = os.environ.get("SECUREFL_DATA")
    if given and (path := Path(given) / folder / file).is_file():
        _verify(path.read_bytes(), opened, sha256, f"{path}", f"restore it from {url}, or unset SECUREFL_DATA")
        return path
    path = cache_folder() / folder / file
    if path.is_file():
        _verify(path.read_bytes(), opened, sha256, f"{path}", "delete it, and it is fetched again")
        return path
    remedy = f"put the original at $SECUREFL_DATA/{folder}/{file}"
    content = _unpacked(_fetch(url, f"{folder}/{file}"), extracted, url, remedy)
    _verify(content, opened, sha256, url, remedy)
    _write(path, content)
    return path


def cache_folder() -> Path:
    """Where what was fetched or made is kept, for this person."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "securefl"


def _verify(content: bytes, opened: Unpack, sha256: str, origin: str, remedy: str) -> None:
    found = hashlib.sha256(_unpacked(content, opened, origin, remedy)).hexdigest()
    if found != sha256:
        raise DataUnavailable(f"{origin} is not the expected file (its SHA-256 is {found}, not {sha256}): {remedy}")


def _unpacked(content: bytes, unpack: Unpack, origin: str, remedy: str) -> bytes:
    try:
        return unpack(content)
    except (OSError, EOFError, KeyError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise DataUnavailable(
            f"{origin} is not the expected file (it cannot be unpacked: {error}): {remedy}"
        ) from error


def _fetch(url: str, wanted: str) -> bytes:
    if not url.startswith(("https://", "http://127.0.0.1:")):  # plain http only to this machine; hashes guard the rest
        raise DataUnavailable(f"{wanted}: refusing to fetch from {url}: an https address is needed")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as reply:  # noqa: S310 (the scheme is checked above)
            content: bytes = reply.read(_LARGEST + 1)
    except (OSError, http.client.HTTPException) as error:  # URLError, HTTPError and timeouts are OSErrors
        reason = getattr(error, "reason", None) or error
        raise DataUnavailable(
            f"{wanted} is missing and {url} cannot be reached ({reason}): set SECUREFL_DATA to a folder that holds "
            f"{wanted}, or connect to the network and try again"
        ) from error
    if len(content) > _LARGEST:
        raise DataUnavailable(f"{url} is larger than {_LARGEST} bytes: put the file at $SECUREFL_DATA/{wanted}")
    return content


def _write(path: Path, content: bytes) -> None:
    """Write in one step, so that an interrupted download never leaves half a file behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(content)
        Path(part.name).replace(path)
    except OSError as error:
        raise DataUnavailable(f"{path} cannot be written ({error}): set XDG_CACHE_HOME to a folder that can") from error
