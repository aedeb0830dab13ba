"""Rosters as files: what is refused, and that the hash is that of the bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from securefl.deployment import roster
from securefl.deployment.roster import Member, Members
from securefl.errors import BadInput, NotARun

ONE, OTHER = Member("St_Mary", "ab" * 32, "01" * 32), Member("Bank_2", "cd" * 32, "02" * 32)
COORDINATOR = "ef" * 32
MEMBERS = Members("diabetes", COORDINATOR, {"hospital-1": ONE, "bank": OTHER})


def test_a_roster_that_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    path.write_bytes(MEMBERS.encoded())
    assert roster.read(path) == MEMBERS
    assert MEMBERS.hash() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_order_of_members_does_not_change_the_hash() -> None:
    assert Members("diabetes", COORDINATOR, {"bank": OTHER, "hospital-1": ONE}).hash() == MEMBERS.hash()


def test_the_protocol_gets_names_and_keys() -> None:
    assert MEMBERS.pinned().keys == {"hospital-1": b"\xab" * 32, "bank": b"\xcd" * 32}


@pytest.mark.parametrize(
    ("project", "members", "words"),
    [
        ("diabetes", {"one": ONE, "two": ONE}, "two members of the roster have one key"),
        ("diabetes", {"one": Member("St_Mary", COORDINATOR, "01" * 32)}, "two members of the roster have one key"),
        ("../x", {"one": ONE}, "not a project's name"),
        ("diabetes", {"a/b": ONE}, "not a site's name"),
        ("diabetes", {"Server": ONE}, "means a part of nvflare"),
        ("diabetes", {"n" * 65: ONE}, "not a site's name"),
        ("diabetes", {"one": Member("St Mary", "ab" * 32, "01" * 32)}, "not an organisation's name"),
    ],
)
def test_an_impossible_roster_is_not_made(project: str, members: dict[str, Member], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Members(project, COORDINATOR, members)


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(MEMBERS.encoded()), **values}, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b"\xff",
        MEMBERS.encoded() + b"\n",
        MEMBERS.encoded().replace(b":", b": "),
        changed(version=2),
        changed(more=1),
        changed(members={"one": {"organisation": "x", "key": "AB" * 32, "certificate": "01" * 32}}),
        changed(members={"one": {"organisation": "x", "key": "ab" * 31, "certificate": "01" * 32}}),
        changed(members={"one": {"organisation": "x", "key": "ab" * 32 + "\n", "certificate": "01" * 32}}),
        changed(members={"..": {"organisation": "x", "key": "ab" * 32, "certificate": "01" * 32}}),
    ],
)
def test_what_is_not_canonical_or_not_a_roster_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    path.write_bytes(data)
    with pytest.raises(NotARun, match=r"roster\.json is damaged"):
        roster.read(path)


def test_a_file_that_is_too_large_or_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(BadInput, match="larger than a roster can be"):
        roster.read(path)
    with pytest.raises(BadInput, match="cannot read a roster at"):
        roster.read(tmp_path / "none.json")
