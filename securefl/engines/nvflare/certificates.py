"""Certificates and kits, as nvflare's own command line makes them, driven without a person.

It runs in a process of its own, with a home of its own: what it keeps about its calls ends with them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from securefl.errors import BadInput, MissingExtra

COORDINATOR: Final = "coordinator@securefl.org"
"""The name of the coordinator's administrator; nvflare wants one like a mail address."""
_ORGANISATION: Final = "coordinator"
_LARGEST: Final = 64 * 1024  # bytes, of a certificate
_SECONDS: Final = 120.0  # a call takes one or two


@dataclass(frozen=True)
class Address:
    """Of the one server of a project: what kits are made for."""

    project: str
    host: str
    port: int


@dataclass(frozen=True)
class Certificate:
    """``fingerprint``: SHA-256 of its DER, hex. ``until``: the last moment at which it is valid."""

    fingerprint: str
    name: str
    until: datetime

    def days_left(self, now: datetime | None = None) -> int:
        """Whole days for which it is still valid; negative once it has expired."""
        return (self.until - (now or datetime.now(UTC))).days


def make_authority(folder: Path, address: Address, days: int) -> str:
    """A root of trust in ``folder``, key in mode 0600, for so many days; its certificate's fingerprint."""
    with TemporaryDirectory() as scratch:
        profile = _profile(Path(scratch), address)
        _nvflare("cert", "init", "--profile", profile, "-o", folder, "--valid-days", days)
    folder.chmod(0o700)
    return fingerprint(folder / "rootCA.pem")


def request_site(folder: Path, project: str, name: str, organisation: str) -> Path:
    """A new TLS key in ``folder`` (mode 0600) and a request to certify it, which holds no secret; the request."""
    participant = {"name": name, "type": "client", "org": organisation}
    return _request(folder, project, participant)


def approve(authority: Path, address: Address, request: Path, signed: Path, days: int) -> None:
    """Certify a request's key. Raises ``BadInput`` for a request that is damaged or of another project."""
    with TemporaryDirectory() as scratch:
        profile = _profile(Path(scratch), address)
        arguments = ("--ca-dir", authority, "--profile", profile, "--out", signed, "--valid-days", days, "--force")
        _nvflare("cert", "approve", request, *arguments)


def package(signed: Path, requested: Path, authority: str, kit: Path) -> None:
    """The kit of whoever made the key in ``requested``, at ``kit``, in the place of one that is there.

    ``authority``: fingerprint of the root of trust. Raises ``BadInput`` if the certificate is another key's, or if it
    was not signed under that root.
    """
    with TemporaryDirectory(dir=kit.parent, prefix=".kit-") as scratch:
        named = Path(scratch) / "kit.signed.zip"  # nvflare wants this ending, mail may have changed it
        shutil.copyfile(signed, named)
        arguments = ("-w", scratch, "--request-dir", requested, "--fingerprint", authority)
        made = Path(str(_nvflare("package", named, *arguments)["output_dir"]))
        made.chmod(0o700)
        if kit.exists():
            kit.rename(Path(scratch) / "before")
        made.rename(kit)


def make_server(authority: Path, address: Address, days: int, kit: Path, admin: Path) -> None:
    """The kits of the server and of the coordinator who administers it."""
    server = {"name": address.host, "type": "server", "org": _ORGANISATION, "default_host": address.host}
    coordinator = {"name": COORDINATOR, "type": "admin", "org": _ORGANISATION, "role": "lead"}
    root = fingerprint(authority / "rootCA.pem")
    for participant, place in ((server, kit), (coordinator, admin)):
        with TemporaryDirectory(dir=kit.parent, prefix=".request-") as scratch:
            requested, signed = Path(scratch) / "request", Path(scratch) / "signed.zip"
            approve(authority, address, _request(requested, address.project, participant), signed, days)
            package(signed, requested, root, place)


