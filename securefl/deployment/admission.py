"""A site's request to be admitted: its TLS key to be certified and its identity, in one file, signed by that identity.

The coordinator gets it from strangers: it is of limited size, decoded strictly, and checked before anything is done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from protocols import primitives
from protocols.errors import Forged
from protocols.primitives import Identity
from securefl.deployment.files import read_small
from securefl.deployment.names import Hex32, Hex64, grouped, require_name, require_organisation, require_project
from securefl.engines.nvflare.certificates import in_archive
from securefl.errors import BadInput, Refused
from securefl.report import canonical

_LARGEST: Final = 64 * 1024  # bytes; a request has some 3,000
_LARGEST_MEMBER: Final = 16 * 1024
_LABEL: Final = "securefl admission"
_CHECKED_DIGITS: Final = 32  # nobody finds another request that shares 128 bits
_NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """``key``: the Ed25519 identity; ``tls_key``: SHA-256 of the public key that ``certificate`` asks to certify."""

    project: str
    name: str
    organisation: str
    key: Hex32
    tls_key: Hex32
    certificate: Annotated[bytes, Meta(max_length=_LARGEST)]
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        require_project(self.project)
        require_name(self.name)
        require_organisation(self.organisation)

    @property
    def digest(self) -> bytes:
        return primitives.digest(_LABEL, canonical.canonical(self))

    @property
    def check(self) -> str:
        """What both sides read out to each other: it depends on the name, the organisation and both keys."""
        return grouped(self.digest.hex()[:_CHECKED_DIGITS])


class SignedRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A request and its signature by the identity in it."""

    request: Request
    signature: Hex64


class _Asked(Struct, frozen=True):
    """What nvflare's own request asks for; other fields are for nvflare."""

    project: str
    name: str
    org: str
    kind: Literal["site"]
    cert_type: Literal["client"]
    public_key_sha256: Hex32


def make(certificate: bytes, organisation: str, identity: Identity) -> Request:
    """The request that goes with nvflare's own, ``certificate``. Raises ``BadInput`` if that is none."""
    asked = _asked(certificate)
    key = identity.public.hex()
    return Request(asked.project, asked.name, organisation, key, asked.public_key_sha256, certificate)


def signed(request: Request, identity: Identity) -> bytes:
    """The file that is sent."""
    return canonical.canonical(SignedRequest(request, identity.sign(request.digest).hex()))


def read(path: Path, project: str) -> Request:
    """The request in a file. Raises ``BadInput`` for what is none, ``Refused`` for one that is not what it says."""
    data = read_small(path, _LARGEST, "a site's request")
    try:
        found = msgspec.json.decode(data, type=SignedRequest)
    except _NOT_JSON as error:
        raise BadInput(f"{path} is not a site's request ({error}): ask for the file that site init made") from error
    _check(found, project)
    return found.request


def _check(found: SignedRequest, project: str) -> None:
    request = found.request
    try:
        primitives.verify(bytes.fromhex(request.key), bytes.fromhex(found.signature), request.digest, request.name)
    except Forged as error:
        raise Refused(f"{error}: the request was changed on its way, or made wrongly; ask for it anew") from error
    if request.project != project:
        raise Refused(f"the request is for project {request.project!r}, this is {project!r}: send the other invitation")
    # nvflare would certify an administrator or a server as readily: only what was shown and signed may be asked for.
    asked = _asked(request.certificate)
    said = (request.project, request.name, request.organisation, request.tls_key)
    if (asked.project, asked.name, asked.org, asked.public_key_sha256) != said:
        raise Refused("the request asks to certify something else than it says: do not admit this site")


def _asked(certificate: bytes) -> _Asked:
    """What is in nvflare's request. That it holds for the key in it, nvflare checks before it certifies anything."""
    try:
        return msgspec.json.decode(in_archive(certificate, "request.json", _LARGEST_MEMBER), type=_Asked)
    except (ValueError, *_NOT_JSON) as error:
        raise Refused(f"the request certifies no site's key ({error}): ask for the file that site init made") from error
