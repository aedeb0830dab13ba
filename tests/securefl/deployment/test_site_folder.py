"""What a site makes, and what it refuses to join."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from securefl.deployment import roster
from securefl.deployment.invitation import Invitation
from securefl.deployment.roster import Members
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.nvflare import certificates, kit
from securefl.errors import BadInput, Refused, RunExists, SecureFLError
from tests.securefl.deployment.deployed import NAMES, Deployed, admitted, coordinated
from tests.securefl.deployment.test_server_folder import mode, request_of

pytestmark = pytest.mark.slow


def test_no_private_key_leaves_the_folder(project: Deployed) -> None:
    site = project.site("hospital-1")
    sent = (site.path / "hospital-1.request").read_bytes()
    key = (site.tls / "hospital-1.key").read_bytes()
    asked = msgspec.json.decode(sent, type=dict[str, object])["request"]
    assert isinstance(asked, dict)
    with zipfile.ZipFile(io.BytesIO(msgspec.convert(asked["certificate"], bytes, strict=False))) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"PRIVATE" not in sent + content
    assert key.splitlines()[3] not in content
    assert site.identity().secret.hex().encode() not in sent
    for path in (site.tls / "hospital-1.key", site.keep, site.kit / "startup" / "client.key", site.roster_file):
        assert mode(path) == 0o600, path
    for path in (site.path, site.tls, site.kit, site.ledgers, site.runs):
        assert mode(path) == 0o700, path


def test_a_site_that_joined_has_pinned_the_roster_and_has_a_kit(project: Deployed) -> None:
    for name in NAMES:
        site = project.site(name)
        assert site.roster() == project.server.roster()
        assert kit.site_name(site.kit) == name
        assert kit.address(site.kit) == project.server.invitation().address
        assert list(kit.differences(site.kit, "site")) == []


def test_the_name_of_the_file_that_was_sent_back_does_not_matter(own_project: Deployed) -> None:
    site, members = own_project.site("hospital-1"), own_project.server.roster()
    renamed = own_project.path / "attachment (1).zip"
    shutil.copyfile(own_project.server.admitted / "hospital-1.signed.zip", renamed)
    assert site.join(own_project.server.roster_file, members.hash(), renamed) == members


def test_a_newer_roster_is_taken_over_alone(own_project: Deployed) -> None:
    site = own_project.site("hospital-1")
    admitted(own_project, "hospital-3")
    newer = own_project.server.write_roster()
    certificate = (site.kit / "startup" / "client.crt").read_bytes()
    site.join(own_project.server.roster_file, newer.hash())
    assert list(site.roster().members) == [*NAMES, "hospital-3"]
    assert (site.kit / "startup" / "client.crt").read_bytes() == certificate


def written(project: Deployed, members: Members) -> tuple[Path, str]:
    """A roster as somebody wrote it; its hash."""
    path = project.path / "given.json"
    path.write_bytes(members.encoded())
    return path, members.hash()


def with_own(project: Deployed, **changes: str) -> Members:
    """The roster, with something else said of hospital-1."""
    members = project.server.roster()
    own = msgspec.structs.replace(members.members["hospital-1"], **changes)
    return msgspec.structs.replace(members, members={**members.members, "hospital-1": own})


@pytest.mark.attack("a roster that was changed on its way")
def test_a_roster_of_another_hash_is_refused(own_project: Deployed) -> None:
    """Whoever carries the file cannot change what was said on the telephone."""
    site, wanted = own_project.site("hospital-1"), own_project.server.roster().hash()
    members = own_project.server.roster()
    other = msgspec.structs.replace(members.members["hospital-2"], key="ee" * 32)
    changed = msgspec.structs.replace(members, members={**members.members, "hospital-2": other})
    given, hash_of_it = written(own_project, changed)
    with pytest.raises(Refused, match="the roster has the hash"):
        site.join(given, wanted)
    assert site.roster() == members
    site.join(given, hash_of_it)  # who takes the hash from the file itself has checked nothing
    assert site.roster() == changed


@pytest.mark.attack("a coordinator who puts its own key under a site's name")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda project: with_own(project, key="ee" * 32), "could speak as this site"),
        (lambda project: with_own(project, certificate="ee" * 32), "another certificate for 'hospital-1'"),
        (lambda project: msgspec.structs.replace(project.server.roster(), project="other"), "of project 'other'"),
        (lambda project: project.server.write_roster(without=["hospital-1"]), "does not have 'hospital-1'"),
    ],
)
def test_a_roster_that_is_not_this_sites_is_refused(
    change: Callable[[Deployed], Members], words: str, own_project: Deployed
) -> None:
    site = own_project.site("hospital-1")
    before = site.roster()
    given, wanted = written(own_project, change(own_project))
    with pytest.raises(Refused, match=words):
        site.join(given, wanted)
    assert site.roster() == before


def test_the_file_of_another_site_is_refused(own_project: Deployed) -> None:
    site, members = own_project.site("hospital-1"), own_project.server.roster()
    signed = own_project.server.admitted / "hospital-2.signed.zip"
    with pytest.raises(BadInput, match="holds no certificate of 'hospital-1'"):
        site.join(own_project.server.roster_file, members.hash(), signed)


def before(site: SiteFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(site.kit.rglob("*")) if path.is_file()}


@pytest.mark.attack("a certificate that another root signed")
def test_a_certificate_under_another_root_is_refused(own_project: Deployed, tmp_path: Path) -> None:
    """A coordinator who is not the one of the invitation signs this very site's key, and writes a roster that fits."""
    site, kept = own_project.site("hospital-1"), before(own_project.site("hospital-1"))
    other = coordinated(tmp_path / "other", 8002)
    from securefl.deployment import admission

    signed = other.server.admit(admission.read(site.path / "hospital-1.request", "trial"))
    members = other.server.write_roster()
    with pytest.raises(BadInput, match=r"nvflare refuses: .*fingerprint"):
        site.join(other.server.roster_file, members.hash(), signed)
    assert before(site) == kept
    assert site.roster() == own_project.server.roster()


