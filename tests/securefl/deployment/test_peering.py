"""Sites that act in turn: who consents to what, that no server is answered there, and a run from its proposal to its
report.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from protocols.aggregation.messages import KeysRequest, Refusal, UnmaskRequest
from protocols.wire import decode, encode, kind
from securefl import job as jobs
from securefl.announcement import Announcement, public_tag
from securefl.closing import EndorseRequest, StateRequest
from securefl.deployment.approvals import Approvals
from securefl.deployment.diary import Diary
from securefl.deployment.in_turn_folder import InTurnFolder
from securefl.deployment.peering import Peering
from securefl.deployment.proposing import propose
from securefl.deployment.site import Site
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.correspondence import Deadlines
from securefl.errors import BadInput, BadJob, NotARun
from securefl.peers.messages import Fetched, FetchRequest, TurnReply, TurnRequest
from securefl.peers.proposal import ProposeInTurn
from securefl.peers.turns import acting
from securefl.plan import Plan
from securefl.proposal import Consent, Propose
from securefl.run import Run
from securefl.verification import verified
from tests.securefl.peers import neighbours
from tests.securefl.peers.neighbours import NAMES, Neighbours, owners_log

DEADLINES = Deadlines(exchange=3.0, training=20.0)


@contextmanager
def living(folders: dict[str, SiteFolder]) -> Iterator[Neighbours]:
    here = Neighbours(folders)
    try:
        yield here
    finally:
        here.close()


def wait(done: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_run_is_proposed_taken_part_in_and_ended_without_a_server(tmp_path: Path) -> None:
    folders = neighbours.joined(tmp_path, {"dan": "none"})
    with living(folders):
        made, plan = propose(folders["bob"], neighbours.job(tmp_path), DEADLINES)
        wait(lambda: "waits for approval" in (owners_log(folders["dan"])))
        Approvals(folders["dan"].plans).approve(plan.digest().hex())
        runs = {name: InTurnFolder(folder.runs / made.run) for name, folder in folders.items()}
        wait(lambda: all(run.ended for run in runs.values()), 240)
        models = {(run.path / "model.safetensors").read_bytes() for run in runs.values()}
    assert len(models) == 1
    ended = [run for run in runs.values() if (run.path / "privacy_report.json").exists()]
    (report,) = ended
    assert report.path == runs["bob"].path  # whose turn round 2 was
    verdict = verified(report.path)
    assert verdict.problems == () and set(verdict.keys) == set(NAMES)
    journals = {(run.path / "history.jsonl").read_bytes() for run in runs.values()}
    assert len(journals) == 1
    with pytest.raises(BadInput, match="go on with it by themselves"):
        Run.open(report.path)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, SiteFolder]:
    return neighbours.joined(tmp_path)


def peering(folder: SiteFolder) -> tuple[Site, Peering]:
    diary = Diary(folder.log)
    site = Site(folder, diary)
    return site, Peering(folder, site, diary, 1.0)


def proposed(folder: SiteFolder, tmp_path: Path) -> tuple[ProposeInTurn, Plan]:
    made, plan = propose(folder, neighbours.job(tmp_path), DEADLINES)
    return ProposeInTurn(made.run, plan.encoded(), made.job_text(), DEADLINES), plan


def word(answering: Peering, asked: ProposeInTurn, sender: str = "ada") -> str:
    reply = answering._answer(sender, encode(asked))
    return "no answer" if kind(reply) == Refusal.KIND else decode(reply, Consent).word


def test_what_is_proposed_names_nothing_of_the_proposers_machine(
    folders: dict[str, SiteFolder], tmp_path: Path
) -> None:
    asked, _ = proposed(folders["ada"], tmp_path)
    assert str(tmp_path) not in asked.job


@pytest.mark.attack("a server that speaks in a run without one")
def test_no_server_is_answered_in_a_run_without_one(folders: dict[str, SiteFolder], tmp_path: Path) -> None:
    asked, plan = proposed(folders["ada"], tmp_path)
    site, own = peering(folders["bob"])
    model = bytes(4 * plan.dimension)
    keys = encode(KeysRequest(Announcement(asked.run, 1, 1, plan, model, public_tag(model)).encoded()))
    other = encode(KeysRequest(Announcement("ab" * 16, 1, 1, plan, model, public_tag(model)).encoded()))
    assert kind(site.handle(other)) != Refusal.KIND  # its owner's rule allows the plan, to a server too
    assert word(own, asked) == "accepted"
    for request in (keys, encode(Propose(asked.run, plan.encoded()))):
        assert kind(site.handle(request)) == Refusal.KIND
    assert "has no server" in owners_log(folders["bob"])
    assert kind(site.handle_in_turn(keys)) != Refusal.KIND  # whoever gave the turn may ask


def test_a_run_with_a_server_cannot_become_one_without(folders: dict[str, SiteFolder], tmp_path: Path) -> None:
    asked, plan = proposed(folders["ada"], tmp_path)
    site, own = peering(folders["bob"])
    model = bytes(4 * plan.dimension)
    site.handle(encode(KeysRequest(Announcement(asked.run, 1, 1, plan, model, public_tag(model)).encoded())))
    assert word(own, asked) == "refused"


@pytest.mark.attack("a proposal that is another than it says")
def test_a_proposal_has_to_hold_together(folders: dict[str, SiteFolder], tmp_path: Path) -> None:
    asked, plan = proposed(folders["ada"], tmp_path)
    _, own = peering(folders["bob"])
    alone = replace(plan, colluders=0)
    for bad in (
        replace(asked, plan=replace(plan, rounds=3).encoded()),
        replace(asked, job=asked.job.replace("rounds = 2", "rounds = 3")),
        replace(asked, job="[job"),
        replace(asked, plan=b"{}"),
        replace(asked, run="../../elsewhere"),
        replace(asked, plan=alone.encoded(), job=asked.job.replace("colluders = 1", "colluders = 0")),
        replace(asked, deadlines=Deadlines(exchange=float("inf"))),
    ):
        assert word(own, bad) == "no answer"
    assert word(own, asked, "mallory") == "no answer"
    assert not list(folders["bob"].runs.iterdir())
    assert word(own, asked) == "accepted"
    assert word(own, asked) == "accepted"
    another = replace(plan, rounds=3)
    changed = replace(asked, plan=another.encoded(), job=asked.job.replace("rounds = 2", "rounds = 3"))
    assert word(own, changed) == "no answer"
    own.close()


def test_who_takes_part_in_nothing_says_so(folders: dict[str, SiteFolder]) -> None:
    _, own = peering(folders["bob"])
    assert kind(own._answer("ada", encode(Propose("run", b"")))) == Refusal.KIND


@pytest.mark.parametrize(
    ("change", "renamed", "match"),
    [
        (("colluders = 1", "colluders = 0"), ("", ""), "whoever acts as the server is one of the clients"),
        (('"dan"]', '"eve"]'), ("dan = 40", "eve = 40"), "not on this site's roster"),
    ],
)
def test_a_job_that_cannot_be_run_without_a_server_is_not_proposed(
    folders: dict[str, SiteFolder], tmp_path: Path, change: tuple[str, str], renamed: tuple[str, str], match: str
) -> None:
    text = neighbours.JOB.format(rounds=2, colluders=1).replace(*change).replace(*renamed)
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises((BadInput, BadJob), match=match):
        propose(folders["ada"], jobs.load(tmp_path / "job.toml"), DEADLINES)
    assert not list(folders["ada"].runs.iterdir())


def test_a_damaged_plan_is_said_to_be(folders: dict[str, SiteFolder], tmp_path: Path) -> None:
    made, _ = propose(folders["ada"], neighbours.job(tmp_path), DEADLINES)
    (made.path / "plan.json").write_bytes(b"{")
    with pytest.raises(NotARun, match="have the run proposed again"):
        made.plan()


def keys(run: str, plan: Plan, attempt: int = 1) -> bytes:
    """The first request of an attempt at round 1."""
    model = bytes(4 * plan.dimension)
    return encode(KeysRequest(Announcement(run, 1, attempt, plan, model, public_tag(model)).encoded()))


def another(asked: ProposeInTurn, plan: Plan, number: int) -> tuple[ProposeInTurn, Plan]:
    """A run of another job."""
    other = replace(plan, job=f"other-{number}")
    text = asked.job.replace('"neighbours"', f'"other-{number}"', 1)
    return replace(asked, run=f"{number:032x}", plan=other.encoded(), job=text), other


@pytest.mark.attack("a member's proposal that ends the session of the run that goes on")
def test_a_proposal_of_a_member_changes_nothing_in_a_run_with_a_server(
    folders: dict[str, SiteFolder], tmp_path: Path
) -> None:
    asked, plan = proposed(folders["ada"], tmp_path)
    site, own = peering(folders["bob"])
    served = replace(plan, job="served")
    assert kind(site.handle(keys("ab" * 16, served))) != Refusal.KIND
    client = site._client
    assert word(own, asked) == "accepted"
    assert site._client is client and client is not None and client._attempt is not None
    assert site._pinned is not None and site._pinned.run == "ab" * 16


@pytest.mark.attack("an owner's approval for one run, used up by another's")
def test_an_approval_for_the_coordinator_is_not_for_a_member(folders: dict[str, SiteFolder], tmp_path: Path) -> None:
    asked, plan = proposed(folders["ada"], tmp_path)
    bob = folders["bob"]
    bob.file.write_text(bob.file.read_text().replace('"policy"', '"none"'), encoding="utf-8")
    site, own = peering(bob)

    def served(run: str) -> str:
        return decode(site.handle(encode(Propose(run, plan.encoded()))), Consent).word

    assert served("cd" * 16) == "pending" and word(own, asked) == "pending"
    approvals, name = Approvals(bob.plans), plan.digest().hex()
    assert {(found.name, found.by) for found in approvals.waiting()} == {(name, "the coordinator"), (name, "ada")}
    approvals.approve(name, "the coordinator")
    assert word(own, asked) == "pending" and kind(site.handle_in_turn(keys(asked.run, plan))) == Refusal.KIND
    assert word(own, replace(asked, run="ef" * 16), "cyd") == "pending"
    assert served("cd" * 16) == "accepted"
    assert kind(site.handle(keys("cd" * 16, plan))) != Refusal.KIND


@pytest.mark.attack("a server that ends a run without one")
def test_no_server_ends_a_run_without_one(folders: dict[str, SiteFolder], tmp_path: Path) -> None:
    """Nor does who has the turn in one run get at another."""
    asked, plan = proposed(folders["ada"], tmp_path)
    site, own = peering(folders["bob"])
    assert word(own, asked) == "accepted"
    assert kind(site.handle_in_turn(keys(asked.run, plan))) != Refusal.KIND
    assert kind(site.handle(keys("cd" * 16, plan))) != Refusal.KIND  # the very same plan, with a server
    for request in (StateRequest(asked.run), EndorseRequest(asked.run, b"{}")):
        assert kind(site.handle(encode(request))) == Refusal.KIND
    assert owners_log(folders["bob"]).count("has no server") == 2
    for request in (StateRequest("cd" * 16), EndorseRequest("cd" * 16, b"{}")):
        assert kind(site.handle_in_turn(encode(request))) == Refusal.KIND
    assert kind(site.handle_in_turn(encode(UnmaskRequest(())))) == Refusal.KIND  # of the session of the other run
    assert kind(site.handle_in_turn(keys(asked.run, plan, 2))) != Refusal.KIND  # it goes on
    own.close()


def test_a_run_that_goes_on_is_not_given_up_for_a_proposal(folders: dict[str, SiteFolder], tmp_path: Path) -> None:
    asked, plan = proposed(folders["ada"], tmp_path)
    _, own = peering(folders["bob"])

    def current() -> str:
        assert own._current is not None
        return own._current[0].run

    def turn(run: str) -> bytes:
        assert own._current is not None
        return own._answer(acting(plan.clients, 1, 0), encode(TurnRequest(run, 1, 0)))

    second, _ = another(asked, plan, 2)
    assert word(own, asked) == "accepted" and current() == asked.run
    assert word(own, second, "cyd") == "accepted" and current() == second.run  # none of them has begun
    assert decode(turn(asked.run), TurnReply).round == 0 and current() == asked.run
    own._current[1].peer.memory.note(turn=0)  # type: ignore[index]  # it has begun
    third, _ = another(asked, plan, 3)
    assert word(own, third, "cyd") == "accepted" and current() == asked.run
    assert kind(turn(third.run)) == Refusal.KIND and current() == asked.run
    own._answered -= 25 * 3600  # nobody asked anything for a day
    assert kind(turn(third.run)) != Refusal.KIND and current() == third.run
    own.close()


@pytest.mark.attack("a member that proposes runs without end")
def test_of_the_runs_that_a_member_proposes_only_the_newest_are_kept(
    folders: dict[str, SiteFolder], tmp_path: Path
) -> None:
    asked, plan = proposed(folders["ada"], tmp_path)
    site, own = peering(folders["bob"])
    assert word(own, asked, "cyd") == "accepted"
    for number in range(12):
        assert word(own, another(asked, plan, number)[0]) == "accepted"
    kept = {path.name for path in folders["bob"].runs.iterdir()}
    assert kept == {asked.run, *(f"{number:032x}" for number in range(2, 12))} == set(site._in_turn)
    own.close()


def test_a_run_that_is_over_answers_who_comes_later(tmp_path: Path) -> None:
    """After a restart, too, when the site takes part in another or in none."""
    folders = neighbours.joined(tmp_path)
    with living(folders):
        made, _ = propose(folders["bob"], neighbours.job(tmp_path, rounds=1), DEADLINES)
        runs = {name: InTurnFolder(folder.runs / made.run) for name, folder in folders.items()}
        wait(lambda: all(run.ended for run in runs.values()), 240)
    _, own = peering(folders["cyd"])
    asked = encode(FetchRequest(made.run, 1))
    found = decode(own._answer("dan", asked), Fetched).settled
    assert found is not None and found.passed.model
    assert decode(own._answer("dan", encode(TurnRequest(made.run, 0, 0))), TurnReply).round == 1
    assert kind(own._answer("mallory", asked)) == Refusal.KIND
    assert kind(own._answer("dan", encode(FetchRequest("../" * 9, 1)))) == Refusal.KIND
    own.close()


def test_a_folder_that_cannot_be_read_is_in_no_other_runs_way(folders: dict[str, SiteFolder], tmp_path: Path) -> None:
    bad = folders["ada"].runs / ("00" * 16)
    bad.mkdir()
    (bad / "engine.json").write_bytes(b"{")
    worse = propose(folders["ada"], neighbours.job(tmp_path), DEADLINES)[0]
    (worse.path / "plan.json").write_bytes(b"{")
    worst = propose(folders["ada"], neighbours.job(tmp_path), DEADLINES)[0]
    (worst.path / "job.toml").write_bytes(b"[")
    made, _ = propose(folders["ada"], neighbours.job(tmp_path), DEADLINES)
    os.utime(made.path / "plan.json", (1, 1))  # older than those
    _, own = peering(folders["ada"])
    own._over.set()  # it waits for nothing
    for _ in range(2):
        own._go_on()
        own._propose()
    assert own._current is not None and own._current[0] == made
    log = owners_log(folders["ada"])
    assert [log.count(one.name) for one in (bad, worse.path)] == [1, 1] and f"run {worst.run} is left alone" in log
    own.close()
