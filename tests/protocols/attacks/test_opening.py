"""Attacks on what a client opens: both shares of one client would undo all its masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec
import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Envelope, Opened, SharePair, UnmaskRequest
from protocols.aggregation.session import Step
from protocols.aggregation.states import Consenting, Masked, Ready, Spent, State
from protocols.aggregation.verify import read
from protocols.base import ClientId
from protocols.errors import Inconsistent, MalformedMessage, SessionSpent
from protocols.graph import CohortRules
from protocols.wire import Message, decode, encode, kind
from tests.protocols.attacks.adversary import VICTIM, Adversary, cohort_of, without
from tests.protocols.cohort import Cohort, names

EVERYBODY, OTHERS = names(5), without(VICTIM)


# ---- both shares of one client


class AnswersTwice(AggregationClient):
    """Is not spent by opening its shares: the next survivor set is signed and answered too."""

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[State, Envelope]:
        _, reply = super()._unmask(state, request)
        return Masked(state.cohort, state.shared, state.members, state.held), reply


def ask_once_as_alive_and_once_as_dropped(server: Adversary) -> None:
    server.up_to_inputs()
    for survivors in (EVERYBODY, OTHERS):
        server.sign(survivors)
        server.open(survivors)


@pytest.mark.attack("both shares of one client, one after the other")
def test_whoever_is_asked_for_both_shares_of_one_client_opens_one() -> None:
    weak, real = Adversary(cohort_of(AnswersTwice)), Adversary(cohort_of(AggregationClient))
    ask_once_as_alive_and_once_as_dropped(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(SessionSpent):
        ask_once_as_alive_and_once_as_dropped(real)
    assert real.rebuilt(real.seeds[VICTIM]) and not real.keys[VICTIM] and not real.reads(VICTIM)


class OpensBoth(AggregationClient):
    """Opens all that it holds and leaves it to the server which half it needs."""

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[State, Envelope]:
        both = [msgspec.msgpack.encode(pair) for _, pair in sorted(state.held.items())]
        return Spent(), self._envelope(Step.UNMASK, state.members, [msgspec.msgpack.encode(Opened(tuple(both)))])


def keep_all_that_is_opened(server: Adversary) -> None:
    server.up_to_inputs()
    server.sign(EVERYBODY)
    server.open(EVERYBODY)
    for holder, reply in server.heard[Step.UNMASK].items():
        for dealer, opened in zip(EVERYBODY, read(reply.parts, Opened).shares, strict=True):
            if len(opened) > 33:
                server.keep(holder, dealer, msgspec.msgpack.decode(opened, type=SharePair))


@pytest.mark.attack("both shares of one client, in one answer")
def test_one_answer_holds_one_share_of_each_client() -> None:
    weak, real = Adversary(cohort_of(OpensBoth)), Adversary(cohort_of(AggregationClient))
    keep_all_that_is_opened(weak)
    assert weak.reads(VICTIM)
    keep_all_that_is_opened(real)
    assert real.rebuilt(real.seeds[VICTIM]) and not real.keys[VICTIM] and not real.reads(VICTIM)
    assert real.reads(*EVERYBODY)


# ---- requests that name whom to open


class NamedUnmask(Message, frozen=True):
    """An unmask request as many protocols have it: whose seeds and whose keys to open, by name."""

    KIND: ClassVar[int] = UnmaskRequest.KIND
    alive: tuple[ClientId, ...]
    dropped: tuple[ClientId, ...]


class OpensByName(AggregationClient):
    """Opens whom the request names, after three checks. Its own seed it opens in any case: it knows that it lives."""

    def handle(self, request: bytes) -> bytes:
        if kind(request) != NamedUnmask.KIND:
            return super().handle(request)
        state, self._state = self._state, Spent()
        assert isinstance(state, Masked)
        named = decode(request, NamedUnmask)
        self._check_named_once(named)
        self._check_self(named)
        self._check_known(named, state)
        if len(named.alive) < state.cohort.graph.threshold:
            raise Inconsistent("too few are alive")
        alive = sorted({self._name, *named.alive}.intersection(state.held))
        shares = [state.held[name].seed for name in alive]
        shares += [state.held[name].key for name in named.dropped if name in state.held]
        return encode(self._envelope(Step.UNMASK, state.members, [msgspec.msgpack.encode(Opened(tuple(shares)))]))

    def _check_named_once(self, named: NamedUnmask) -> None:
        if len({*named.alive, *named.dropped}) < len(named.alive) + len(named.dropped):
            raise Inconsistent("a client is named twice")

    def _check_self(self, named: NamedUnmask) -> None:
        if self._name in named.dropped:
            raise Inconsistent("I have not dropped")

    def _check_known(self, named: NamedUnmask, state: Masked) -> None:
        if not {*named.alive, *named.dropped} <= state.held.keys():
            raise Inconsistent("a stranger is named")


class TakesDuplicates(OpensByName):
    def _check_named_once(self, named: NamedUnmask) -> None:
        pass


class OpensItself(OpensByName):
    def _check_self(self, named: NamedUnmask) -> None:
        pass


class CountsStrangers(OpensByName):
    def _check_known(self, named: NamedUnmask, state: Masked) -> None:
        pass


def name_whom_to_open(server: Adversary, me: ClientId, alive: Sequence[ClientId], dropped: Sequence[ClientId]) -> None:
    opened = read(server.ask(me, NamedUnmask(tuple(alive), tuple(dropped))).parts, Opened).shares
    living = sorted({me, *alive}.intersection(EVERYBODY))
    point = server.terms.roster.points[me]
    for name, share in zip(living, opened[: len(living)], strict=True):
        server.seeds[name][point] = share
    for name, share in zip(dropped, opened[len(living) :], strict=True):
        server.keys[name][point] = share


def the_victim_is_alive_and_dropped(server: Adversary) -> None:
    for me in OTHERS:
        name_whom_to_open(server, me, EVERYBODY, [VICTIM])


def the_victim_counts_for_both_halves(server: Adversary) -> None:
    """With t = 3 of 5, two others for each half lack one share each: the victim's own two."""
    for me in ("c0", "c2"):
        name_whom_to_open(server, me, EVERYBODY, [])
    for me in ("c3", "c4", VICTIM):
        name_whom_to_open(server, me, OTHERS, [VICTIM])


