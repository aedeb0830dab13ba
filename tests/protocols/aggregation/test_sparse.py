"""Whole rounds beyond a hundred clients, where each has a few neighbours on a random ring."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import msgspec
import numpy as np
import pytest

from protocols.aggregation.apply import apply_request, verified_sum
from protocols.aggregation.marks import mark, marked
from protocols.aggregation.messages import (
    Advertised,
    ConsistencyRequest,
    Envelope,
    Header,
    InputRequest,
    Opened,
    SharesRequest,
    UnmaskRequest,
    envelope,
    key_list_digest,
    key_list_entry,
)
from protocols.aggregation.recovery import Recovery
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Step
from protocols.aggregation.states import Sharing
from protocols.base import ClientId
from protocols.degree import Sparse
from protocols.errors import Forged, Inconsistent, ProtocolError, RoundAborted
from protocols.graph import CohortRules, Graph
from protocols.masking import Work
from protocols.primitives import AgreementKey, Identity
from protocols.wire import decode, encode
from tests.protocols.cohort import NEVER, Cohort, Wire, claimed, identity, make, names

COUNT = 120
# 20 bits of security make a degree of 34, of which 24 open a secret: so small that a round takes seconds.
RULES = CohortRules(sparse=Sparse(0.1, 0.1, 20, 10))
LEAST, QUORUM = 108, 81
MEMBERS = tuple(sorted(names(COUNT)))
ME = "c17"


def crowd(cell: str) -> Cohort:
    return make(cell, COUNT, 3, rules=RULES)


@pytest.fixture(scope="module")
def whole() -> tuple[Cohort, Wire, Aggregate]:
    """Of secagg, with one dropout between shares and input."""
    cohort = crowd("secagg")
    wire = Wire(cohort.clients, {"c3": int(Step.INPUT)})
    return cohort, wire, cohort.run(wire)


Round = tuple[Cohort, Wire, Aggregate]


def graph_of(wire: Wire) -> Graph:
    asked = decode(wire.requests[Step.SHARES, ME], SharesRequest)
    return RULES.graph(asked.members, key_list_digest(asked.members, asked.entries))


# ---- sums


def silences(seed: int) -> dict[ClientId, int]:
    """One in twenty, each silent from some exchange on."""
    generator = np.random.default_rng(seed)
    gone = generator.choice(names(COUNT), COUNT // 20, replace=False)
    return {str(name): int(generator.integers(0, 5)) for name in gone}


@pytest.mark.parametrize(("cell", "seed"), [("secagg", 1), ("ckks", 3)])
def test_a_twentieth_of_dropouts_at_any_exchange_leaves_the_right_sum(cell: str, seed: int) -> None:
    """No luck is needed: six dropouts are fewer than the ten that any client's holders can do without."""
    cohort, silent = crowd(cell), silences(seed)
    aggregate = cohort.run(Wire(cohort.clients, silent))
    expected = tuple(name for name in MEMBERS if silent.get(name, NEVER) > Step.INPUT)
    assert aggregate.contributors == expected and cohort.is_right(aggregate)
    assert dict(aggregate.dropped) == {name: f"exchange {step}" for name, step in silent.items()}
    assert aggregate.faults == {}
    assert aggregate.sum.recovered == tuple(sorted(name for name in silent if silent[name] == Step.INPUT))
    if cell == "ckks":
        check_proof(cohort, aggregate)


def check_proof(cohort: Cohort, aggregate: Aggregate) -> None:
    """A key holder takes a sum that two thirds of all signed, its neighbours or not."""
    request = apply_request(cohort.terms, aggregate.sum)
    total, uploads = verified_sum(cohort.terms, request)
    assert np.abs(cohort.encoding.decode(total, uploads) - cohort.decoded(aggregate)).max() == 0
    quorum = RULES.quorum(len(request.cohort))
    verified_sum(cohort.terms, msgspec.structs.replace(request, consents=request.consents[:quorum]))
    with pytest.raises(Inconsistent, match="are needed"):
        verified_sum(cohort.terms, msgspec.structs.replace(request, consents=request.consents[: quorum - 1]))


