"""A site's consent: which plans it takes part in, by rule, by hash or by hand, and that nothing else trains there."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from protocols.aggregation.messages import KeysRequest, Refusal
from protocols.wire import decode, encode, kind
from securefl import proposal
from securefl.account import most_charged
from securefl.announcement import Announcement, public_tag
from securefl.cli.lines import labelled
from securefl.deployment import checks, ledger_head, words
from securefl.deployment import diary as diaries
from securefl.deployment.approvals import COORDINATOR, Approvals, Waiting
from securefl.deployment.diary import OWNER, Diary
from securefl.deployment.site import Site
from securefl.deployment.site_folder import SiteFolder
from securefl.errors import BadInput, LedgerError, NotARun, RoundFailed
from securefl.plan import Plan
from securefl.proposal import Consent, Propose
from securefl.round import _will_refuse_again
from securefl.server import Server
from tests.securefl.deployment import sites
from tests.securefl.privacy.test_ledger_file import INTERRUPTED


def site_of(folder: SiteFolder) -> Site:
    return Site(folder, Diary(folder.log))


def word(site: Site, plan: Plan, run: str = "run-1") -> str:
    return decode(site.handle(encode(Propose(run, plan.encoded()))), Consent).word


def begins(site: Site, plan: Plan, run: str = "run-1", attempt: int = 1) -> str:
    """The first request of an attempt; "answered", or the word that came back."""
    model = bytes(4 * plan.dimension)
    announced = Announcement(run, 1, attempt, plan, model, public_tag(model))
    reply = site.handle(encode(KeysRequest(announced.encoded())))
    return decode(reply, Refusal).reason if kind(reply) == Refusal.KIND else "answered"


def rule(folder: SiteFolder, wanted: str) -> None:
    text = folder.file.read_text(encoding="utf-8")
    folder.file.write_text(text.replace('rule = "policy"', wanted), encoding="utf-8")


def owners_log(folder: SiteFolder) -> str:
    return folder.log.with_name(OWNER).read_text(encoding="utf-8")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, SiteFolder]:
    return sites.joined(tmp_path)


@pytest.fixture
def server(folders: dict[str, SiteFolder]) -> Server:
    return sites.coordinator(folders)[0]


def test_a_plan_waits_until_it_is_approved_and_then_for_one_run_only(
    folders: dict[str, SiteFolder], server: Server
) -> None:
    ada = folders["ada"]
    rule(ada, 'rule = "none"')
    site, name = site_of(ada), server.plan.digest().hex()
    assert word(site, server.plan) == "pending" and begins(site, server.plan) == "policy"
    approvals = Approvals(ada.plans)
    assert approvals.waiting() == [Waiting(server.plan)]
    assert f"securefl site approve {ada.path} {name}" in owners_log(ada)
    assert approvals.approve(name) == Waiting(server.plan)
    assert word(site, server.plan, "run-1") == "accepted"
    assert begins(site, server.plan, "run-1") == "answered"
    assert word(site, server.plan, "run-1") == "accepted"
    assert word(site, server.plan, "run-2") == "pending"  # the approval is spent
    assert begins(site, server.plan, "run-2") == "policy"
    approvals.approve(name)
    assert begins(site, server.plan, "run-1", attempt=2) == "answered"  # by its own, and leaves the second to others
    assert begins(site, server.plan, "run-2") == "answered"
    assert begins(site, server.plan, "run-1", attempt=3) == "answered"
    assert begins(site, server.plan, "run-3") == "policy"


@pytest.mark.attack("a proposal of a run that never starts, which uses up an owner's approval")
def test_a_proposal_takes_no_approval(folders: dict[str, SiteFolder], server: Server) -> None:
    ada = folders["ada"]
    rule(ada, 'rule = "none"')
    site, name = site_of(ada), server.plan.digest().hex()
    assert word(site, server.plan, "run-1") == "pending"
    Approvals(ada.plans).approve(name)
    for run in ("run-1", "run-2"):
        assert word(site, server.plan, run) == "accepted"
    assert begins(site, server.plan, "run-2") == "answered"
    assert word(site, server.plan, "run-1") == "pending"


@pytest.mark.attack("a proposal that ends the session of the run that goes on")
def test_a_proposal_changes_nothing_in_the_run_that_goes_on(folders: dict[str, SiteFolder], server: Server) -> None:
    site = site_of(folders["ada"])
    assert begins(site, server.plan, "run-1") == "answered"
    before = site._client, site._pinned
    assert before[0] is not None and before[0]._attempt is not None
    other = replace(server.plan, rounds=1)
    assert word(site, other, "run-2") == "accepted"
    assert (site._client, site._pinned) == before
    assert begins(site, other, "run-2") == "answered"
    assert site._client is not before[0]


def test_a_run_that_was_joined_needs_room_for_what_is_left_of_it_only(folders: dict[str, SiteFolder]) -> None:
    """After half of it, the budget does not cover the whole of it once more."""
    server, engine = sites.coordinator(folders, rounds=4)
    ada, plan = folders["ada"], server.plan
    for _ in range(2):
        server.round(engine.exchange(1))
    spent = site_of(ada)._ledger
    assert spent is not None
    text, budget = ada.file.read_text(), spent.epsilon() * 1.6
    ada.file.write_text(text.replace("epsilon = 50.0", f"epsilon = {budget}"), encoding="utf-8")
    again = site_of(ada)
    again._client = again._pinned = None
    assert word(again, plan, "another") == "budget"
    assert word(again, plan, server.run) == "accepted"


@pytest.mark.attack("the same plan again and again, on a site that accepts it by its hash")
def test_a_plan_that_is_accepted_by_its_hash_is_charged_for_one_run_and_its_failures(
    folders: dict[str, SiteFolder],
) -> None:
    server, _ = sites.coordinator(folders, rounds=1)
    plan, ada = server.plan, folders["ada"]
    rule(ada, f'plans = ["{plan.digest().hex()}"]')
    charged = 0
    while charged < 20 and trained(folders, charged):
        charged += 1
    assert charged == most_charged(plan) == 4
    assert "waits for approval" in owners_log(ada)
    Approvals(ada.plans).approve(plan.digest().hex())  # which is how an owner says that it may be run once more
    assert trained(folders, 4)
    assert not trained(folders, 5)


def trained(folders: dict[str, SiteFolder], number: int) -> bool:
    """Whether ada contributes to a new run of one round, with site processes that have just started."""
    server, engine = sites.coordinator(folders, rounds=1)
    try:
        return "ada" in server.round(engine.exchange(number)).contributors
    except RoundFailed as failed:
        assert failed.lost == {"ada": "refused: policy"}
        return False


def test_a_plan_is_accepted_by_its_hash_and_no_other_is(folders: dict[str, SiteFolder], server: Server) -> None:
    rule(folders["ada"], f'plans = ["{server.plan.digest().hex()}"]')
    site = site_of(folders["ada"])
    assert word(site, server.plan) == "accepted"
    assert word(site, replace(server.plan, rounds=server.plan.rounds + 1)) == "pending"


def test_what_the_policy_refuses_is_not_even_asked_about(folders: dict[str, SiteFolder], server: Server) -> None:
    ada = folders["ada"]
    rule(ada, 'rule = "none"')
    ada.file.write_text(ada.file.read_text() + '\n[policy]\nprotections = ["ckks"]\n', encoding="utf-8")
    assert word(site_of(ada), server.plan) == "refused"
    assert Approvals(ada.plans).waiting() == []
    assert "protections" in owners_log(ada)


def test_what_the_budget_does_not_cover_says_budget(folders: dict[str, SiteFolder], server: Server) -> None:
    ada = folders["ada"]
    ada.file.write_text(ada.file.read_text().replace("epsilon = 50.0", "epsilon = 0.01"), encoding="utf-8")
    assert word(site_of(ada), server.plan) == "budget"


def test_no_model_but_those_installed_is_trained(folders: dict[str, SiteFolder], server: Server) -> None:
    site = site_of(folders["ada"])
    assert word(site, replace(server.plan, architecture="f" * 64)) == "refused"
    assert "model.factories" not in owners_log(folders["ada"])  # it names the file's own section
    assert "[model] factories" in owners_log(folders["ada"])


def test_a_plan_for_others_than_the_pinned_roster_is_refused(folders: dict[str, SiteFolder], server: Server) -> None:
    plan = server.plan
    eve = replace(plan, clients=("ada", "bob", "eve"))
    assert word(site_of(folders["ada"]), eve) == "refused"


def test_a_round_of_a_plan_that_nobody_approved_is_refused_and_charges_nothing(folders: dict[str, SiteFolder]) -> None:
    for folder in folders.values():
        rule(folder, 'rule = "none"')
    server, engine = sites.coordinator(folders)
    with pytest.raises(RoundFailed, match="refused: policy"):
        server.round(engine.exchange(1))
    assert not any(site_of(folder)._ledger.entries() for folder in folders.values())  # type: ignore[union-attr]


def test_a_restarted_site_goes_on_with_the_run(folders: dict[str, SiteFolder]) -> None:
    server, engine = sites.coordinator(folders)
    server.round(engine.exchange(1))
    again = {name: site_of(folder) for name, folder in folders.items()}
    assert all(site._pinned is not None and site._pinned.run == server.run for site in again.values())


def test_bytes_that_are_no_request_get_a_word(folders: dict[str, SiteFolder]) -> None:
    site = site_of(folders["ada"])
    for request in (b"", b"nonsense", encode(Propose("run-1", b"{}"))):
        reply = site.handle(request)
        assert kind(reply) == Refusal.KIND and decode(reply, Refusal).reason == "protocol"


def test_consents_are_collected_and_other_words_left_out(server: Server) -> None:
    said = {"ada": encode(Consent("accepted")), "bob": encode(Refusal("policy")), "cyd": b"\xff"}
    found = proposal.consents("run-1", server.plan, lambda requests: [(name, said[name]) for name in requests])
    assert found == {"ada": "accepted"}


def test_of_a_flood_of_proposals_the_oldest_go_and_nobody_elses(folders: dict[str, SiteFolder], server: Server) -> None:
    approvals = Approvals(folders["ada"].plans)
    plans = [replace(server.plan, rounds=rounds) for rounds in range(1, 15)]
    approvals.ask(plans[0])
    for plan in plans:
        approvals.ask(plan, "bob")
    assert [found.plan for found in approvals.waiting() if found.by == COORDINATOR] == [plans[0]]
    of_bob = {found.plan.rounds for found in approvals.waiting() if found.by == "bob"}
    assert of_bob == set(range(5, 15))


def test_an_approval_is_for_whoever_proposed(folders: dict[str, SiteFolder], server: Server) -> None:
    approvals, name = Approvals(folders["ada"].plans), server.plan.digest().hex()
    for by in (COORDINATOR, "bob", "cyd"):
        approvals.ask(server.plan, by)
    with pytest.raises(BadInput, match="proposed by bob, cyd and the coordinator: say whose with --by"):
        approvals.approve(name)
    assert approvals.approve(name, "bob") == Waiting(server.plan, "bob")
    assert [found.by for found in approvals.waiting()] == ["cyd", COORDINATOR]
    assert not approvals.take(server.plan, "run-1") and not approvals.take(server.plan, "run-1", "cyd")
    assert approvals.take(server.plan, "run-1", "bob") and not approvals.allows(server.plan, "run-2", "bob")


def test_what_an_owner_rejects_does_not_wait_again(folders: dict[str, SiteFolder], server: Server) -> None:
    ada = folders["ada"]
    rule(ada, 'rule = "none"')
    site, approvals, name = site_of(ada), Approvals(ada.plans), server.plan.digest().hex()
    assert word(site, server.plan) == "pending"
    assert approvals.reject(name) == Waiting(server.plan)
    assert word(site, server.plan) == "refused" and approvals.waiting() == []
    with pytest.raises(BadInput, match=r"no plan .* waits"):
        approvals.reject(name)
    approvals.approve(name)  # on second thoughts
    assert word(site, server.plan) == "accepted"


def test_approvals_refuse_other_names_and_altered_files(folders: dict[str, SiteFolder], server: Server) -> None:
    approvals = Approvals(folders["ada"].plans)
    for name in ("../../etc/passwd", "f" * 63, "F" * 64):
        with pytest.raises(BadInput, match="not the name of a plan"):
            approvals.approve(name)
    with pytest.raises(BadInput, match="those that do: none"):
        approvals.approve("f" * 64)
    approvals.ask(server.plan)
    path = folders["ada"].plans / "waiting" / f"{server.plan.digest().hex()}.json"
    path.write_bytes(replace(server.plan, rounds=1000).encoded())
    with pytest.raises(NotARun, match="another plan than its name says"):
        approvals.approve(server.plan.digest().hex())
    path.write_bytes(b"{}")
    with pytest.raises(NotARun, match="damaged"):
        approvals.waiting()


@pytest.mark.parametrize("lost", ["missing", "older"])
@pytest.mark.attack("a site that is started without what it has spent")
def test_a_site_does_not_start_without_what_it_has_spent(folders: dict[str, SiteFolder], lost: str) -> None:
    ada = folders["ada"]
    server, engine = sites.coordinator(folders)
    server.round(engine.exchange(1))
    (path,) = ada.ledgers.rglob("ada.sqlite")
    before = path.read_bytes()
    server.round(engine.exchange(2))
    path.unlink()
    if lost == "older":
        path.write_bytes(before)
    with pytest.raises(LedgerError, match="securefl site accept-ledger"):
        site_of(ada)
    assert path.exists() == (lost == "older")
    (found,) = (one for one in checks._budget(ada, ada.site_file()) if one.subject == "budget")
    assert found.level == "problem" and "accept-ledger" in found.text
    spent = ledger_head.accept(ada)
    assert spent == (1 if lost == "older" else 0)
    found_again = site_of(ada)._ledger
    assert found_again is not None and len(found_again.entries()) == spent


def test_a_site_that_was_killed_as_it_charged_starts_again(folders: dict[str, SiteFolder]) -> None:
    """Who only reads cannot set right what was half written; the site, which may, does so before it compares."""
    ada = folders["ada"]
    server, engine = sites.coordinator(folders)
    server.round(engine.exchange(1))
    (path,) = ada.ledgers.rglob("ada.sqlite")
    subprocess.run([sys.executable, "-c", INTERRUPTED, str(path)], check=False)
    assert path.with_name(path.name + "-journal").exists()
    found = site_of(ada)._ledger
    assert found is not None and len(found.entries()) == 1


class Restarting:
    """A site that is killed once, after it has joined an attempt and before its answer has left; the letter that it
    had comes again, to its next process.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder, self._site, self._struck = folder, site_of(folder), False

    def handle(self, request: bytes) -> bytes:
        reply = self._site.handle(request)
        if kind(request) == KeysRequest.KIND and not self._struck:
            self._struck, self._site = True, site_of(self._folder)
            return self._site.handle(request)
        return reply