def strangers_make_up_the_numbers(server: Adversary) -> None:
    """Everybody but the victim has dropped, each client is told; three strangers are said to be left."""
    for me in EVERYBODY:
        left = sorted({me, VICTIM})
        name_whom_to_open(server, me, [*left, "s1", "s2", "s3"], [name for name in EVERYBODY if name not in left])


@pytest.mark.parametrize(
    ("weak_client", "attack", "threshold"),
    [
        pytest.param(
            TakesDuplicates,
            the_victim_is_alive_and_dropped,
            None,
            id="duplicate",
            marks=pytest.mark.attack("a client named twice in the unmask request"),
        ),
        pytest.param(
            OpensItself,
            the_victim_counts_for_both_halves,
            3,
            id="own",
            marks=pytest.mark.attack("a client's own name in its unmask request"),
        ),
        pytest.param(
            CountsStrangers,
            strangers_make_up_the_numbers,
            None,
            id="unknown",
            marks=pytest.mark.attack("unknown names in the unmask request"),
        ),
    ],
)
def test_no_request_names_whom_to_open(
    weak_client: type[OpensByName], attack: Callable[[Adversary], None], threshold: int | None
) -> None:
    """Each check left out alone is the end of a client; the real one is told no names."""
    for client, refusal in ((weak_client, None), (OpensByName, Inconsistent), (AggregationClient, MalformedMessage)):
        server = Adversary(cohort_of(client, rules=CohortRules(threshold=threshold)))
        server.up_to_inputs()
        if refusal is None:
            attack(server)
        else:
            with pytest.raises(refusal):
                attack(server)
        assert server.reads(VICTIM) == (refusal is None)


# ---- sessions that outlive a restart


def resuming() -> type[AggregationClient]:
    """A client with a disk of its own making."""
    disk: dict[ClientId, State] = {}

    class Resumes(AggregationClient):
        """Keeps its session once the input is out, so that a crash does not cost the round."""

        def handle(self, request: bytes) -> bytes:
            if isinstance(self._state, Ready):
                self._state = disk.get(self._name, self._state)
            reply = super().handle(request)
            if isinstance(self._state, Masked):
                disk[self._name] = self._state
            return reply

    return Resumes


def restart(cohort: Cohort, name: ClientId) -> None:
    """The process ends and starts again, with what a client is configured with."""
    old = cohort.clients[name]
    cohort.clients[name] = type(old)(name, old._identity, old._terms, old._encoding, old._contribution)


def restart_between_two_survivor_sets(server: Adversary) -> None:
    server.up_to_inputs()
    for survivors in (EVERYBODY, OTHERS):
        server.sign(survivors)
        server.open(survivors)
        for name in OTHERS:
            restart(server.cohort, name)


@pytest.mark.attack("a client that restarts in the middle of a session")
def test_a_restarted_client_has_left_its_session() -> None:
    weak, real = Adversary(cohort_of(resuming())), Adversary(cohort_of(AggregationClient))
    restart_between_two_survivor_sets(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(SessionSpent, match="after Ready"):
        restart_between_two_survivor_sets(real)
    assert real.rebuilt(real.seeds[VICTIM]) and not real.reads(VICTIM)
