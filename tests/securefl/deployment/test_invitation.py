"""Invitations as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from securefl.deployment import invitation
from securefl.deployment.invitation import Invitation
from securefl.errors import BadInput, NotARun

INVITED = Invitation("diabetes", "fl.example.org", 8002, "ab" * 32)


def test_an_invitation_that_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "invitation.json"
    path.write_bytes(INVITED.encoded())
    assert invitation.read(path) == INVITED


@pytest.mark.parametrize(
    ("host", "port"), [("", 1), ("a b", 1), ("-x", 1), ("x", 0), ("x", 65536), ("::1", 1), ("h\n", 1), ("h" * 65, 1)]
)
def test_a_host_and_a_port_that_nobody_can_dial_are_refused(host: str, port: int) -> None:
    with pytest.raises(BadInput):
        Invitation("diabetes", host, port, "ab" * 32)


@pytest.mark.parametrize(
    "data", [b"", b"null", INVITED.encoded()[:-1], INVITED.encoded().replace(b"fl.example.org", b"fl..org"), b"\xff"]
)
def test_what_is_no_invitation_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "invitation.json"
    path.write_bytes(data)
    with pytest.raises(NotARun, match="damaged"):
        invitation.read(path)
