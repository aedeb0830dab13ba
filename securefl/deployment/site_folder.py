"""A site's folder: its keys, what its owner decided, whom it takes part with, and what it keeps of runs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocols.primitives import Identity
from securefl.account import load_identity
from securefl.deployment import admission, invitation, roster, site_file, template
from securefl.deployment.admission import Request
from securefl.deployment.files import write_private
from securefl.deployment.invitation import Invitation
from securefl.deployment.names import require_name, require_organisation, require_place
from securefl.deployment.roster import Members
from securefl.deployment.site_file import SiteFile
from securefl.engines.nvflare import certificates, kit
from securefl.engines.nvflare.frames import SOCKET
from securefl.errors import BadInput, Refused, RunExists
from securefl.job.completion import slug
from securefl.run_folder import STORE, explained, private_folder
from securefl.run_lock import Lock, lock
from securefl.store import Store

KEEP: Final = "keep.sqlite"
_KEEPER: Final = "start.lock"


@dataclass(frozen=True)
class SiteFolder:
    """Where everything lies. ``path`` is private to the site's owner."""

    path: Path

    @property
    def file(self) -> Path:
        """What the owner decides, ``site.toml``."""
        return self.path / site_file.FILE

    @property
    def tls(self) -> Path:
        """The TLS key, which leaves this folder for the kit only, and nvflare's request to certify it."""
        return self.path / "tls"

    @property
    def kit(self) -> Path:
        return self.path / "kit"

    @property
    def keep(self) -> Path:
        """The identity, and what outlives runs. Whoever has the file can speak as this site."""
        return self.path / KEEP

    @property
    def store(self) -> Path:
        return self.path / STORE

    @property
    def ledgers(self) -> Path:
        return self.path / "ledgers"

    def ledger(self, data: str, name: str) -> Path:
        """The ledger of the data set that is called so."""
        return self.ledgers / slug(data) / f"{name}.sqlite"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def plans(self) -> Path:
        """Plans that wait for approval, and those that have it."""
        return self.path / "plans"

    @property
    def socket(self) -> Path:
        """Where the client process waits for what the site's process of nvflare forwards."""
        return self.kit / SOCKET

    @property
    def log(self) -> Path:
        return self.path / "site.log"

    @property
    def invitation_file(self) -> Path:
        return self.path / invitation.FILE

    @property
    def roster_file(self) -> Path:
        return self.path / roster.FILE

    def site_file(self) -> SiteFile:
        """Raises ``BadJob`` for a key that is wrong."""
        self.invitation()
        return site_file.read(self.file)

    def invitation(self) -> Invitation:
        """Raises ``BadInput`` where ``init`` was not run."""
        if not self.invitation_file.exists():
            raise BadInput(f"{self.path} is not a site's folder: make one with securefl site init")
        return invitation.read(self.invitation_file)

    def roster(self) -> Members:
        """The roster that is pinned. Raises ``BadInput`` where there is none."""
        if not self.roster_file.exists():
            raise BadInput(f"{self.path} has joined nobody: pin a roster with securefl site join {self.path}")
        return roster.read(self.roster_file)

    def identity(self) -> Identity:
        """The site's own Ed25519 key. Raises ``BadInput`` where ``init`` was not run."""
        if not self.keep.exists():
            raise BadInput(f"{self.keep} is missing, and with it the site's key: restore it from a backup")
        store = Store(self.keep)
        try:
            return load_identity(store)
        finally:
            store.close()

    def init(self, invited: Invitation, name: str, organisation: str) -> tuple[Request, Path]:
        """Make the keys and a ``site.toml`` to be edited; the request to be admitted, and the file to send.

        No private key is in it. Raises ``RunExists`` for a folder that has anything in it.
        """
        require_name(name)
        require_organisation(organisation)
        require_place(self.path)
        certificates.require()
        private_folder(self.path)
        if any(self.path.iterdir()):
            raise RunExists(f"{self.path} is not empty: name a new folder")
        with explained(self.path):
            self.path.chmod(0o700)
            asked = certificates.request_site(self.tls, invited.project, name, organisation).read_bytes()
            store = Store(self.keep)
            identity = load_identity(store)
            store.close()
            request = admission.make(asked, organisation, identity)
            self.file.write_text(template.site(name), encoding="utf-8")
            sent = self.path / f"{name}.request"
            sent.write_bytes(admission.signed(request, identity))
            for folder in (self.ledgers, self.runs):
                folder.mkdir(mode=0o700)
            self.invitation_file.write_bytes(invited.encoded())  # last: with it, the folder is whole
        return request, sent

    def lock_start(self) -> Lock:
        """For whoever keeps the site's processes running, as long as it is kept: two would each run their own.

        Raises ``BadInput`` where another does. The client process has a lock of its own.
        """
        return lock(self.path, _KEEPER)

    def join(self, given: Path, wanted: str, signed: Path | None = None) -> Members:
        """Pin the roster in the file ``given``, whose hash is ``wanted``; with ``signed``, build the kit first.

        Raises ``Refused``, and changes nothing, for a roster of another hash or project, one that has not this site's
        name, key and certificate, and for a certificate of another key or under another root than the invitation's.
        Raises ``BadInput`` while the site is running: what runs would go on with what it read before.
        """
        invited, name = self.invitation(), self.site_file().name
        held = self.lock_start(), lock(self.path)
        members = roster.read(given)
        if members.hash() != wanted:
            raise Refused(
                f"the roster has the hash {members.hash()}, not {wanted}: ask the coordinator for both again, and for "
                "the hash by another channel than the file"
            )
        certificate = self._certificate(name, signed)
        self._check_own(members, invited, name, certificate)
        if signed is not None:
            self._build(signed, invited)
        write_private(self.roster_file, members.encoded())
        del held
        return members

    def _certificate(self, name: str, signed: Path | None) -> str:
        if signed is not None:
            return certificates.in_signed(signed, name)
        if not self.kit.is_dir():
            raise BadInput(f"{self.path} has no kit yet: name the file that the coordinator sent back, too")
        return certificates.fingerprint(self.kit / "startup" / "client.crt")

    def _check_own(self, members: Members, invited: Invitation, name: str, certificate: str) -> None:
        own = members.members.get(name)
        if members.project != invited.project:
            raise Refused(f"the roster is of project {members.project!r}, this site is in {invited.project!r}")
        if own is None:
            raise Refused(f"the roster does not have {name!r}: ask the coordinator for one that does")
        if own.key != self.identity().public.hex():
            raise Refused(f"the roster has another key for {name!r}, who could speak as this site: do not take part")
        if own.certificate != certificate:
            raise Refused(
                f"the roster has another certificate for {name!r}: ask the coordinator for the newest of both"
            )

    def _build(self, signed: Path, invited: Invitation) -> None:
        fresh = self.path / "kit.new"
        with explained(self.path):
            shutil.rmtree(fresh, ignore_errors=True)
            certificates.package(signed, self.tls, invited.authority, fresh)
            kit.harden(fresh, "site")
            if kit.address(fresh) != invited.address:
                shutil.rmtree(fresh)
                raise Refused("the kit dials another server than the invitation names: ask the coordinator why")
            if self.kit.exists():
                shutil.rmtree(self.kit)
            os.replace(fresh, self.kit)
