"""Exchange 5: what a key holder decrypts, and when the server may call a round committed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pytest

from protocols.aggregation.apply import (
    Applied,
    ApplyServer,
    Commit,
    apply_request,
    check_agreed,
    model_tag,
    sum_digest,
    verified_sum,
)
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    SHORT_REPLY,
    ApplyRequest,
    DecryptRequest,
    Envelope,
    Header,
    Refusal,
    Signed,
    envelope,
    membership_digest,
    sign,
)
from protocols.aggregation.server import Aggregate
from protocols.aggregation.session import Step, Terms
from protocols.base import ClientId, Messages, drive
from protocols.errors import Forged, Inconsistent, MalformedMessage, ProtocolError, RoundAborted
from protocols.graph import CohortRules
from protocols.merkle import tree_of
from protocols.wire import decode, encode, kind
from tests.protocols.cohort import Cohort, Wire, identity, make, names, tolerance

SEALED = ("ckks", "ckks-unmasked")


def aggregated(cell: str, silent: dict[str, int] | None = None) -> tuple[Cohort, Aggregate]:
    cohort = make(cell)
    return cohort, cohort.run(Wire(cohort.clients, silent or {}))


@pytest.fixture(scope="module", params=SEALED)
def sealed(request: pytest.FixtureRequest) -> tuple[Cohort, ApplyRequest]:
    """A sum of c0, c1, c2 and c4 of five; c3 dropped with its input."""
    cohort, aggregate = aggregated(request.param, {"c3": int(Step.INPUT)})
    return cohort, apply_request(cohort.terms, aggregate.sum)


def changed(request: ApplyRequest, **fields: object) -> ApplyRequest:
    return msgspec.structs.replace(request, **fields)


@pytest.mark.parametrize("cell", SEALED)
@pytest.mark.parametrize(
    "silent", [{}, {"c3": 0}, {"c3": int(Step.SHARES)}, {"c3": int(Step.INPUT)}, {"c3": int(Step.UNMASK)}]
)
def test_every_key_holder_decodes_the_sum_from_signed_seeds_alone(cell: str, silent: dict[str, int]) -> None:
    cohort, aggregate = aggregated(cell, silent)
    request = decode(encode(apply_request(cohort.terms, aggregate.sum)), ApplyRequest)
    packed, uploads = verified_sum(cohort.terms, request)
    assert [upload.sender for upload in uploads] == list(aggregate.contributors)
    decoded = cohort.encoding.decode(packed, uploads)
    assert (decoded == cohort.decoded(aggregate)).all()
    assert np.abs(decoded - cohort.truth(aggregate.contributors)).max() <= tolerance(cohort.encoding, 5)


# ---- whose sum it is


def forged_input(terms: Terms, signed: Signed, **fields: object) -> Signed:
    """What a dishonest contributor itself could sign."""
    header = msgspec.structs.replace(signed.authenticate(terms.roster), **fields)
    return sign(identity(header.sender), header)


def all_naming(terms: Terms, inputs: tuple[Signed, ...], members: bytes) -> tuple[Signed, ...]:
    """What contributors sign who were all shown the same: another key list, or other sharers."""
    return tuple(forged_input(terms, signed, keys=members) for signed in inputs)


def altered_seed(signed: Signed) -> Signed:
    """What a server could write in without the contributor."""
    header = msgspec.msgpack.decode(signed.header, type=Header)
    return Signed(msgspec.msgpack.encode(msgspec.structs.replace(header, seed=bytes(32))), signed.signature)


def test_the_server_cannot_choose_any_contributors_seed(sealed: tuple[Cohort, ApplyRequest]) -> None:
    """The ``a`` that is multiplied by the key follows from signatures, so a chosen c1 has no way in."""
    cohort, request = sealed
    for index, signed in enumerate(request.inputs):
        inputs = (*request.inputs[:index], altered_seed(signed), *request.inputs[index + 1 :])
        with pytest.raises(Forged):
            verified_sum(cohort.terms, changed(request, inputs=inputs))


def refusals(cohort: Cohort, request: ApplyRequest) -> dict[str, ApplyRequest]:
    terms, first, inputs = cohort.terms, request.inputs[0], request.inputs
    seed = inputs[1].authenticate(terms.roster).seed
    earlier = make(cohort.cell, attempt=2)
    other = sign(identity("c0"), Header(earlier.terms.session, Step.INPUT, "c0", request.keys, seed, b""))
    step = sign(identity("c0"), Header(terms.session, Step.SHARES, "c0", request.keys, seed, b""))
    return {
        "nobody's": changed(request, inputs=()),
        "below the threshold": changed(request, inputs=inputs[:3]),
        "unsorted": changed(request, inputs=inputs[::-1]),
        "one of them twice": changed(request, inputs=(first, *inputs)),
        "another session's": changed(request, inputs=(other, *inputs[1:])),
        "another exchange's": changed(request, inputs=(step, *inputs[1:])),
        "two with one seed": changed(request, inputs=(forged_input(terms, first, seed=seed), *inputs[1:])),
        "a seed too short": changed(request, inputs=(forged_input(terms, first, seed=seed[:31]), *inputs[1:])),
        "no seed": changed(request, inputs=(forged_input(terms, first, seed=b""), *inputs[1:])),
        "another key list's": changed(request, inputs=(forged_input(terms, first, keys=b"other"), *inputs[1:])),
        "all of another key list": changed(request, inputs=all_naming(terms, inputs, bytes(32))),
        "all of the key list alone, or of no sharers": changed(
            request, inputs=all_naming(terms, inputs, request.keys or membership_digest(b"", b""))
        ),
        "all of other sharers": changed(
            request, inputs=all_naming(terms, inputs, membership_digest(request.keys, b"\x17"))
        ),
        "a contributor outside the cohort": changed(request, cohort=("c1", "c2", "c3", "c4")),
        "a cohort below the minimum": changed(request, cohort=request.cohort[:2]),
        "no cohort": changed(request, cohort=()),
        "an unsorted cohort": changed(request, cohort=request.cohort[::-1]),
        "a cohort with a client twice": changed(request, cohort=("c0", *request.cohort)),
        "a cohort with a stranger": changed(request, cohort=(*request.cohort, "c9")),
    }


CASES = list(refusals(make("ckks"), ApplyRequest("run", 1, 1, b"", names(5), b"", b"", tuple(
    sign(identity(name), Header(b"", Step.INPUT, name, b"", b"", b"")) for name in names(5)), b"")))  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_sum_that_is_not_the_cohorts_is_refused(sealed: tuple[Cohort, ApplyRequest], case: str) -> None:
    cohort, request = sealed
    verified_sum(cohort.terms, request)
    with pytest.raises(Inconsistent):
        verified_sum(cohort.terms, refusals(cohort, request)[case])


def test_residues_of_another_length_or_outside_the_ring_are_refused(sealed: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = sealed
    for total in (b"", request.total[:-1], request.total + b"\x00", b"\xff" * len(request.total)):
        with pytest.raises(MalformedMessage):
            verified_sum(cohort.terms, changed(request, total=total))


def test_with_masks_the_survivor_set_must_be_what_enough_clients_signed() -> None:
    cohort, aggregate = aggregated("ckks", {"c3": int(Step.INPUT)})
    request = apply_request(cohort.terms, aggregate.sum)
    verified_sum(cohort.terms, request)
    consents = request.consents
    assert len(consents) == 4
    everyone = (*names(5),)
    for bad in (
        changed(request, consents=()),
        changed(request, consents=consents[:3]),
        changed(request, consents=(*consents[:3], consents[2])),
        changed(request, consents=request.inputs),
        changed(request, shared=mark(everyone, ("c0", "c1", "c2", "c4"))),  # signed was another U2
        changed(request, shared=request.shared + b"\x00"),
        changed(request, shared=mark(everyone, everyone[:4]) + request.shared[1:]),
        changed(request, shared=bytes([request.shared[0] | 0x20])),  # of a sixth client of five
        changed(request, cohort=("c0", "c1", "c2", "c4")),  # a smaller cohort would lower the threshold
        changed(request, keys=bytes(32)),
        changed(request, cohort=everyone, shared=b""),
    ):
        with pytest.raises(Inconsistent):
            verified_sum(cohort.terms, bad)


def test_a_threshold_above_a_claimed_cohort_is_refused_like_any_other_lie() -> None:
    cohort = make("ckks", rules=CohortRules(3, 4))
    request = apply_request(cohort.terms, cohort.run(Wire(cohort.clients)).sum)
    verified_sum(cohort.terms, request)
    with pytest.raises(Inconsistent):
        verified_sum(cohort.terms, changed(request, cohort=("c0", "c1", "c2"), inputs=request.inputs[:3]))


def test_a_sum_for_another_round_or_model_is_refused(sealed: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = sealed
    for terms in (make(cohort.cell, attempt=2).terms, other_model(cohort)):
        with pytest.raises(Inconsistent, match="another session"):
            verified_sum(terms, request)


def other_model(cohort: Cohort) -> Terms:
    from dataclasses import replace

    return replace(cohort.terms, context=msgspec.structs.replace(cohort.terms.context, model=b"another"))


def test_bytes_changed_anywhere_in_an_apply_request_never_raise_anything_else(
    sealed: tuple[Cohort, ApplyRequest],
) -> None:
    """Every 97th byte outside the sum. What still verifies has the very same sum and contributors."""
    cohort, request = sealed
    data, honest = encode(request), verified_sum(cohort.terms, request)
    start = data.index(request.total)
    for place in [*range(0, start, 3), *range(start + len(request.total), len(data), 97)]:
        tampered = data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :]
        try:
            total, uploads = verified_sum(cohort.terms, decode(tampered, ApplyRequest))
        except ProtocolError:
            continue
        # Round and attempt choose the terms; they are the caller's to match. The rest is as signed.
        assert (total == honest[0]).all() and uploads == honest[1]


# ---- commit


def tagged(
    cohort: Cohort,
    name: ClientId,
    tag: bytes,
    accuracy: float | None = None,
    signer: ClientId | None = None,
    void: bool = False,
) -> bytes:
    header = Header(cohort.terms.session, Step.APPLY, name, b"", b"", b"")
    body = msgspec.msgpack.encode(Applied(tag, accuracy, void))
    return encode(envelope(identity(signer or name), header, [body]))


def agreement(cohort: Cohort, request: ApplyRequest, name: ClientId) -> bytes:
    """A client's word that this is the sum that it was handed."""
    header = Header(cohort.terms.session, Step.AGREE, name, b"", b"", b"")
    return encode(envelope(identity(name), header, [sum_digest(request)]))