def test_who_is_killed_as_it_joins_has_left_that_attempt_only(folders: dict[str, SiteFolder]) -> None:
    """Without it there are too few: the attempt ends, and the round is tried again with all of them."""
    restarting = {name: Restarting(folders[name]) for name in ("ada", "bob")}
    server, engine = sites.coordinator(folders, restarting)
    with pytest.raises(RoundFailed) as failed:
        server.round(engine.exchange(1))
    assert failed.value.lost == {"ada": "refused: spent", "bob": "refused: spent"}
    assert not any(_will_refuse_again(why) for why in failed.value.lost.values())
    assert set(server.round(engine.exchange(1)).contributors) == set(folders)


FORGED = """diagnosis
clients      ada, bob, cyd; weights all alike
simulated    no
\x1b[8m"""


@pytest.mark.attack("a job's name that writes other lines than its own to an owner's terminal")
def test_a_plan_whose_job_no_person_could_be_shown_is_refused(folders: dict[str, SiteFolder], server: Server) -> None:
    ada = folders["ada"]
    rule(ada, 'rule = "none"')
    site = site_of(ada)
    for name in (FORGED, "x" * 201, "\u202ediagnosis", "\r"):
        assert word(site, replace(server.plan, job=name)) == "refused"
    assert Approvals(ada.plans).waiting() == []
    assert all(line.startswith(("20", "    ")) for line in owners_log(ada).splitlines())
    assert "\x1b" not in owners_log(ada)


def test_what_a_plan_says_is_shown_on_lines_of_its_own(server: Server) -> None:
    console = Console(force_terminal=True, highlight=False, width=80)
    described = words.described(Waiting(replace(server.plan, job=FORGED), "bob"))
    with console.capture() as shown:
        labelled(console, {**described, "long": "x" * 100_000})
    lines = shown.get().splitlines()
    assert len(lines) == len(described) + 1 and "\x1b" not in shown.get()
    assert [line.split()[0] for line in lines].count("clients") == 1
    assert any(line.startswith("proposed by  bob") for line in lines) and len(lines[-1]) < 5000


@pytest.mark.attack("logs of refusals that others can read once they are rotated")
def test_every_file_of_the_owners_log_is_the_owners_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diaries, "_BYTES", 200)
    own = Diary(tmp_path / "site.log")
    for number in range(10):
        own.tell(f"refused {number}\n2026-01-01T00:00:00+00:00 accepted\x1b[2K")
        own.event("answered")
    files = list(tmp_path.iterdir())
    assert len(files) > 4 and {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    lines = "".join(file.read_text() for file in files if file.name.startswith(OWNER)).splitlines()
    assert "    2026-01-01T00:00:00+00:00 accepted\\x1b[2K" in lines
