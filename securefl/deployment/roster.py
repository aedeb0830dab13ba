"""Who takes part: names, organisations and keys, in one file that every site pins by its hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from protocols.aggregation.session import Roster
from securefl.deployment.files import read_small
from securefl.deployment.names import Hex32, require_name, require_organisation, require_project
from securefl.errors import BadInput
from securefl.report import canonical

FILE: Final = "roster.json"
_LARGEST: Final = 1 << 20  # bytes: some 3,500 members


class Member(Struct, frozen=True, forbid_unknown_fields=True):
    """One site. ``key``: its Ed25519 identity; ``certificate``: SHA-256 of its TLS certificate; both in hex."""

    organisation: str
    key: Hex32
    certificate: Hex32


class Members(Struct, frozen=True, forbid_unknown_fields=True):
    """The members of a project, by name. ``coordinator``: the Ed25519 key (hex) that signs what is asked of them.

    Raises ``BadInput`` for impossible names and for a key that two have.
    """

    project: str
    coordinator: Hex32
    members: dict[str, Member]
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        require_project(self.project)
        for name, member in self.members.items():
            require_name(name)
            require_organisation(member.organisation)
        if len({self.coordinator, *(member.key for member in self.members.values())}) != 1 + len(self.members):
            raise BadInput("two members of the roster have one key: each site makes its own with securefl site init")

    def encoded(self) -> bytes:
        """Canonical JSON (RFC 8785): equal rosters have equal bytes."""
        return canonical.canonical(self)

    def hash(self) -> str:
        """SHA-256 of ``encoded``, in hex, as ``sha256sum`` gives it for the file."""
        return hashlib.sha256(self.encoded()).hexdigest()

    def pinned(self) -> Roster:
        """What the protocol needs of it."""
        return Roster({name: bytes.fromhex(member.key) for name, member in self.members.items()})


def read(path: Path) -> Members:
    """The roster in a file. Raises ``BadInput`` where there is none, or one that was not written here."""
    return canonical.read(read_small(path, _LARGEST, "a roster"), Members, str(path))