def test_a_cohort_of_a_hundred_of_a_larger_roster_is_complete_and_sums_rightly() -> None:
    cohort = crowd("secagg")
    wire = Wire(cohort.clients, dict.fromkeys(names(COUNT)[:90], 0))
    aggregate = cohort.run(wire)
    assert len(aggregate.contributors) == 30 and cohort.is_right(aggregate)
    assert len(decode(wire.requests[Step.SHARES, "c90"], SharesRequest).advertised) == 29


# ---- what is shown, to whom


def test_each_is_shown_all_names_and_the_keys_of_its_neighbours(whole: Round) -> None:
    _, wire, _ = whole
    graph = graph_of(wire)
    assert (graph.degree, graph.threshold, graph.least, graph.quorum) == (34, 24, LEAST, QUORUM)
    for name in MEMBERS[::17]:
        asked = decode(wire.requests[Step.SHARES, name], SharesRequest)
        assert asked.members == MEMBERS and len(asked.entries) == 32 * COUNT
        assert tuple(claimed(each) for each in asked.advertised) == graph.neighbours(name)
        assert len(wire.reply(Step.SHARES, name).parts) == 1 + graph.degree


def test_each_gets_what_its_neighbours_dealt_and_opens_that(whole: Round) -> None:
    _, wire, _ = whole
    graph = graph_of(wire)
    for name in MEMBERS[::17]:
        asked = decode(wire.requests[Step.INPUT, name], InputRequest)
        assert marked(MEMBERS, asked.shared) == MEMBERS
        dealers = [given.signed.open(*opening(wire, Step.SHARES)).sender for given in asked.dealt]
        assert tuple(dealers) == graph.neighbours(name)
        opened = msgspec.msgpack.decode(wire.reply(Step.UNMASK, name).parts[0], type=Opened)
        assert len(opened.shares) == graph.degree


def opening(wire: Wire, step: Step) -> tuple[object, bytes, Step]:
    terms = wire.clients[ME]._terms
    return terms.roster, terms.session, step


def test_nobody_holds_a_share_of_its_own(whole: Round) -> None:
    state = whole[1].before[Step.INPUT, ME]._state
    assert isinstance(state, Sharing) and state.own == {}


def test_only_neighbours_signatures_are_shown_and_as_many_as_are_needed(whole: Round) -> None:
    _, wire, _ = whole
    graph = graph_of(wire)
    for name in MEMBERS[::17]:
        consents = decode(wire.requests[Step.UNMASK, name], UnmaskRequest).consents
        signers = [consent.open(*opening(wire, Step.CONSISTENCY)).sender for consent in consents]
        assert len(signers) == graph.threshold
        assert signers == [near for near in graph.neighbours(name) if near != "c3"][: graph.threshold]


def test_signatures_of_others_or_of_too_few_neighbours_open_nothing(whole: Round) -> None:
    _, wire, _ = whole
    graph = graph_of(wire)
    signed = {name: wire.reply(Step.CONSISTENCY, name).signed for name in MEMBERS if name != "c3"}
    near = [signed[name] for name in graph.neighbours(ME) if name in signed]
    far = [signed[name] for name in MEMBERS if name in signed and name not in (ME, *graph.neighbours(ME))]
    t = graph.threshold
    for refused in (far[:t], far, [*near[: t - 1], far[0]], [*near[:t], far[0]], [signed[ME], *near[: t - 1]]):
        with pytest.raises(Inconsistent, match="another survivor set"):
            wire.client(Step.UNMASK, ME).handle(encode(UnmaskRequest(tuple(refused))))
    for refused in (near[: t - 1], [*near[: t - 1], near[0]], []):
        with pytest.raises(Inconsistent, match="24 are needed"):
            wire.client(Step.UNMASK, ME).handle(encode(UnmaskRequest(tuple(refused))))
    assert wire.client(Step.UNMASK, ME).handle(encode(UnmaskRequest(tuple(near))))