def fingerprint(path: Path) -> str:
    """SHA-256 of a certificate (hex). Raises ``BadInput`` for a file that holds none."""
    try:
        return _fingerprint(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not a certificate ({error}): get it anew from whoever signed it") from error


def in_signed(signed: Path, name: str) -> str:
    """Fingerprint of the certificate in what ``approve`` made. Raises ``BadInput`` for another file, or another name's.

    That the certificate is of any worth is for ``package`` to say.
    """
    try:
        with signed.open("rb") as file:
            return _fingerprint(in_archive(file.read(_LARGEST), f"{name}.crt", _LARGEST))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{signed} holds no certificate of {name!r} ({error}): ask for the file that is for you"
        ) from error


def in_archive(archive: bytes, name: str, limit: int) -> bytes:
    """At most ``limit`` bytes of one member of an archive that a stranger made. Raises ``ValueError`` without one."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened, opened.open(name) as member:
            if opened.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("packed in a way that nvflare does not use")
            return member.read(limit)
    except Exception as error:  # zipfile and what unpacks for it raise a dozen types that have nothing in common
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _fingerprint(pem: bytes) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))).hexdigest()


def read(path: Path) -> Certificate:
    """A certificate in a file. Raises ``BadInput`` for a file that holds none."""
    require()
    from nvflare.lighter.utils import load_crt

    found = fingerprint(path)
    try:
        loaded = load_crt(str(path))
        (name,) = (attribute.value for attribute in loaded.subject if attribute.oid.dotted_string == "2.5.4.3")
        return Certificate(found, str(name), loaded.not_valid_after_utc)
    except ValueError as error:
        raise BadInput(f"{path} is not a certificate ({error}): get it anew from whoever signed it") from error


def belongs(certificate: Path, key: Path) -> bool:
    """Whether a certificate is for this private key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError):
        return False
    return True


def require() -> None:
    """Raise ``MissingExtra`` where nvflare is not installed."""
    if util.find_spec("nvflare") is None:
        raise MissingExtra("a deployment over separate organisations", "nvflare")


def _request(folder: Path, project: str, participant: Mapping[str, object]) -> Path:
    with TemporaryDirectory() as scratch:
        definition = Path(scratch) / "participant.yaml"
        _write(definition, {"name": project, "participants": [participant]})
        made = _nvflare("cert", "request", "-p", definition, "--out", folder)
    folder.chmod(0o700)
    return Path(str(made["request_zip"]))


def _profile(folder: Path, address: Address) -> Path:
    path = folder / "profile.yaml"
    server = {"host": address.host, "fed_learn_port": address.port, "admin_port": address.port}
    _write(path, {"name": address.project, "scheme": "grpc", "connection_security": "mtls", "server": server})
    return path


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")  # which is YAML, too


def _nvflare(*arguments: object) -> Mapping[str, object]:
    """Run nvflare's command line; what it answers. Raises ``BadInput`` with its own words where it refuses."""
    require()
    with TemporaryDirectory() as home:
        # -P: what lies in the folder that somebody happens to be in is not nvflare.
        command = [sys.executable, "-P", "-m", "nvflare.cli", *map(str, arguments), "--format", "json"]
        try:
            done = subprocess.run(  # noqa: S603
                command, env={**os.environ, "HOME": home}, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BadInput(f"nvflare {arguments[0]} did not end within {_SECONDS:g} s: try again") from error
        shutil.rmtree(Path(home) / ".nvflare", ignore_errors=True)
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        data = answer["data"] if answer["status"] == "ok" else None
    except (IndexError, KeyError, TypeError, ValueError) as error:
        tail = (done.stderr or done.stdout).strip()[-500:]
        raise BadInput(f"nvflare {arguments[0]} failed: {tail or f'exit {done.returncode}'}") from error
    if not isinstance(data, dict):
        raise BadInput(f"nvflare refuses: {answer.get('message')} {answer.get('hint', '')}".strip())
    return data
