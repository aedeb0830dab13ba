"""Attacks with more than one survivor set: who is told of another set opens what the others keep closed."""

from __future__ import annotations

import msgspec
import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.marks import marked
from protocols.aggregation.messages import ConsistencyRequest, Envelope, Opened, Signed, UnmaskRequest
from protocols.aggregation.session import Step
from protocols.aggregation.states import Consenting, Masked, Spent, State
from protocols.base import ClientId
from protocols.errors import Inconsistent
from protocols.graph import CohortRules
from protocols.merkle import tree_of
from protocols.primitives import digest
from tests.protocols.attacks.adversary import VICTIM, Adversary, cohort_of
from tests.protocols.attacks.weak import OpensUnproven
from tests.protocols.cohort import names

# ---- without exchange 3


class TakesAnySurvivors(OpensUnproven):
    """As if there were no exchange 3: the survivor set is whatever the server says."""

    def _consent(self, state: Masked, request: ConsistencyRequest) -> tuple[State, Envelope]:
        consenting = Consenting(state.cohort, state.shared, state.members, state.held, request.survivors)
        return consenting, self._envelope(Step.CONSISTENCY, state.members, [self._statement(consenting)])


def leave_each_client_alone_with_the_victim(server: Adversary) -> None:
    server.up_to_inputs()
    for name in names(5):
        left = tuple(sorted({name, VICTIM}))
        server.sign(left, [name])
        server.open(left, [name])


@pytest.mark.attack("a survivor set of its own for each client, too small to be a sum")
def test_no_client_opens_for_a_survivor_set_below_the_threshold() -> None:
    weak, real = Adversary(cohort_of(TakesAnySurvivors)), Adversary(cohort_of(AggregationClient))
    leave_each_client_alone_with_the_victim(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(Inconsistent, match="below the 4"):
        leave_each_client_alone_with_the_victim(real)
    assert not real.reads(VICTIM)


# ---- sets that are each large enough

# Of six with t = 4 and one colluder, any sum should hide a client among at least t - 1 = 3 honest ones. No set that a
# client is told of leaves out more than n - t = 2. But of c0, c1 and c2 each is left out three times; with the
# colluder's share that opens their mask keys, and the sum of c3 and c4 is left.
RULES = CohortRules(minimum=4, threshold=4, colluders=1)
COLLUDER, HIDDEN = "c5", ("c3", "c4")
TOLD = {
    "c0": ("c0", "c3", "c4", "c5"),
    "c1": ("c1", "c3", "c4", "c5"),
    "c2": ("c2", "c3", "c4", "c5"),
    "c3": ("c2", "c3", "c4", "c5"),
    "c4": ("c1", "c3", "c4", "c5"),
}
SETS = tuple(dict.fromkeys(TOLD.values()))


def six(client: type[AggregationClient], attempt: int = 1) -> Adversary:
    server = Adversary(cohort_of(client, 6, rules=RULES, attempt=attempt), corrupted=[COLLUDER])
    server.up_to_inputs()
    return server


def tell_each_its_own(server: Adversary, proofs: dict[tuple[ClientId, ...], dict[ClientId, Signed]]) -> None:
    """``proofs``: signatures that the server has already."""
    for survivors in SETS:
        server.sign_as(COLLUDER, survivors, names(6))
    for name, survivors in TOLD.items():
        server.sign(survivors, [name])
    for name, survivors in TOLD.items():
        server.open(survivors, [name], server.consents[survivors] | proofs.get(survivors, {}))


@pytest.mark.attack("different survivor sets to different clients")
def test_clients_that_were_told_of_different_survivors_open_nothing() -> None:
    weak, real = six(OpensUnproven), six(AggregationClient)
    tell_each_its_own(weak, {})
    assert weak.reads(*HIDDEN)
    with pytest.raises(Inconsistent, match="distinct clients signed"):
        tell_each_its_own(real, {})
    assert not real.reads(*HIDDEN)


class SignsNamesOnly(AggregationClient):
    """Signs the survivor set and nothing else, as figure 4 of Bonawitz et al. (CCS 2017) can be read."""

    def _statement(self, state: Consenting) -> bytes:
        return digest("survivors", state.survivors)

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[State, Envelope]:
        headers = [consent.authenticate(self._terms.roster) for consent in request.consents]
        signers = {header.sender for header in headers if header.body == tree_of([self._statement(state)]).root}
        survivors = set(marked(state.cohort.graph.members, state.survivors))
        if len(signers & survivors) < state.cohort.graph.threshold:
            raise Inconsistent("too few signed")
        shares = [pair.seed if peer in survivors else pair.key for peer, pair in sorted(state.held.items())]
        return Spent(), self._envelope(Step.UNMASK, state.members, [msgspec.msgpack.encode(Opened(tuple(shares)))])


def collect_signatures(client: type[AggregationClient]) -> dict[tuple[ClientId, ...], dict[ClientId, Signed]]:
    """Three attempts, each with one of the sets as its survivors, all given up before anything is opened."""
    found = {}
    for attempt, survivors in enumerate(SETS, 1):
        server = six(client, attempt)
        server.sign(survivors)
        found[survivors] = server.consents[survivors]
    return found


@pytest.mark.attack("signatures of an earlier attempt")
def test_signatures_over_the_survivors_of_another_attempt_open_nothing() -> None:
    weak, real = six(SignsNamesOnly, 4), six(AggregationClient, 4)
    with pytest.raises(Inconsistent, match="too few signed"):
        tell_each_its_own(six(SignsNamesOnly, 4), {})  # without the old ones the gap is of no use
    tell_each_its_own(weak, collect_signatures(SignsNamesOnly))
    assert weak.reads(*HIDDEN)
    with pytest.raises(Inconsistent, match="another session"):
        tell_each_its_own(real, collect_signatures(AggregationClient))
    assert not real.reads(*HIDDEN)
