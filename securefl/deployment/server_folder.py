"""A coordinator's folder: its root of trust, its server, whom it admitted, and the roster it gave out."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from protocols.primitives import Identity
from securefl.account import load_identity
from securefl.deployment import invitation, roster
from securefl.deployment.admission import Request
from securefl.deployment.files import read_small, write_private
from securefl.deployment.invitation import Invitation
from securefl.deployment.names import require_place
from securefl.deployment.roster import Member, Members
from securefl.engines.nvflare import certificates, kit
from securefl.engines.nvflare.frames import SOCKET
from securefl.errors import BadInput, Refused, RunExists
from securefl.report import canonical
from securefl.run_folder import explained, private_folder
from securefl.store import Store

DAYS: Final = 1095
"""For which certificates are valid: three years. The root's are ten."""
_ROOT_DAYS: Final = 3650
_LARGEST: Final = 4096  # bytes, of what is kept of a member


@dataclass(frozen=True)
class ServerFolder:
    """Where everything lies. ``path`` is private to the coordinator."""

    path: Path

    @property
    def authority(self) -> Path:
        """The root of trust. Whoever has its key can admit sites; it may be kept elsewhere, if nobody is to be."""
        return self.path / "authority"

    @property
    def kit(self) -> Path:
        return self.path / "kit"

    @property
    def admin(self) -> Path:
        """The kit of the coordinator as the server's administrator."""
        return self.path / "admin"

    @property
    def members(self) -> Path:
        """One file for each site that was admitted."""
        return self.path / "members"

    @property
    def admitted(self) -> Path:
        """What is sent back to sites."""
        return self.path / "admitted"

    @property
    def roster_file(self) -> Path:
        return self.path / roster.FILE

    @property
    def invitation_file(self) -> Path:
        return self.path / invitation.FILE

    @property
    def socket(self) -> Path:
        """Where the coordinator waits for its job at the server."""
        return self.kit / SOCKET

    @property
    def runs(self) -> Path:
        """Where runs are kept, if nothing else is said."""
        return self.path / "runs"

    @property
    def keep(self) -> Path:
        """The coordinator's own Ed25519 key. Whoever has the file can ask sites what the coordinator may."""
        return self.path / "keep.sqlite"

    def identity(self) -> Identity:
        """Signs what is asked of sites. Raises ``BadInput`` where ``init`` was not run."""
        if not self.keep.exists():
            raise BadInput(f"{self.keep} is missing, and with it the coordinator's key: restore it from a backup")
        store = Store(self.keep)
        try:
            return load_identity(store)
        finally:
            store.close()

    def invitation(self) -> Invitation:
        """Raises ``BadInput`` where ``init`` was not run."""
        if not self.invitation_file.exists():
            raise BadInput(f"{self.path} is not a coordinator's folder: make one with securefl server init")
        return invitation.read(self.invitation_file)

    def roster(self) -> Members:
        """The roster that was given out last. Raises ``BadInput`` where there is none."""
        if not self.roster_file.exists():
            raise BadInput(f"{self.path} has no roster: write one with securefl server roster {self.path}")
        return roster.read(self.roster_file)

    def known(self) -> dict[str, Member]:
        """All that were admitted, by name. Raises ``NotARun`` for a file that was altered."""
        files = sorted(self.members.glob("*.json"))
        return {path.stem: canonical.read(read_small(path, _LARGEST, "a member"), Member, str(path)) for path in files}

    def init(self, project: str, host: str, port: int, days: int = DAYS) -> Invitation:
        """Make it all. Raises ``RunExists`` for a folder that has anything in it; a failure leaves no folder."""
        Invitation(project, host, port, "0" * 64)  # which refuses names that could not be
        require_place(self.path)
        certificates.require()
        private_folder(self.path.absolute().parent)
        if self.path.exists() and any(self.path.iterdir()):
            raise RunExists(f"{self.path} is not empty: name a new folder")
        address = certificates.Address(project, host, port)
        with explained(self.path), TemporaryDirectory(dir=self.path.absolute().parent, prefix=".securefl-") as scratch:
            made = ServerFolder(Path(scratch) / "server")
            made.path.mkdir(mode=0o700)
            store = Store(made.keep)
            load_identity(store)
            store.close()
            authority = certificates.make_authority(made.authority, address, max(days, _ROOT_DAYS))
            certificates.make_server(made.authority, address, days, made.kit, made.admin)
            invited = Invitation(project, host, port, authority)
            made.invitation_file.write_bytes(invited.encoded())
            for folder in (made.members, made.admitted, made.runs):
                folder.mkdir(mode=0o700)
            kit.harden(made.kit, "server", self.kit)
            os.replace(made.path, self.path)
        return invited

    def admit(self, request: Request, days: int = DAYS) -> Path:
        """Certify a site's key and keep its identity; what to send back.

        Raises ``Refused`` where the name is another key's, or the key another name's. The same site may ask again: for
        a certificate that lasts longer, or for another TLS key.
        """
        self.refuse_taken(request)
        signed = self.admitted / f"{request.name}.signed.zip"
        with explained(self.path), TemporaryDirectory(dir=self.path, prefix=".admit-") as scratch:
            asked, made = Path(scratch) / "request.zip", Path(scratch) / "made.signed.zip"
            asked.write_bytes(request.certificate)
            certificates.approve(self.authority, self.invitation().address, asked, made, days)
            certificate = certificates.in_signed(made, request.name)
            os.replace(made, signed)
        member = Member(request.organisation, request.key, certificate)
        write_private(self.members / f"{request.name}.json", canonical.canonical(member))
        return signed

    def write_roster(self, without: Collection[str] = ()) -> Members:
        """The roster of all that were admitted, without some. Raises ``BadInput`` for a name that is not known."""
        project, known = self.invitation().project, self.known()
        if unknown := sorted(set(without) - known.keys()):
            raise BadInput(f"nobody called {unknown[0]!r} was admitted; known are {', '.join(known) or 'none'}")
        members = {name: member for name, member in known.items() if name not in without}
        if not members:
            raise BadInput("the roster would be empty: admit sites with securefl server admit")
        found = Members(project, self.identity().public.hex(), members)
        write_private(self.roster_file, found.encoded())
        return found

    def refuse_taken(self, request: Request) -> None:
        """Raise ``Refused`` where the name is another key's, or the key another name's."""
        for name, member in self.known().items():
            if name == request.name and member.key != request.key:
                raise Refused(f"{name!r} was admitted with another key: let the site use that one, or another name")
            if name != request.name and member.key == request.key:
                raise Refused(f"this key was admitted as {name!r}: a site has one name")
            if name != request.name and name.lower() == request.name.lower():
                raise Refused(f"{name!r} was admitted, and {request.name!r} looks the same: let it use another name")