# ---- too few


def test_fewer_dealers_than_a_sum_needs_are_refused(whole: Round) -> None:
    """However many of the client's own neighbours are among them."""
    _, wire, _ = whole
    asked = decode(wire.requests[Step.INPUT, ME], InputRequest)
    far = [name for name in MEMBERS if name not in (ME, *graph_of(wire).neighbours(ME))]
    for gone, enough in ((COUNT - LEAST, True), (COUNT - LEAST + 1, False)):
        shared = mark(MEMBERS, set(MEMBERS).difference(far[:gone]))
        request = encode(msgspec.structs.replace(asked, shared=shared))
        if enough:
            assert decode(wire.client(Step.INPUT, ME).handle(request), Envelope).signed.says(Step.INPUT)
        else:
            with pytest.raises(Inconsistent, match="107 clients dealt shares, 108 are needed"):
                wire.client(Step.INPUT, ME).handle(request)


def test_fewer_dealing_neighbours_than_open_a_secret_are_refused(whole: Round) -> None:
    """However many others there are: eleven neighbours gone leave 23 who could open, one too few."""
    _, wire, _ = whole
    asked, near = decode(wire.requests[Step.INPUT, ME], InputRequest), graph_of(wire).neighbours(ME)
    for gone, enough in ((10, True), (11, False)):
        shared = mark(MEMBERS, set(MEMBERS).difference(near[:gone]))
        request = encode(InputRequest(shared, asked.dealt[gone:]))
        if enough:
            assert decode(wire.client(Step.INPUT, ME).handle(request), Envelope).signed.says(Step.INPUT)
        else:
            with pytest.raises(Inconsistent, match="needed"):
                wire.client(Step.INPUT, ME).handle(request)


def test_fewer_survivors_than_a_sum_needs_are_not_signed_for(whole: Round) -> None:
    _, wire, _ = whole
    others = [name for name in MEMBERS if name != ME]
    enough = mark(MEMBERS, [ME, *others[: LEAST - 1]])
    assert wire.client(Step.CONSISTENCY, ME).handle(encode(ConsistencyRequest(enough)))
    with pytest.raises(Inconsistent, match="107 is below the 108"):
        wire.client(Step.CONSISTENCY, ME).handle(encode(ConsistencyRequest(mark(MEMBERS, [ME, *others[: LEAST - 2]]))))


def answers(wire: Wire, step: Step) -> dict[ClientId, bytes]:
    """What everybody said in one exchange: a server of the same session can be told it again."""
    return {name: data for (at, name), data in wire.replies.items() if at == step}


def after_the_keys(whole: Round) -> AggregationServer:
    """A server of the same session that knows the same keys."""
    cohort, wire, _ = whole
    server = cohort.server()
    server.open()
    assert set(server.advance(answers(wire, Step.KEYS).items())) == set(MEMBERS)
    return server


def test_more_dropouts_than_the_graph_is_made_for_abort(whole: Round) -> None:
    shares = answers(whole[1], Step.SHARES)
    gone = set(MEMBERS[: COUNT - LEAST])
    left = {name: data for name, data in shares.items() if name not in gone}
    assert set(after_the_keys(whole).advance(left.items())) == set(left)
    left.pop(ME)
    with pytest.raises(RoundAborted, match="107 clients are left after exchange 1, 108 are needed") as aborted:
        after_the_keys(whole).advance(left.items())
    assert set(aborted.value.dropped) == gone | {ME} and aborted.value.faults == {}


def test_a_dropout_with_whom_nobody_who_is_left_masked_needs_no_shares(whole: Round) -> None:
    """Its masks are in no input. With one neighbour left, they are in one, and too few shares are an abort."""
    cohort, wire, _ = whole
    advertised = {name: msgspec.msgpack.decode(each.parts[0], type=Advertised) for name, each in keys_of(wire).items()}
    graph, total = graph_of(wire), cohort.terms.layout.ring.zeros(3)
    Recovery(cohort.terms, graph, advertised, {}, Work()).remove(total, {"c3": {}})
    assert not total.any()
    left = {graph.neighbours("c3")[0]: bytes(32)}
    with pytest.raises(Inconsistent, match="0 shares of c3 were opened, 24 are needed"):
        Recovery(cohort.terms, graph, advertised, left, Work()).remove(total, {"c3": {}})