@pytest.mark.attack("a certificate of another key under a site's name")
def test_a_certificate_of_another_key_is_refused(own_project: Deployed, tmp_path: Path) -> None:
    """The coordinator signs a key of its own as hospital-1, and puts that into the roster."""
    site, kept = own_project.site("hospital-1"), before(own_project.site("hospital-1"))
    made = request_of(tmp_path, own_project, "hospital-1")
    asked, signed = tmp_path / "asked.zip", tmp_path / "made.signed.zip"
    asked.write_bytes(made.certificate)
    certificates.approve(own_project.server.authority, own_project.server.invitation().address, asked, signed, 10)
    fits = with_own(own_project, certificate=certificates.in_signed(signed, "hospital-1"))
    given, wanted = written(own_project, fits)
    with pytest.raises(BadInput, match="nvflare refuses"):
        site.join(given, wanted, signed)
    assert before(site) == kept


@pytest.mark.attack("a kit that would dial another server")
def test_a_kit_for_another_server_is_refused(own_project: Deployed, tmp_path: Path) -> None:
    site, kept = own_project.site("hospital-1"), before(own_project.site("hospital-1"))
    elsewhere = certificates.Address("trial", "127.0.0.1", 9999)
    asked, signed = site.tls / "hospital-1.request.zip", tmp_path / "made.signed.zip"
    certificates.approve(own_project.server.authority, elsewhere, asked, signed, 10)
    fits = with_own(own_project, certificate=certificates.in_signed(signed, "hospital-1"))
    given, wanted = written(own_project, fits)
    with pytest.raises(Refused, match="dials another server"):
        site.join(given, wanted, signed)
    assert before(site) == kept
    assert not (site.path / "kit.new").exists()


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 1000])
def test_a_file_that_was_not_sent_back_is_refused(data: bytes, own_project: Deployed) -> None:
    site, members = own_project.site("hospital-1"), own_project.server.roster()
    signed = own_project.path / "x.zip"
    signed.write_bytes(data)
    with pytest.raises(BadInput, match="holds no certificate"):
        site.join(own_project.server.roster_file, members.hash(), signed)


def test_a_site_that_is_running_joins_nothing(own_project: Deployed) -> None:
    """It would go on with what it read when it was started."""
    site, members = own_project.site("hospital-1"), own_project.server.roster()
    program = "import sys; from pathlib import Path; from securefl.run_lock import lock; held = lock(Path(sys.argv[1]))"
    running = subprocess.Popen(
        [sys.executable, "-c", f"{program}; print('held', flush=True); sys.stdin.read()", str(site.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout is not None and running.stdout.readline() == b"held\n"
    with pytest.raises(BadInput, match="another process is running"):
        site.join(own_project.server.roster_file, members.hash())
    running.communicate(b"")
    site.join(own_project.server.roster_file, members.hash())


def test_folders_that_are_none_say_what_to_do(tmp_path: Path, project: Deployed) -> None:
    site = SiteFolder(tmp_path)
    calls: list[tuple[Callable[[], object], str]] = [
        (site.invitation, "securefl site init"),
        (site.site_file, "securefl site init"),
        (site.roster, "securefl site join"),
        (site.identity, "restore it from a backup"),
    ]
    for call, words in calls:
        with pytest.raises(BadInput, match=words):
            call()
    with pytest.raises(RunExists, match="not empty"):
        project.site("hospital-1").init(project.server.invitation(), "hospital-1", "Org")


def test_a_roster_alone_is_not_enough_at_first(project: Deployed, tmp_path: Path) -> None:
    site = SiteFolder(tmp_path / "new")
    site.init(project.server.invitation(), "hospital-1", "Org")
    site.file.write_text('name = "hospital-1"\n[data]\npilot = "breast-cancer"\n')
    with pytest.raises(BadInput, match="no kit yet"):
        site.join(project.server.roster_file, project.server.roster().hash())


def test_a_name_that_is_no_site_leaves_no_folder(project: Deployed, tmp_path: Path) -> None:
    for name, organisation in (("a b", "Org"), ("server", "Org"), ("hospital-1", "St. Mary")):
        with pytest.raises(SecureFLError):
            SiteFolder(tmp_path / "new").init(project.server.invitation(), name, organisation)
        assert not (tmp_path / "new").exists()


def test_the_roster_is_not_taken_from_another_place(project: Deployed) -> None:
    assert roster.read(project.site("hospital-1").roster_file) == project.server.roster()


@pytest.mark.parametrize("name", ["St Mary", "ward#3", "it's"])
def test_a_folder_that_nvflare_could_not_start_jobs_in_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    folder = SiteFolder(tmp_path / name)
    with pytest.raises(BadInput, match="which nvflare cannot take"):
        folder.init(Invitation("trial", "127.0.0.1", 8002, "00" * 32), "hospital-1", "Org")
    assert not folder.path.exists()
