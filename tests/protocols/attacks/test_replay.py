"""Attacks with what was said elsewhere: in another round, attempt or run, or once already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Advertised, Envelope
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.states import Advertising, Contribution, State
from protocols.aggregation.summing import Inputs
from protocols.base import ClientId, Messages, Replies, drive
from protocols.encoding import Encoding
from protocols.errors import Inconsistent
from protocols.primitives import AgreementKey, Identity, derive
from protocols.wire import decode
from tests.protocols.attacks.adversary import VICTIM, Adversary, cohort_of, grid_updates, without
from tests.protocols.attacks.puppets import Puppet, surround
from tests.protocols.attacks.weak import SealsLoosely, TakesKeyList
from tests.protocols.cohort import Cohort, Wire, clean_run, identity, make, names

OTHERS = without(VICTIM)


def in_context(client: type[AggregationClient], **changes: object) -> type[AggregationClient]:
    """The same implementation in a session of another run or round."""

    class Elsewhere(client):  # type: ignore[misc,valid-type]
        def __init__(
            self, name: ClientId, own: Identity, terms: Terms, encoding: Encoding, contribution: Contribution
        ) -> None:
            super().__init__(name, own, elsewhere(terms, **changes), encoding, contribution)

    return Elsewhere


def elsewhere(terms: Terms, **changes: object) -> Terms:
    return replace(terms, context=msgspec.structs.replace(terms.context, **changes))


# ---- keys


class TakesOldKeys(TakesKeyList):
    """Takes any keys that their owner ever signed."""

    def _sender(self, listed: Envelope) -> ClientId:
        return listed.signed.authenticate(self._terms.roster).sender


def show_the_keys_of_round_1(server: Adversary, client: type[AggregationClient]) -> None:
    """What the others kept of round 1 was seized since. In round 2 the server speaks for them with their own words."""
    cohort = cohort_of(in_context(client, round=1))
    seized = Adversary(cohort, elsewhere(server.terms, round=1), corrupted=OTHERS)
    seized.up_to_inputs()
    puppets = [Puppet(name, identity(name), seized.known[name], seized.known_share_keys[name]) for name in OTHERS]
    surround(server, puppets, seized.heard[Step.KEYS])


def in_round_2(client: type[AggregationClient]) -> Adversary:
    cohort = cohort_of(in_context(client, round=2))
    return Adversary(cohort, elsewhere(cohort.terms, round=2))


@pytest.mark.attack("keys of another round")
def test_keys_that_were_signed_for_another_round_are_refused() -> None:
    weak, real = in_round_2(TakesOldKeys), in_round_2(AggregationClient)
    show_the_keys_of_round_1(weak, TakesOldKeys)
    assert weak.reads(VICTIM)
    with pytest.raises(Inconsistent, match="another session"):
        show_the_keys_of_round_1(real, AggregationClient)
    assert real.cohort.asked_for_update == []


# ---- shares


class KeepsShareKey(SealsLoosely):
    """Has one key for shares for good, and binds what it seals to the two clients only."""

    def _advertise(self) -> tuple[State, Envelope]:
        state, _ = super()._advertise()
        assert isinstance(state, Advertising)
        share = AgreementKey(hashlib.sha256(self._name.encode()).digest())
        body = Advertised(state.mask.public, share.public, b"")
        own = self._envelope(Step.KEYS, b"", [msgspec.msgpack.encode(body)])
        return Advertising(state.mask, share, own), own

    def _sealing_key(self, secret: bytes, sender: ClientId, receiver: ClientId) -> bytes:
        return derive(secret, "share", sender.encode(), receiver.encode())


def relay_the_victims_old_shares(first: Adversary, second: Adversary) -> None:
    """In attempt 1 the victim survives; in attempt 2 it "drops", and what is opened are its secrets of attempt 1."""
    first.up_to_inputs()
    first.sign(names(5))
    first.open(names(5))
    second.advertise_keys()
    second.share_keys()
    second.heard[Step.SHARES][VICTIM] = first.heard[Step.SHARES][VICTIM]
    second.mask_input(OTHERS)
    second.sign(OTHERS)
    second.open(OTHERS)
    first.keys[VICTIM] = second.keys[VICTIM]


@pytest.mark.attack("shares of another attempt")
def test_shares_that_were_dealt_in_another_attempt_are_refused() -> None:
    weak = [Adversary(cohort_of(KeepsShareKey, attempt=attempt)) for attempt in (1, 2)]
    relay_the_victims_old_shares(*weak)
    assert weak[0].reads(VICTIM)
    real = [Adversary(cohort_of(AggregationClient, attempt=attempt)) for attempt in (1, 2)]
    with pytest.raises(Inconsistent, match="another session"):
        relay_the_victims_old_shares(*real)
    assert not real[0].reads(VICTIM)


# ---- inputs


def plain_run(client: type[AggregationClient], run: str, seed: int) -> Cohort:
    """One run among several of the same clients, without masks: what a replay must not even do there."""
    types = dict.fromkeys(names(5), in_context(client, run=run))
    cohort = make("plain", inputs=grid_updates(5, seed), types=types)
    return replace(cohort, terms=elsewhere(cohort.terms, run=run))


def replay_an_old_input(old: Cohort, new: Cohort) -> Wire:
    """A wire that delivers the victim's input of the old run in the new one."""
    before = clean_run(old).replies
    return Wire(
        new.clients,
        on_reply=lambda step, name, data: before[step, name] if (step, name) == (Step.INPUT, VICTIM) else data,
    )


