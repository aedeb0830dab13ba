"""``securefl server`` and ``securefl site``, as a person and a script meet them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from securefl import cli
from securefl.deployment.approvals import COORDINATOR, Approvals
from securefl.engines.nvflare import kit
from securefl.engines.nvflare.kit import Role
from tests.securefl.deployment import sites
from tests.securefl.deployment.deployed import SITE_FILE, Deployed

COMMANDS = [
    *("server init", "server admit", "server roster", "server check"),
    *("site init", "site join", "site check", "site plans", "site approve", "site reject", "site accept-ledger"),
]


def last(output: str) -> Any:
    """The last line of stdout, as JSON."""
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    output = capsys.readouterr().out
    assert f"Example:  securefl {command}" in output
    assert "--json" in output


@pytest.mark.parametrize("group", ["server", "site"])
def test_a_group_alone_lists_its_commands(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([group])
    said = capsys.readouterr()
    for command in (name.split()[1] for name in COMMANDS if name.startswith(group)):
        assert command in said.out + said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["server", "check", "nowhere"], "is not a coordinator's folder"),
        (["server", "roster", "nowhere"], "is not a coordinator's folder"),
        (["server", "admit", "nowhere", "x.request"], "is not a coordinator's folder"),
        (["server", "init", "new", "--name", "a b", "--host", "h"], "is not a project's name"),
        (["site", "check", "nowhere"], "is not a site's folder"),
        (["site", "join", "nowhere", "roster.json", "--roster", "0" * 64], "is not a site's folder"),
        (["site", "join", "nowhere", "roster.json", "--roster", "abc"], "is not a SHA-256"),
        (["site", "join", "nowhere", "a", "b", "c", "--roster", "0" * 64], "name two files"),
        (["site", "init", "new", "--invitation", "none", "--name", "a", "--org", "b"], "cannot read an invitation"),
        (["site", "join", "nowhere", "--roster", "0" * 64], "Missing argument"),
    ],
)
def test_a_mistake_is_one_line_with_what_to_do(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--json"]) == 2
    said = capsys.readouterr()
    assert len(said.err.strip().splitlines()) == 1
    assert words in said.err
    assert last(said.out)["exit_code"] == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_project_is_set_up_by_its_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From nothing to two sites that joined, with what each command printed for the next."""
    pytest.importorskip("nvflare")
    monkeypatch.chdir(tmp_path)

    words = ""

    def run(*arguments: str) -> Any:
        nonlocal words
        assert cli.main([*arguments, "--json"]) == 0
        words, answer = reversed(capsys.readouterr())
        return last(answer)

    made = run("server", "init", "coordinator", "--name", "trial", "--host", "127.0.0.1")
    signed = {}
    for name in ("hospital-1", "hospital-2"):
        asked = run("site", "init", name, "--invitation", made["invitation"], "--name", name, "--org", "Org")
        assert asked["fingerprint"] == made["fingerprint"]
        assert f"securefl site join {name} {name}.signed.zip roster.json --roster HASH" in words
        Path(name, "site.toml").write_text(SITE_FILE.format(name=name))
        admitted = run("server", "admit", "coordinator", asked["request"], "--yes")
        assert (admitted["check"], admitted["name"]) == (asked["check"], name)
        signed[name] = admitted["signed"]
    roster = run("server", "roster", "coordinator")
    assert roster["members"] == ["hospital-1", "hospital-2"]
    for name, file in signed.items():
        joined = run("site", "join", name, file, roster["roster"], "--roster", roster["hash"])
        assert joined == {"project": "trial", "members": roster["members"], "hash": roster["hash"]}
        assert run("site", "check", name)["problems"] == 0
    assert run("server", "check", "coordinator")["problems"] == 0
    fewer = run("server", "roster", "coordinator", "--without", "hospital-2")
    assert run("site", "join", "hospital-1", fewer["roster"], "--roster", fewer["hash"])["members"] == ["hospital-1"]


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "admits"), [("y\n", True), ("n\n", False), ("", False)])
def test_a_person_is_asked_before_a_site_is_admitted(
    typed: str,
    admits: bool,
    own_project: Deployed,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server, site = own_project.server, own_project.site("hospital-1")
    before = server.known()
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    sent = str(site.path / "hospital-1.request")
    assert cli.main(["server", "admit", str(server.path), sent]) == (0 if admits else 2)
    said = capsys.readouterr()
    assert "hospital-1 of Org_1" in said.out
    assert ("nothing was changed" in said.err) != admits
    assert (server.known() != before) == admits


@pytest.mark.slow
def test_a_problem_is_shown_and_leaves_with_an_error(own_project: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    site = own_project.site("hospital-1")
    (site.kit / "local" / "resources.json").write_text("{}")
    assert cli.main(["site", "check", str(site.path)]) == 2
    said = capsys.readouterr().out
    assert "PROBLEM" in said and "resources.json is not as it was written" in said
    assert cli.main(["site", "check", str(site.path), "--json"]) == 2
    assert last(capsys.readouterr().out)["problems"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("group", ["server", "site"])
def test_a_start_undoes_what_was_changed_in_a_kit(group: str, own_project: Deployed) -> None:
    """The processes themselves are not waited for: what they read is written before they are started."""
    folders = {"server": own_project.server, "site": own_project.site("hospital-1")}
    home = folders[group]
    (home.kit / "local" / "resources.json").write_text('{"class_allow_list": ["*"]}')
    (home.kit / "local" / "more__resources.json").write_text("{}")
    command = [sys.executable, "-m", "securefl", group, "start", str(home.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starting:
        assert starting.stdout is not None
        assert any("started (pid" in line for line in starting.stdout)
        role: Role = "server" if group == "server" else "site"
        assert list(kit.differences(home.kit, role)) == []
        starting.terminate()
        starting.communicate()
    assert starting.returncode == 0


KEEPS = """
import sys
from pathlib import Path
from securefl.deployment.site_folder import SiteFolder
held = SiteFolder(Path(sys.argv[1])).lock_start()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("command", ["start", "join"])
def test_a_site_is_started_once_and_not_changed_meanwhile(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also before its client process has begun, or between two of them."""
    ada = sites.joined(tmp_path)["ada"]
    arguments = {"start": [], "join": [str(ada.roster_file), "--roster", ada.roster().hash()]}[command]
    keeping = [sys.executable, "-c", KEEPS, str(ada.path)]
    with subprocess.Popen(keeping, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        assert cli.main(["site", command, str(ada.path), *arguments]) == 2
        assert "another process is running in" in capsys.readouterr().err
        assert not ada.kit.exists()
        first.communicate("")


def test_an_owner_sees_who_proposed_what_and_approves_or_rejects_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = sites.joined(tmp_path)
    ada, plan = folders["ada"], sites.coordinator(folders)[0].plan
    name, approvals = plan.digest().hex(), Approvals(ada.plans)
    for by in (COORDINATOR, "bob"):
        approvals.ask(plan, by)

    def run(*arguments: str, code: int = 0) -> str:
        assert cli.main(["site", *arguments]) == code
        said = capsys.readouterr()
        return said.out + said.err

    shown = run("plans", str(ada.path))
    assert "proposed by  the coordinator" in shown and "proposed by  bob" in shown and "without a server" in shown
    assert "say whose with --by" in run("approve", str(ada.path), name, code=2)
    assert "for one run of bob" in run("approve", str(ada.path), name, "--by", "bob")
    assert "proposed by the coordinator" in run("reject", str(ada.path), name)
    assert "no plan waits" in run("plans", str(ada.path))
    assert approvals.allows(plan, "run-1", "bob") and not approvals.allows(plan, "run-1")


def test_a_ledger_that_lost_charges_is_accepted_by_a_person_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = sites.joined(tmp_path)
    ada = folders["ada"]
    assert cli.main(["site", "accept-ledger", str(ada.path), "--yes"]) == 2
    assert "there is nothing to accept" in capsys.readouterr().err
    server, engine = sites.coordinator(folders)
    server.round(engine.exchange(1))
    next(ada.ledgers.rglob("ada.sqlite")).unlink()
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert cli.main(["site", "accept-ledger", str(ada.path)]) == 2
    assert "nothing was changed" in capsys.readouterr().err
    assert cli.main(["site", "accept-ledger", str(ada.path), "--yes", "--json"]) == 0
    assert last(capsys.readouterr().out) == {"charges": 0}
    sites.opened({"ada": ada})
