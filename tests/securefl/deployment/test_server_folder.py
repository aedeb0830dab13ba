"""What a coordinator makes and keeps."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from protocols.primitives import Identity
from securefl.deployment import admission
from securefl.deployment.server_folder import ServerFolder
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.nvflare import certificates
from securefl.errors import BadInput, Refused, RunExists
from tests.securefl.deployment.deployed import NAMES, PROJECT, Deployed, requested

pytestmark = pytest.mark.slow


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_are_private_and_so_are_keys(project: Deployed) -> None:
    server = project.server
    keys = list(server.path.rglob("*.key"))
    assert sorted(key.relative_to(server.path).as_posix() for key in keys) == [
        "admin/startup/client.key",
        "authority/rootCA.key",
        "kit/startup/server.key",
    ]
    for path in (server.path, server.authority, server.kit, server.admin, server.members, server.admitted):
        assert mode(path) == 0o700, path
    assert {mode(key) for key in keys} == {0o600}


def test_nothing_is_left_of_how_it_was_made(project: Deployed) -> None:
    assert sorted(path.name for path in project.server.path.iterdir()) == [
        *("admin", "admitted", "authority", "invitation.json", "keep.sqlite", "kit", "members", "roster.json", "runs"),
    ]
    assert sorted(path.name for path in project.path.iterdir()) == ["coordinator", *NAMES]


def test_the_home_of_whoever_sets_it_up_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvflare keeps notes of all requests and approvals under ~/.nvflare."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    certificates.make_authority(tmp_path / "authority", certificates.Address("trial", "127.0.0.1", 8002), 10)
    assert list((tmp_path / "home").iterdir()) == []


def test_the_invitation_names_the_server_and_its_root(project: Deployed) -> None:
    invited = project.server.invitation()
    assert (invited.project, invited.host, invited.port) == (PROJECT, "127.0.0.1", 8002)
    assert invited.authority == certificates.fingerprint(project.server.authority / "rootCA.pem")


def test_the_roster_has_who_was_admitted_with_their_keys(project: Deployed) -> None:
    members = project.server.roster()
    assert list(members.members) == list(NAMES)
    for name, member in members.members.items():
        site = project.site(name)
        assert member.key == site.identity().public.hex()
        assert member.certificate == certificates.fingerprint(site.kit / "startup" / "client.crt")


def test_a_folder_that_is_taken_is_left_alone(project: Deployed, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (project.server.path, tmp_path):
        before = sorted(path.iterdir())
        with pytest.raises(RunExists, match="not empty"):
            ServerFolder(path).init(PROJECT, "127.0.0.1", 8002)
        assert sorted(path.iterdir()) == before


@pytest.mark.parametrize(("project_name", "host", "port"), [("a b", "h", 1), ("a", "h h", 1), ("a", "h", 0)])
def test_names_that_could_not_be_are_refused_before_anything_is_made(
    project_name: str, host: str, port: int, tmp_path: Path
) -> None:
    with pytest.raises(BadInput):
        ServerFolder(tmp_path / "new").init(project_name, host, port)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_none_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="securefl server init"):
        ServerFolder(tmp_path).invitation()
    with pytest.raises(BadInput, match="securefl server roster"):
        ServerFolder(tmp_path).roster()


def request_of(folder: Path, project: Deployed, name: str, identity: Identity | None = None) -> admission.Request:
    """A request by that name; with the given identity, if one is."""
    site = SiteFolder(folder / f"other-{name}")
    made, _ = site.init(project.server.invitation(), name, "Other")
    return made if identity is None else admission.make(made.certificate, "Other", identity)


@pytest.mark.attack("a stranger who asks to be admitted under a member's name")
def test_a_name_that_is_taken_is_refused_to_another_key(own_project: Deployed, tmp_path: Path) -> None:
    """The same site may ask again, with its own key; a stranger may not, whatever it has as TLS key."""
    before = own_project.server.known()
    stranger = request_of(tmp_path, own_project, "hospital-1")
    with pytest.raises(Refused, match="'hospital-1' was admitted with another key"):
        own_project.server.admit(stranger)
    assert own_project.server.known() == before
    renewed = admission.make(stranger.certificate, "Other", own_project.site("hospital-1").identity())
    own_project.server.admit(renewed)
    after = own_project.server.known()["hospital-1"]
    assert after.key == before["hospital-1"].key
    assert after.certificate != before["hospital-1"].certificate


def test_a_key_has_one_name_and_no_two_names_look_the_same(own_project: Deployed, tmp_path: Path) -> None:
    second = request_of(tmp_path, own_project, "hospital-9", own_project.site("hospital-1").identity())
    with pytest.raises(Refused, match="this key was admitted as 'hospital-1'"):
        own_project.server.admit(second)
    with pytest.raises(Refused, match="looks the same"):
        own_project.server.admit(request_of(tmp_path, own_project, "Hospital-1"))


@pytest.mark.attack("a request whose certificate request was made for another key than it shows")
def test_nvflare_certifies_no_other_key_than_is_shown(own_project: Deployed, tmp_path: Path) -> None:
    """What is compared on the telephone is what the request says of its TLS key; nvflare holds it to that."""
    import io
    import zipfile

    made = request_of(tmp_path, own_project, "hospital-9")
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made.certificate)) as archive, zipfile.ZipFile(content, "w") as changed:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "request.json":
                data = json.dumps({**json.loads(data), "public_key_sha256": "ee" * 32}).encode()
            changed.writestr(name, data)
    lie = admission.make(content.getvalue(), "Other", Identity.generate(os.urandom))
    assert lie.tls_key == "ee" * 32
    with pytest.raises(BadInput, match="nvflare refuses"):
        own_project.server.admit(lie)
    assert "hospital-9" not in own_project.server.known()
    assert not (own_project.server.admitted / "hospital-9.signed.zip").exists()


def test_members_join_and_leave_between_rosters(own_project: Deployed) -> None:
    server, first = own_project.server, own_project.server.roster()
    server.admit(admission.read(requested(own_project, "hospital-3"), PROJECT))
    second = server.write_roster()
    assert list(second.members) == [*NAMES, "hospital-3"]
    third = server.write_roster(without=["hospital-1"])
    assert list(third.members) == ["hospital-2", "hospital-3"]
    assert len({first.hash(), second.hash(), third.hash()}) == 3
    assert server.roster() == third
    with pytest.raises(BadInput, match="nobody called 'nobody' was admitted; known are hospital-1"):
        server.write_roster(without=["nobody"])
    with pytest.raises(BadInput, match="would be empty"):
        server.write_roster(without=[*NAMES, "hospital-3"])