@pytest.mark.attack("an input of another run")
def test_an_input_of_another_run_is_no_part_of_the_sum() -> None:
    """The weak sessions forget the run that they belong to."""
    old, new = plain_run(AggregationClient, "", 1), plain_run(AggregationClient, "", 2)
    spoiled = new.run(replay_an_old_input(old, new))
    assert spoiled.contributors == names(5) and not new.is_right(spoiled)
    assert np.array_equal(new.decoded(spoiled), new.truth(OTHERS) + old.inputs[VICTIM])
    old, new = plain_run(AggregationClient, "January", 1), plain_run(AggregationClient, "February", 2)
    aggregate = new.run(replay_an_old_input(old, new))
    assert aggregate.contributors == OTHERS and new.is_right(aggregate)
    assert "another session" in aggregate.faults[VICTIM]


class AddsEveryCopy(AggregationServer):
    """Adds up whatever verifies, as often as it comes."""

    def advance(self, replies: Replies) -> Messages:
        if not isinstance(self._stage, Inputs):
            return super().advance(replies)
        for sender, data in replies:
            self._stage.fold(sender, decode(data, Envelope))
        return super().advance(())


class Echoes(Wire):
    """Delivers the victim's messages twice."""

    def __call__(self, requests: Messages) -> Iterator[tuple[ClientId, bytes]]:
        for name, data in super().__call__(requests):
            yield from [(name, data)] * (2 if name == VICTIM else 1)


@pytest.mark.attack("an input delivered twice")
def test_an_input_that_comes_twice_counts_once() -> None:
    cohort = make("plain", inputs=grid_updates(5))
    doubled = drive(AddsEveryCopy(cohort.terms, dict.fromkeys(cohort.clients, b"")), Echoes(cohort.clients))
    assert doubled.contributors == names(5)
    assert np.array_equal(cohort.decoded(doubled), cohort.truth([*names(5), VICTIM]))
    cohort = make("plain", inputs=grid_updates(5))
    aggregate = cohort.run(Echoes(cohort.clients))
    assert aggregate.contributors == names(5) and cohort.is_right(aggregate)
    assert "not asked for" in aggregate.faults[VICTIM]


# ---- messages of another exchange


class WitnessesSix(AggregationClient):
    """Has a ledger head of 17 bytes, so that its keys' message is as long as a vector of six."""

    def __init__(
        self, name: ClientId, own: Identity, terms: Terms, encoding: Encoding, contribution: Contribution
    ) -> None:
        super().__init__(name, own, terms, encoding, replace(contribution, witness=bytes(17)))


class TakesAnyExchange(AggregationServer):
    def advance(self, replies: Replies) -> Messages:
        requests = super().advance(replies)
        if type(self._stage) is Inputs:
            self._stage = AnyMessage(self._stage.cohort, self._stage._dealt)
        return requests


class AnyMessage(Inputs):
    """Does not look at what a message was signed for."""

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        self.step = Step(reply.signed.authenticate(self.cohort.terms.roster).step)  # type: ignore[misc]
        super().fold(sender, reply)


def repeat_its_first_message(cohort: Cohort) -> Wire:
    """A wire that delivers what the victim said in exchange 0 as its input."""
    wire = Wire(cohort.clients)
    wire.on_reply = lambda step, name, data: wire.replies[Step.KEYS, name] if name == VICTIM else data
    return wire


@pytest.mark.attack("a message of another exchange")
def test_what_was_signed_for_one_exchange_counts_in_no_other() -> None:
    cohorts = [make("plain", inputs=grid_updates(5), types={VICTIM: WitnessesSix}) for _ in range(2)]
    wires = [repeat_its_first_message(cohort) for cohort in cohorts]
    spoiled = drive(TakesAnyExchange(cohorts[0].terms, dict.fromkeys(names(5), b"")), wires[0])
    assert spoiled.contributors == names(5)
    ring, said = cohorts[0].terms.layout.ring, decode(wires[0].replies[Step.KEYS, VICTIM], Envelope).parts[0]
    passed_off = cohorts[0].encoding.decode(ring.unpack(said, 6), ())
    assert np.array_equal(cohorts[0].decoded(spoiled), cohorts[0].truth(OTHERS) + passed_off)
    aggregate = cohorts[1].run(wires[1])
    assert aggregate.contributors == OTHERS and cohorts[1].is_right(aggregate)
    assert aggregate.faults[VICTIM] == "c1 sent a message of exchange 0 in exchange 2"
