"""What a coordinator gives to sites: where its server is, and by which root of trust they know it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from securefl.deployment.files import read_small
from securefl.deployment.names import Hex32, require_host, require_project
from securefl.engines.nvflare.certificates import Address
from securefl.report import canonical

FILE: Final = "invitation.json"
_LARGEST: Final = 4096  # bytes


class Invitation(Struct, frozen=True, forbid_unknown_fields=True):
    """``authority``: SHA-256 of the root certificate (hex), which sites compare by another channel.

    Raises ``BadInput`` for a name, host or port that could not be.
    """

    project: str
    host: str
    port: int
    authority: Hex32
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        require_project(self.project)
        require_host(self.host, self.port)

    @property
    def address(self) -> Address:
        return Address(self.project, self.host, self.port)

    def encoded(self) -> bytes:
        return canonical.canonical(self)


def read(path: Path) -> Invitation:
    """The invitation in a file. Raises ``BadInput`` for a file that is none."""
    return canonical.read(read_small(path, _LARGEST, "an invitation"), Invitation, str(path))