def half_way(cohort: Cohort, request: ApplyRequest, tries: int = 3) -> ApplyServer:
    """A server to which everybody has said that it was handed this sum."""
    server = ApplyServer(cohort.terms, request, tries)
    assert set(server.open()) == set(cohort.terms.roster.keys)
    asked = server.advance((name, agreement(cohort, request, name)) for name in cohort.terms.roster.keys)
    assert set(asked) == set(cohort.terms.roster.keys)
    return server


@pytest.fixture(scope="module")
def over() -> tuple[Cohort, ApplyRequest]:
    cohort, aggregate = aggregated("ckks-unmasked")
    return cohort, apply_request(cohort.terms, aggregate.sum)


def test_a_round_is_committed_at_t_equal_tags(over: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = over
    server = half_way(cohort, request)
    replies = {name: tagged(cohort, name, b"new", 0.9) for name in names(5)[:4]}
    assert server.advance(replies.items()) == {}
    commit = server.result
    assert (commit.tag, commit.behind, commit.accuracy) == (b"new", ("c4",), 0.9)
    assert [e.signed.authenticate(cohort.terms.roster).sender for e in commit.evidence] == ["c0", "c1", "c2", "c3"]
    assert all(tree_of(e.parts).root == e.signed.authenticate(cohort.terms.roster).body for e in commit.evidence)


@pytest.mark.parametrize(("colluders", "needed"), [(0, 4), (1, 5)])
def test_a_colluder_that_could_tag_two_models_costs_a_tag_more(colluders: int, needed: int) -> None:
    """Of seven, four can be told of one model and, with a colluder, four of another."""
    cohort = make("ckks-unmasked", 7, rules=CohortRules(4, None, colluders, None))
    aggregate = cohort.run(Wire(cohort.clients, dict.fromkeys(["c4", "c5", "c6"], 0)))
    server = half_way(cohort, apply_request(cohort.terms, aggregate.sum))
    one = [(name, tagged(cohort, name, b"new")) for name in names(7)[: needed - 1]]
    assert set(server.advance(one)) == set(names(7)[needed - 1 :])
    assert server.advance([("c6", tagged(cohort, "c6", b"new"))]) == {} and server.result.tag == b"new"


def test_a_reply_longer_than_any_honest_one_does_not_count(over: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = over
    server = half_way(cohort, request)
    room = SHORT_REPLY - len(tagged(cohort, "c0", b""))
    longer = {"c0": tagged(cohort, "c0", bytes(room - 9)), "c1": tagged(cohort, "c1", bytes(room + 1))}
    assert len(longer["c0"]) <= SHORT_REPLY < len(longer["c1"])
    assert "c0" not in server.advance(longer.items())
    assert set(server.faults) == {"c1"} and "at most 4096 are honest" in server.faults["c1"]


def test_a_minority_with_another_model_is_behind(over: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = over
    server = half_way(cohort, request)
    tags = {"c0": b"odd", "c1": b"new", "c2": b"new", "c3": b"new", "c4": b"new"}
    assert server.advance((name, tagged(cohort, name, tag)) for name, tag in tags.items()) == {}
    assert server.result.tag == b"new" and server.result.behind == ("c0",)
    assert server.result.accuracy is None


@pytest.mark.parametrize("split", [(3, 2), (2, 2), (1, 1)])
def test_a_disagreement_is_never_committed(over: tuple[Cohort, ApplyRequest], split: tuple[int, int]) -> None:
    """t is 4 of 5. Also where everybody has answered, so that there is nobody left to ask."""
    cohort, request = over
    server = ApplyServer(cohort.terms, request, tries=2)
    answers = dict(zip(names(5), [b"one"] * split[0] + [b"two"] * split[1], strict=False))
    asked: list[Messages] = []

    def exchange(requests: Messages) -> list[tuple[ClientId, bytes]]:
        if kind(next(iter(requests.values()))) == ApplyRequest.KIND:
            return [(name, agreement(cohort, request, name)) for name in requests]
        asked.append(requests)
        return [(name, tagged(cohort, name, answers[name])) for name in requests if name in answers]

    with pytest.raises(RoundAborted) as aborted:
        drive(server, exchange)
    assert set(aborted.value.dropped) == set(names(5)) - set(answers)
    assert len(asked) == (1 if sum(split) == 5 else 2)
    with pytest.raises(RuntimeError):
        _ = server.result


def test_a_short_apply_asks_again_with_the_same_bytes_and_only_who_is_missing(
    over: tuple[Cohort, ApplyRequest],
) -> None:
    cohort, request = over
    server = ApplyServer(cohort.terms, request, tries=3)
    first = server.open()
    assert set(first) == set(names(5)) and set(first.values()) == {encode(request)}
    second = server.advance((name, agreement(cohort, request, name)) for name in ("c0", "c1"))
    assert set(second) == {"c2", "c3", "c4"} and set(second.values()) == {encode(request)}
    third = server.advance((name, agreement(cohort, request, name)) for name in ("c2", "c3"))
    assert set(third) == {"c0", "c1", "c2", "c3"}  # who has not said that it holds the sum is not asked to decrypt it
    fourth = server.advance((name, tagged(cohort, name, b"new")) for name in ("c0", "c1"))
    assert set(fourth) == {"c2", "c3"} and {*fourth.values()} == {*third.values()}
    # After a crash of the server, another one asks everybody with the same bytes, and gets the same replies.
    assert ApplyServer(cohort.terms, request).open() == first
    assert server.advance((name, tagged(cohort, name, b"new")) for name in ("c2", "c3")) == {}
    assert server.result.behind == ("c4",)


def test_signatures_that_the_sum_is_the_same_go_to_all_who_gave_one(over: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = over
    server = ApplyServer(cohort.terms, request)
    server.open()
    asked = server.advance((name, agreement(cohort, request, name)) for name in names(5)[:4])
    (message,) = set(asked.values())
    proof = decode(message, DecryptRequest).agreed
    check_agreed(cohort.terms, sum_digest(request), proof, 4)
    for few in (proof[:3], (*proof[:3], proof[0])):
        with pytest.raises(Inconsistent, match="clients were handed this sum, 4 are needed"):
            check_agreed(cohort.terms, sum_digest(request), few, 4)
    for other in (changed(request, round=2), changed(request, total=b"\1" + request.total[1:])):
        with pytest.raises(Inconsistent, match="was handed another sum"):
            check_agreed(cohort.terms, sum_digest(other), proof, 4)
    with pytest.raises(Inconsistent, match="exchange"):  # a signature of another exchange is none
        check_agreed(cohort.terms, sum_digest(request), [decode(tagged(cohort, "c0", b"new"), Envelope).signed], 1)


def test_an_agreement_to_another_sum_is_a_fault_and_does_not_count(over: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = over
    other = changed(request, total=b"\1" + request.total[1:])
    server = ApplyServer(cohort.terms, request, tries=1)
    server.open()
    replies = [(name, agreement(cohort, other if name < "c3" else request, name)) for name in names(5)]
    with pytest.raises(RoundAborted, match="2 clients agree on the sum, 3 are needed") as aborted:
        server.advance(replies)
    assert aborted.value.faults == dict.fromkeys(("c0", "c1", "c2"), "agrees to another sum")


def test_an_apply_that_stays_short_aborts_after_its_tries(over: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = over
    server = half_way(cohort, request, tries=3)
    assert server.advance([("c0", tagged(cohort, "c0", b"new"))])
    assert server.advance([])
    with pytest.raises(RoundAborted, match="4 are needed"):
        server.advance([])


def test_what_is_no_clients_own_signed_tag_does_not_count(over: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = over
    server = half_way(cohort, request)
    other = make("ckks-unmasked", attempt=2)
    two = Envelope(decode(tagged(cohort, "c4", b"new"), Envelope).signed, (b"", b""))
    replies = [
        ("c0", tagged(cohort, "c0", b"new", signer="c1")),
        ("c1", tagged(cohort, "c0", b"new")),
        ("c2", tagged(other, "c2", b"new")),
        ("c3", encode(Refusal("behind"))),
        ("c4", encode(two)),
        ("c9", tagged(cohort, "c4", b"new")),
        ("c0", b"\x00"),
    ]
    assert set(server.advance(replies)) == set(names(5))
    assert set(server.faults) == {*names(5), "c9"}


def test_one_client_cannot_vote_twice(over: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = over
    server = half_way(cohort, request)
    votes = [("c0", tagged(cohort, "c0", b"new"))] * 3 + [("c0", tagged(cohort, "c0", b"other"))]
    assert set(server.advance([*votes, ("c1", tagged(cohort, "c1", b"new"))])) == {"c2", "c3", "c4"}


@pytest.mark.parametrize("lie", [float("nan"), -0.1, 1.1, float("inf")])
def test_an_accuracy_that_is_none_is_a_fault(over: tuple[Cohort, ApplyRequest], lie: float) -> None:
    cohort, request = over
    server = half_way(cohort, request)
    server.advance([("c0", tagged(cohort, "c0", b"new", lie))])
    assert set(server.faults) == {"c0"}


@pytest.mark.parametrize("lie", [0.0, 1.0, None])
def test_one_client_cannot_change_the_reported_accuracy(over: tuple[Cohort, ApplyRequest], lie: float | None) -> None:
    cohort, request = over
    server = half_way(cohort, request)
    server.advance((name, tagged(cohort, name, b"new", lie if name == "c0" else 0.9)) for name in names(5))
    assert server.result.accuracy == 0.9


def committed(over: tuple[Cohort, ApplyRequest], void: Mapping[ClientId, bool], tag: bytes = b"new") -> Commit:
    """What comes of it when these clients answer with one tag, and say this of the sum."""
    cohort, request = over
    server = half_way(cohort, request)
    assert server.advance((name, tagged(cohort, name, tag, void=said)) for name, said in void.items()) == {}
    return server.result


@pytest.mark.parametrize("liars", [0, 1])
def test_a_commit_is_void_when_most_of_those_who_agree_say_so(over: tuple[Cohort, ApplyRequest], liars: int) -> None:
    """The model from before is the new round's, so that who sends noise for a ciphertext costs a round and no more."""
    commit = committed(over, {name: place >= liars for place, name in enumerate(names(5))})
    assert commit.void and commit.tag == b"new" and commit.behind == ()


@pytest.mark.parametrize("liars", [0, 1, 2])
def test_a_lying_minority_cannot_make_a_commit_void(over: tuple[Cohort, ApplyRequest], liars: int) -> None:
    assert not committed(over, {name: place < liars for place, name in enumerate(names(5))}).void


def test_half_of_those_who_agree_are_not_most_of_them(over: tuple[Cohort, ApplyRequest]) -> None:
    assert not committed(over, {"c0": True, "c1": True, "c2": False, "c3": False}).void


def test_who_has_another_model_has_no_say_in_whether_the_sum_was_void(over: tuple[Cohort, ApplyRequest]) -> None:
    cohort, request = over
    for said in (True, False):
        server = half_way(cohort, request)
        server.advance([("c4", tagged(cohort, "c4", b"odd", void=not said))])
        server.advance((name, tagged(cohort, name, b"new", void=said)) for name in names(5)[:4])
        assert server.result.void == said and server.result.behind == ("c4",)


def test_a_sum_is_not_void_unless_it_is_said_to_be(over: tuple[Cohort, ApplyRequest]) -> None:
    assert not Applied(b"new", None).void
    cohort, request = over
    server = half_way(cohort, request)
    server.advance((name, tagged(cohort, name, b"new")) for name in names(5))
    assert not server.result.void


def test_a_model_tag_binds_run_round_model_and_key() -> None:
    base = model_tag(b"k" * 32, "run", 1, b"model")
    assert base == model_tag(b"k" * 32, "run", 1, b"model") and len(base) == 32
    others = {
        model_tag(b"l" * 32, "run", 1, b"model"),
        model_tag(b"k" * 32, "another", 1, b"model"),
        model_tag(b"k" * 32, "run", 2, b"model"),
        model_tag(b"k" * 32, "run", 1, b"models"),
    }
    assert len(others | {base}) == 5


def test_the_apply_request_holds_no_more_than_one_vector(sealed: tuple[Cohort, ApplyRequest]) -> None:
    """7 bytes a residue, and 250 bytes or less a client for the proof."""
    cohort, request = sealed
    assert len(encode(request)) - 7 * cohort.terms.layout.length < 5 * 2 * 300