# ---- two key lists


def keys_of(wire: Wire) -> dict[ClientId, Envelope]:
    return {name: wire.reply(Step.KEYS, name) for name in MEMBERS}


def asked(listed: Mapping[ClientId, Envelope], name: ClientId) -> SharesRequest:
    """What a server would ask that took these keys."""
    entries = b"".join(key_list_entry(listed[member].signed) for member in MEMBERS)
    graph = RULES.graph(MEMBERS, key_list_digest(MEMBERS, entries))
    return SharesRequest(MEMBERS, entries, tuple(listed[near] for near in graph.neighbours(name)))


def invented(cohort: Cohort, name: ClientId, signer: Identity) -> Envelope:
    keys = [AgreementKey(bytes([number]) * 32).public for number in (1, 2)]
    header = Header(cohort.terms.session, Step.KEYS, name, b"", b"", b"")
    return envelope(signer, header, [msgspec.msgpack.encode(Advertised(keys[0], keys[1], b""))])


def refuses(wire: Wire, name: ClientId, request: SharesRequest) -> bool:
    try:
        wire.client(Step.SHARES, name).handle(encode(request))
    except (Forged, Inconsistent):
        return True
    return False


def test_the_request_that_the_tests_below_change_is_the_servers(whole: Round) -> None:
    _, wire, _ = whole
    assert encode(asked(keys_of(wire), ME)) == wire.requests[Step.SHARES, ME]


def test_keys_that_the_server_invents_for_one_member_are_refused_by_exactly_its_neighbours_and_itself(
    whole: Round,
) -> None:
    """So none of them contributes, and the others mask with nobody whose keys they did not see."""
    cohort, wire, _ = whole
    listed = {**keys_of(wire), "c5": invented(cohort, "c5", Identity(bytes(32)))}
    entries = asked(listed, ME).entries
    near = RULES.graph(MEMBERS, key_list_digest(MEMBERS, entries)).neighbours("c5")
    assert {name for name in MEMBERS if refuses(wire, name, asked(listed, name))} == {"c5", *near}


def test_a_neighbour_whose_keys_do_not_fit_its_entry_is_refused(whole: Round) -> None:
    """True keys beside a false entry, and keys that a colluder signed twice."""
    cohort, wire, _ = whole
    honest = keys_of(wire)
    listed = {**honest, "c5": invented(cohort, "c5", identity("c5"))}
    near = decode_neighbours(listed, "c5")[0]
    request = asked(listed, near)
    shown = tuple(honest["c5"] if claimed(each) == "c5" else each for each in request.advertised)
    assert not refuses(wire, near, request)
    with pytest.raises(Inconsistent, match="other keys of c5"):
        wire.client(Step.SHARES, near).handle(encode(msgspec.structs.replace(request, advertised=shown)))


def decode_neighbours(listed: Mapping[ClientId, Envelope], name: ClientId) -> list[ClientId]:
    return [claimed(each) for each in asked(listed, name).advertised]


def test_the_keys_of_others_than_the_neighbours_are_refused(whole: Round) -> None:
    """A server does not choose who masks with whom: it follows from the key list."""
    _, wire, _ = whole
    listed, honest = keys_of(wire), decode(wire.requests[Step.SHARES, ME], SharesRequest)
    far = next(name for name in MEMBERS if name not in (ME, *graph_of(wire).neighbours(ME)))
    dropped, *kept = honest.advertised
    other = sorted([*kept, listed[far]], key=claimed)
    fewer, more = kept, sorted([dropped, *kept, listed[far]], key=claimed)
    for shown in (other, fewer, more, [], list(listed.values())):
        with pytest.raises(Inconsistent, match="neighbours"):
            wire.client(Step.SHARES, ME).handle(encode(msgspec.structs.replace(honest, advertised=tuple(shown))))


