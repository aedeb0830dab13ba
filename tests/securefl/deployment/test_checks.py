"""What a check finds in a folder that is as it should be, and in ones that are not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from securefl.deployment.checks import Finding, near_their_end, of_server, of_site
from securefl.deployment.site_folder import SiteFolder
from securefl.privacy.ledger import Ledger, Owner
from securefl.privacy.mechanism import DPSGD, Budget
from tests.securefl.deployment.deployed import Deployed

pytestmark = pytest.mark.slow


def wrong(found: Iterable[Finding]) -> dict[str, str]:
    """What is not in order, by subject, other than that no server runs."""
    return {one.subject: f"{one.level}: {one.text}" for one in found if one.level != "ok" and one.subject != "server"}


def test_a_site_that_joined_is_in_order(project: Deployed) -> None:
    found = list(of_site(project.site("hospital-1")))
    assert wrong(found) == {}
    assert {one.subject for one in found} == {
        *("site.toml", "data", "model", "budget", "kit", "certificate", "server", "roster"),
    }


def test_a_coordinators_folder_is_in_order(project: Deployed) -> None:
    assert wrong(of_server(project.server)) == {}


def test_a_site_that_has_not_joined_is_told_the_next_step(project: Deployed, tmp_path: Path) -> None:
    site = SiteFolder(tmp_path / "site")
    site.init(project.server.invitation(), "hospital-9", "Org")
    found = wrong(of_site(site))
    assert "securefl site join" in found["kit"]
    assert "cannot import 'package.module'" in found["data"]


@pytest.mark.parametrize(("days", "level"), [(1094 - 31, None), (1094 - 29, "warning"), (1094 + 2, "problem")])
def test_a_certificate_is_told_before_it_expires(days: int, level: str | None, project: Deployed) -> None:
    later = datetime.now(UTC) + timedelta(days=days)
    site = wrong(of_site(project.site("hospital-1"), later)).get("certificate")
    server = wrong(of_server(project.server, later)).get("server cert.")
    for found in (site, server):
        assert (found is None) if level is None else (found or "").startswith(level)
    told = list(near_their_end(project.site("hospital-1").kit, later))
    assert (not told) if level is None else any(line.startswith(f"{level}: ") for line in told)


def test_a_mistake_in_the_file_is_told_and_the_rest_looked_at(own_project: Deployed) -> None:
    site = own_project.site("hospital-1")
    site.file.write_text(site.file.read_text() + "[policy]\nminimun = 3\n")
    found = list(of_site(site))
    assert "did you mean 'minimum'" in wrong(found)["site.toml"].lower()
    assert any(one.subject == "certificate" and one.level == "ok" for one in found)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("local/resources.json", '{"class_allow_list": ["*"]}'),
        ("local/authorization.json", '{"permissions": {"lead": "any"}}'),
        ("local/more__resources.json", "{}"),
        ("local/custom/code.py", ""),
        ("startup/start.sh", ""),
    ],
)
def test_a_kit_that_was_changed_is_told(name: str, change: str, own_project: Deployed) -> None:
    for kit in (own_project.site("hospital-1").kit, own_project.server.kit):
        (kit / name).parent.mkdir(exist_ok=True)
        (kit / name).write_text(change)
    for found in (of_site(own_project.site("hospital-1")), of_server(own_project.server)):
        assert wrong(found)["kit"].startswith("problem")


def test_what_others_may_read_is_told(own_project: Deployed) -> None:
    site, server = own_project.site("hospital-1"), own_project.server
    site.keep.chmod(0o640)
    assert "chmod 600" in wrong(of_site(site))["private"]
    site.keep.chmod(0o600)
    site.path.chmod(0o755)
    assert "chmod 700" in wrong(of_site(site))["private"]
    (server.authority / "rootCA.key").chmod(0o644)
    assert "rootCA.key" in wrong(of_server(server))["private"]


def test_a_root_key_that_is_kept_elsewhere_is_no_problem(own_project: Deployed) -> None:
    (own_project.server.authority / "rootCA.key").unlink()
    assert wrong(of_server(own_project.server)) == {}


def test_another_sites_kit_is_told(own_project: Deployed) -> None:
    mine, other = own_project.site("hospital-1").kit, own_project.site("hospital-2").kit
    (mine / "startup" / "client.crt").write_bytes((other / "startup" / "client.crt").read_bytes())
    found = wrong(of_site(own_project.site("hospital-1")))
    assert "not that of the key" in found["certificate"]
    assert "has not this site's" in found["roster"]


def test_a_budget_that_is_spent_is_told(own_project: Deployed) -> None:
    site = own_project.site("hospital-1")
    path = site.ledger("breast-cancer", "hospital-1")
    path.parent.mkdir(parents=True)
    owner = Owner("hospital-1", "breast-cancer", "record")
    ledger = Ledger(path, site.identity(), owner, Budget(99.0, 1e-5))
    ledger.charge("run", 1, 1, [DPSGD(1.0, 1.0, 4, 1.0)], b"\0" * 32, simulated=False)
    spent = ledger.epsilon()
    ledger.close()
    assert spent > 3
    assert wrong(of_site(site))["budget"] == f"problem: epsilon {spent:.3f} of 3 is spent on 'breast-cancer'"


def test_a_roster_that_is_not_of_those_admitted_is_told(own_project: Deployed) -> None:
    server = own_project.server
    server.write_roster(without=["hospital-2"])
    assert wrong(of_server(server))["roster"] == "warning: admitted and not on it: hospital-2"
    (server.members / "hospital-1.json").unlink()
    assert any(one.text == "it is not as hospital-1 was admitted last: write it anew" for one in of_server(server))
    server.roster_file.unlink()
    assert "securefl server roster" in wrong(of_server(server))["roster"]
