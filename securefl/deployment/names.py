"""What projects, sites and organisations may be called, and how fingerprints are written for people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from securefl.errors import BadInput

_LONGEST: Final = 64  # of a common name in a certificate (RFC 5280, appendix A.1)
# What nvflare takes for a site, and what is a file's name everywhere.
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_ORGANISATION: Final = r"[A-Za-z0-9_]{1,64}"
_PROJECT: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_HOST: Final = r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_NO_PLACE: Final = set(" \t\n#'\"\\")
# nvflare's own parts go by these names.
_TAKEN: Final = {"server", "admin", "client", "relay", "all"}

Hex32 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""32 bytes."""
Hex64 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{128}\Z")]
"""64 bytes."""


def require_name(name: str) -> None:
    """Raise ``BadInput`` unless a site may be called so."""
    _require(_NAME, name, "a site's name", "letters, digits, '-' and '_', at most 64, for example hospital-1")
    if name.lower() in _TAKEN:
        raise BadInput(f"a site cannot be called {name!r}, which means a part of nvflare: choose another name")


def require_organisation(name: str) -> None:
    """Raise ``BadInput`` unless an organisation may be called so."""
    _require(_ORGANISATION, name, "an organisation's name", "letters, digits and '_', at most 64, for example St_Mary")


def require_project(name: str) -> None:
    """Raise ``BadInput`` unless a project may be called so."""
    _require(
        _PROJECT, name, "a project's name", "letters, digits, '.', '-' and '_', at most 64, for example diabetes-1"
    )


def require_place(folder: Path) -> None:
    """Raise ``BadInput`` for a folder that nvflare could not start a job in: it splits command lines at blanks."""
    if bad := sorted(set(str(folder.absolute())) & _NO_PLACE):
        raise BadInput(f"{folder} has {bad[0]!r} in its name, which nvflare cannot take: choose a folder without it")


def require_host(host: str, port: int) -> None:
    """Raise ``BadInput`` unless sites could dial this host and port. An address of IPv4 is a name of this form, too."""
    _require(_HOST, host, "a host", "the server's name, for example fl.example.org, or its IPv4 address")
    if not 1 <= port <= 65535:
        raise BadInput(f"port {port}: it is a number from 1 to 65535, for example 8002")


def grouped(digits: str) -> str:
    """Hexadecimal digits in groups of four, to be read out."""
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def ungrouped(text: str) -> str:
    """A SHA-256 as a person typed it: hexadecimal digits, in groups or not. Raises ``BadInput`` for anything else."""
    digits = re.sub(r"[\s:]", "", text.lower().removeprefix("sha256:"))
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise BadInput(f"{text[:80]!r} is not a SHA-256, which has 64 hexadecimal digits: copy all of it")
    return digits


def _require(pattern: str, name: str, what: str, allowed: str) -> None:
    if len(name) > _LONGEST or not re.fullmatch(pattern, name):
        raise BadInput(f"{name[:80]!r} is not {what}: write {allowed}")
