"""Over whom a client helps to open sums, once it has helped to open one."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from protocols.aggregation.messages import (
    ConsistencyRequest,
    InputRequest,
    KeysRequest,
    SharesRequest,
    UnmaskRequest,
)
from protocols.base import Exchange, Messages, Replies
from protocols.wire import kind
from securefl import Client, Server, Store
from securefl.announcement import Announcement
from securefl.attacks.scene import Scene
from securefl.attacks.settings import setting
from securefl.attacks.shares import LIAR, DealsOffPolynomial
from securefl.attacks.updates import linear, odd_one_out
from securefl.errors import BadInput, Refused, RoundFailed
from securefl.policy import Policy, SameCohort
from securefl.sums import Sums
from tests.securefl.federation import NAMES, clients, direct, enrolled, server
from tests.securefl.test_plan import plan

ALL, FOUR = frozenset(NAMES), frozenset(NAMES[:4])
MODEL, OTHER = b"m" * 32, b"o" * 32


def sums(
    store: Store, rule: SameCohort = "round", round: int = 1, model: bytes = MODEL, run: str = "run", job: str = "job"
) -> Sums:
    return Sums(store, rule, Announcement(run, round, 1, plan(job=job), b"", b""), model)


def opened(rule: SameCohort = "round") -> Store:
    """A store that remembers a sum over all, in round 1 over ``MODEL``."""
    store = Store()
    sums(store, rule).opening(ALL)
    return store


def test_in_one_round_and_over_one_model_sums_are_over_the_same_clients() -> None:
    for later in ({}, {"model": OTHER}, {"round": 2}, {"round": 2, "run": "another"}):
        held = sums(opened(), **later)
        held.admit(ALL)
        held.opening(ALL)
        with pytest.raises(Refused, match="they differ by eve"):
            held.admit(FOUR)
        with pytest.raises(Refused, match="they differ by eve"):
            held.opening(FOUR)


def test_a_sum_over_more_clients_is_not_opened_but_may_still_shrink() -> None:
    store = Store()
    sums(store).opening(FOUR)
    sums(store).admit(ALL)
    with pytest.raises(Refused):
        sums(store).opening(ALL)


def test_the_next_round_is_over_whom_it_likes_unless_the_owner_demands_one_cohort() -> None:
    later = {"round": 2, "model": OTHER}
    sums(opened(), "round", **later).opening(FOUR)  # type: ignore[arg-type]
    for run in ("run", "another"):
        with pytest.raises(Refused, match="same_cohort"):
            sums(opened("round"), "plan", run=run, **later).admit(FOUR)  # type: ignore[arg-type]
    sums(opened(), "plan", job="another", **later).opening(FOUR)  # type: ignore[arg-type]


def test_an_owner_may_do_without() -> None:
    store = opened()
    sums(store, "never").admit(FOUR)
    sums(store, "never").opening(FOUR)
    sums(store, "round").admit(ALL)  # the earlier one still counts
    sums(opened("never"), "round").opening(FOUR)


def test_what_was_opened_outlives_the_process(tmp_path: Path) -> None:
    sums(Store(tmp_path / "store")).opening(ALL)
    with pytest.raises(Refused):
        sums(Store(tmp_path / "store")).admit(FOUR)


def test_an_unknown_rule_is_no_policy() -> None:
    with pytest.raises(BadInput, match="same_cohort"):
        Policy(same_cohort="sometimes")  # type: ignore[arg-type]


# ---- in attempts that fail


def one_sum_a_round(coordinator: Server, owners: list[Client]) -> tuple[Server, list[Client]]:
    for owner in owners:
        owner.policy = Policy(same_cohort="round")
    return coordinator, owners


def losing(owners: Collection[Client], request: int, lost: Collection[str]) -> Exchange:
    """Some are never asked one thing."""
    whole = direct(list(owners))

    def exchange(requests: Messages) -> Replies:
        asked = {name: text for name, text in requests.items() if not (kind(text) == request and name in lost)}
        return whole(asked)

    return exchange


def failed(coordinator: Server, exchange: Exchange) -> None:
    with pytest.raises(RoundFailed):
        coordinator.round(exchange)


def test_an_attempt_that_opened_nothing_may_be_tried_with_fewer_clients() -> None:
    coordinator, owners = one_sum_a_round(*enrolled())
    failed(coordinator, losing(owners, ConsistencyRequest.KIND, NAMES[:2]))
    assert coordinator.round(direct(owners), without=("eve",)).contributors == NAMES[:4]


def test_once_some_have_opened_a_sum_only_the_same_clients_may_try_again() -> None:
    """What it costs: two of five left between the last two exchanges, and one of them is not back."""
    coordinator, owners = one_sum_a_round(*enrolled())
    failed(coordinator, losing(owners, UnmaskRequest.KIND, NAMES[3:]))
    with pytest.raises(RoundFailed) as caught:
        coordinator.round(direct(owners), without=("eve",))
    assert [name for name, why in caught.value.lost.items() if why == "refused: policy"] == list(NAMES[:3])
    assert coordinator.round(direct(owners)).contributors == NAMES


@pytest.mark.parametrize(("rule", "refused"), [("never", False), ("round", True)])
def test_a_bad_dealer_can_end_a_run_whose_owners_open_one_sum_a_round(rule: SameCohort, refused: bool) -> None:
    """What it costs more: the others have opened their shares when it shows that those of one belong to no secret."""
    secagg = setting("secagg")
    scene = Scene(
        secagg,
        linear,
        odd_one_out(),
        mechanism=secagg.mechanism(),
        learning_rate=0.5,
        policy=Policy(same_cohort=rule),
        dishonest={LIAR: DealsOffPolynomial},
    )
    with pytest.raises(RoundFailed, match="blamed: "):
        scene.round()
    if refused:
        with pytest.raises(RoundFailed, match="refused: policy"):
            scene.round(without=(LIAR,))
    else:
        assert len(scene.round(without=(LIAR,)).outcome.contributors) == 4


@pytest.mark.parametrize(
    ("lost_at", "last"),
    [
        (KeysRequest.KIND, SharesRequest.KIND),  # before shares are dealt
        (SharesRequest.KIND, InputRequest.KIND),  # before the update is asked for, and charged
        (InputRequest.KIND, ConsistencyRequest.KIND),
    ],
)
def test_a_sum_that_would_be_refused_is_refused_as_soon_as_it_shows(lost_at: int, last: int) -> None:
    coordinator, owners = one_sum_a_round(*enrolled())
    failed(coordinator, losing(owners, UnmaskRequest.KIND, NAMES[3:]))
    asked: list[int] = []

    def exchange(requests: Messages) -> Replies:
        asked.extend(kind(text) for text in requests.values())
        return losing(owners, lost_at, ["eve"])(requests)

    with pytest.raises(RoundFailed) as caught:
        coordinator.round(exchange)
    assert asked[-1] == last
    assert [name for name, why in caught.value.lost.items() if why == "refused: policy"] == list(NAMES[:3])


def test_the_model_is_told_by_what_a_client_has_not_by_what_it_is_called() -> None:
    """The same parameters in another run of the same server: the announcement differs, the sum would not."""
    owners = clients()
    for owner in owners:
        owner.policy = Policy(same_cohort="round")
    for run, without in (("0123", ()), ("4567", ("eve",))):
        coordinator = server(run=run)
        roster = {owner.name: owner.public_key for owner in owners}
        accepted = coordinator.enrol(roster)
        for owner in owners:
            owner.pin(roster, accepted)
        if not without:
            coordinator.round(direct(owners))
            continue
        with pytest.raises(RoundFailed) as caught:
            coordinator.round(direct(owners), without=without)
        assert set(caught.value.lost.values()) == {"refused: policy"}
    assert "subtracted" in owners[0].errors[-1]
