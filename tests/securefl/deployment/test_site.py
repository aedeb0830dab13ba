"""A site's consent: which plans it takes part in, by rule, by hash or by hand, and that nothing else trains there."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from protocols.aggregation.messages import Refusal
from protocols.wire import decode, encode, kind
from securefl import proposal
from securefl.deployment.approvals import Approvals
from securefl.deployment.diary import OWNER, Diary
from securefl.deployment.site import Site
from securefl.deployment.site_folder import SiteFolder
from securefl.errors import BadInput, NotARun, RoundFailed
from securefl.plan import Plan
from securefl.proposal import Consent, Propose
from securefl.server import Server
from tests.securefl.deployment import sites


def site_of(folder: SiteFolder) -> Site:
    return Site(folder, Diary(folder.log))


def word(site: Site, plan: Plan, run: str = "run-1") -> str:
    return decode(site.handle(encode(Propose(run, plan.encoded()))), Consent).word


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
    assert word(site, server.plan) == "pending"
    approvals = Approvals(ada.plans)
    assert approvals.waiting() == {name: server.plan}
    assert f"securefl site approve {ada.path} {name}" in owners_log(ada)
    assert approvals.approve(name) == server.plan
    assert word(site, server.plan, "run-1") == "accepted"
    assert word(site, server.plan, "run-1") == "accepted"
    assert word(site, server.plan, "run-2") == "pending"  # the approval is spent


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
    assert Approvals(ada.plans).waiting() == {}
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


def test_a_flood_of_proposals_is_bounded(folders: dict[str, SiteFolder], server: Server) -> None:
    rule(folders["ada"], 'rule = "none"')
    approvals = Approvals(folders["ada"].plans)
    for rounds in range(1, 51):
        approvals.ask(replace(server.plan, rounds=rounds))
    with pytest.raises(BadInput, match="50 plans wait"):
        approvals.ask(replace(server.plan, rounds=51))
    assert word(site_of(folders["ada"]), server.plan) == "pending"  # it is one of them
    assert word(site_of(folders["ada"]), replace(server.plan, rounds=51)) == "refused"


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