def test_a_stranger_on_the_list_is_refused_by_those_too_who_are_not_its_neighbours(whole: Round) -> None:
    """Or a server could fill a cohort up with clients of its own."""
    _, wire, _ = whole
    listed = keys_of(wire)
    for number in range(256):
        entries = b"".join(key_list_entry(each.signed) for each in listed.values()) + bytes([number]) * 32
        members = (*MEMBERS, "d0")
        graph = RULES.graph(members, key_list_digest(members, entries))
        if "d0" not in graph.neighbours(ME):
            break
    request = SharesRequest(members, entries, tuple(listed[near] for near in graph.neighbours(ME)))
    with pytest.raises(Inconsistent, match="not on the roster"):
        wire.client(Step.SHARES, ME).handle(encode(request))


def another_list(cohort: Cohort, wire: Wire) -> SharesRequest:
    """A key list that is consistent in itself and that ``ME`` alone is shown: with c5 as the server invented it."""
    for seed in range(256):
        listed = {**keys_of(wire), "c5": invented(cohort, "c5", Identity(bytes([seed]) * 32))}
        if "c5" not in decode_neighbours(listed, ME):
            return asked(listed, ME)
    raise AssertionError("c5 is a neighbour on 256 random rings: (34/119)**256")


def test_a_client_whose_neighbours_see_another_key_list_drops_out(whole: Round) -> None:
    """It can be shown a consistent list, and answers; but to a list that nobody else has."""
    cohort, wire, _ = whole
    answer = wire.client(Step.SHARES, ME).handle(encode(another_list(cohort, wire)))
    assert decode(answer, Envelope).signed.says(Step.SHARES)
    server = after_the_keys(whole)
    requests = server.advance({**answers(wire, Step.SHARES), ME: answer}.items())
    assert dict(server.faults) == {ME: f"{ME} answers to another key list or other sharers"}
    assert dict(server.dropped) == {ME: "exchange 1"}
    assert tuple(requests) == tuple(name for name in MEMBERS if name != ME)
    shared = decode(requests["c0"], InputRequest).shared
    assert ME not in marked(MEMBERS, shared)  # so that nobody masks with it


def test_a_client_with_another_key_list_than_its_neighbours_takes_none_of_their_shares(whole: Round) -> None:
    """Whatever the server relays: what was dealt under one list does not open under another, nor prove anything."""
    cohort, wire, _ = whole
    victim = wire.client(Step.SHARES, ME)
    victim.handle(encode(another_list(cohort, wire)))
    assert isinstance(victim._state, Sharing)
    given = decode(wire.requests[Step.INPUT, ME], InputRequest)
    relabelled = tuple(
        msgspec.structs.replace(each, index=victim._state.cohort.graph.place(dealer, ME))
        for dealer, each in zip(victim._state.cohort.graph.neighbours(ME), given.dealt, strict=True)
    )
    for dealt in (given.dealt, relabelled):
        with pytest.raises(ProtocolError):
            copy.copy(victim).handle(encode(InputRequest(given.shared, dealt)))


@pytest.mark.parametrize(
    ("roster", "rules", "silent"),
    [
        # So many colluders anywhere are withstood on a ring of the roster's size, and on none of the cohort's.
        (104, CohortRules(100, None, 33, Sparse(0.1, 0.1, 20, 10)), 1),
        (112, CohortRules(109, None, 36, Sparse(0.1, 0.1, 20, 10)), 3),
    ],
)
def test_a_cohort_that_the_rules_do_not_allow_though_they_allow_the_roster_aborts_the_attempt(
    roster: int, rules: CohortRules, silent: int
) -> None:
    cohort = make("secagg", roster, 1, rules=rules)
    with pytest.raises(RoundAborted, match="no cohort that the rules allow"):
        cohort.run(Wire(cohort.clients, dict.fromkeys(names(roster)[:silent], 0)))
