"""Requests to be admitted, which come from strangers."""

from __future__ import annotations

import io
import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives import Identity
from securefl.deployment import admission
from securefl.deployment.admission import Request, SignedRequest
from securefl.errors import BadInput, Refused, SecureFLError

IDENTITY, OTHER = Identity(b"\1" * 32), Identity(b"\2" * 32)
ASKED = {
    "project": "diabetes",
    "name": "hospital-1",
    "org": "St_Mary",
    "kind": "site",
    "cert_type": "client",
    "public_key_sha256": "ab" * 32,
}


def zipped(**changes: Any) -> bytes:
    """As nvflare packs a request, with the one member that is looked at here."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("request.json", json.dumps({**ASKED, **changes}))
    return content.getvalue()


REQUEST = admission.make(zipped(), "St_Mary", IDENTITY)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "hospital-1.request"
    path.write_bytes(data)
    return path


def test_a_request_that_was_signed_is_read_back(tmp_path: Path) -> None:
    path = written(tmp_path, admission.signed(REQUEST, IDENTITY))
    assert admission.read(path, "diabetes") == REQUEST


def test_what_is_read_out_depends_on_name_organisation_and_both_keys() -> None:
    others = [
        msgspec.structs.replace(REQUEST, name="hospital-2"),
        msgspec.structs.replace(REQUEST, organisation="Bank"),
        msgspec.structs.replace(REQUEST, key=OTHER.public.hex()),
        msgspec.structs.replace(REQUEST, tls_key="cd" * 32),
    ]
    assert len({REQUEST.check, *(other.check for other in others)}) == 5
    assert len(REQUEST.check.replace(" ", "")) == 32


@pytest.mark.attack("a request to be admitted that was changed on its way")
def test_a_request_that_was_changed_on_its_way_is_refused(tmp_path: Path) -> None:
    """Without the signature whoever carries it could put in a TLS key of its own; with it, it needs the identity."""
    signature = IDENTITY.sign(REQUEST.digest).hex()
    own_key = msgspec.structs.replace(REQUEST, tls_key="ee" * 32, certificate=zipped(public_key_sha256="ee" * 32))
    assert admission.read(written(tmp_path, admission.signed(REQUEST, IDENTITY)), "diabetes").tls_key == "ab" * 32
    with pytest.raises(Refused, match="signature of hospital-1 does not verify"):
        admission.read(written(tmp_path, msgspec.json.encode(SignedRequest(own_key, signature))), "diabetes")


@pytest.mark.attack("a request under one identity that is signed by another")
def test_a_request_that_another_identity_signed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not verify"):
        admission.read(written(tmp_path, admission.signed(REQUEST, OTHER)), "diabetes")


@pytest.mark.attack("a site that asks to be certified as an administrator")
@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "user", "cert_type": "lead"},
        {"kind": "server", "cert_type": "server"},
        {"cert_type": "project_admin"},
        {"name": "hospital-2"},
        {"org": "Bank"},
        {"public_key_sha256": "ee" * 32},
    ],
)
def test_a_request_that_asks_for_more_than_it_says_is_refused(changes: dict[str, str], tmp_path: Path) -> None:
    """nvflare certifies what its own request says; the names around it are not its business."""
    request = msgspec.structs.replace(REQUEST, certificate=zipped(**changes))
    with pytest.raises(Refused, match=r"certifies no site's key|something else than it says"):
        admission.read(written(tmp_path, admission.signed(request, IDENTITY)), "diabetes")


def test_a_request_for_another_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is for project 'diabetes', this is 'heart'"):
        admission.read(written(tmp_path, admission.signed(REQUEST, IDENTITY)), "heart")


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "server", "x" * 65, "a\0b"])
def test_a_name_that_is_no_site_is_refused(name: str, tmp_path: Path) -> None:
    data = json.loads(admission.signed(REQUEST, IDENTITY))
    data["request"]["name"] = name
    with pytest.raises(BadInput):
        admission.read(written(tmp_path, json.dumps(data).encode()), "diabetes")


def test_a_request_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="larger than a site's request can be"):
        admission.read(written(tmp_path, b" " * 70_000), "diabetes")


def test_a_request_that_would_unpack_to_gigabytes_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("request.json", b" " * 20_000_000)
    assert len(content.getvalue()) < 32_000
    request = Request("diabetes", "hospital-1", "St_Mary", IDENTITY.public.hex(), "ab" * 32, content.getvalue())
    with pytest.raises(Refused, match="certifies no site's key"):
        admission.read(written(tmp_path, admission.signed(request, IDENTITY)), "diabetes")


@given(st.binary(max_size=300))
def test_any_bytes_lead_to_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.request"
    path.write_bytes(data)
    with pytest.raises(SecureFLError):
        admission.read(path, "diabetes")


@given(st.data())
def test_any_archive_leads_to_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Signed as it should be, so that the archive is looked at; cut off or changed anywhere."""
    archive = bytearray(zipped())
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    del archive[data.draw(st.integers(0, len(archive))) :]
    request = msgspec.structs.replace(REQUEST, certificate=bytes(archive))
    path = tmp_path_factory.getbasetemp() / "signed.request"
    path.write_bytes(admission.signed(request, IDENTITY))
    with suppress(SecureFLError):
        assert admission.read(path, "diabetes") == request  # a change that this does not look at


def test_a_request_that_nobody_can_read_is_explained(tmp_path: Path) -> None:
    path = written(tmp_path, b"x")
    os.remove(path)
    with pytest.raises(BadInput, match="cannot read a site's request"):
        admission.read(path, "diabetes")
