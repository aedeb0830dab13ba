"""What shares a client takes in exchange 2, and what becomes of those who deal and open other ones."""

from __future__ import annotations

import msgspec
import pytest

from protocols import shamir
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    Envelope,
    Extract,
    InputRequest,
    Opened,
    SharePair,
    Signed,
    UnmaskRequest,
    envelope,
)
from protocols.aggregation.session import Step
from protocols.aggregation.states import Cohort, Consenting, Masked
from protocols.base import ClientId
from protocols.errors import Forged, Inconsistent, MalformedMessage, RoundAborted, SessionSpent
from protocols.primitives import AgreementKey
from protocols.wire import decode, encode
from tests.protocols.cohort import (
    MASKED,
    Wire,
    clean_run,
    identity,
    make,
    names,
    roster,
    shares_request,
    taken_out,
)


@pytest.fixture
def wire() -> Wire:
    """A whole secagg round of five (t = 4), with every client as it was before each exchange."""
    return clean_run(make("secagg"))


def dealt_to(wire: Wire) -> list[Extract]:
    """What c0, c2, c3 and c4 dealt to c1."""
    return list(decode(wire.requests[Step.INPUT, "c1"], InputRequest).dealt)


EVERYONE = mark(names(5), names(5))


@pytest.mark.parametrize("shared", [("c0", "c1", "c2", "c3"), ("c0", "c1", "c3", "c4"), names(5)])
def test_missing_shares_above_the_threshold_are_dropouts(wire: Wire, shared: tuple[str, ...]) -> None:
    given = [each for peer, each in zip(("c0", "c2", "c3", "c4"), dealt_to(wire), strict=True) if peer in shared]
    answer = decode(
        wire.client(Step.INPUT).handle(encode(InputRequest(mark(names(5), shared), tuple(given)))), Envelope
    )
    answer.open(roster(5), make("secagg").terms.session, Step.INPUT, "c1")


@pytest.mark.parametrize("shared", [("c0", "c1", "c2"), ("c1",), (), ("c0", "c2", "c3", "c4")])
def test_missing_shares_below_the_threshold_or_its_own_are_refused(wire: Wire, shared: tuple[str, ...]) -> None:
    given = [each for peer, each in zip(("c0", "c2", "c3", "c4"), dealt_to(wire), strict=True) if peer in shared]
    with pytest.raises(Inconsistent, match="needed"):
        wire.client(Step.INPUT).handle(encode(InputRequest(mark(names(5), shared), tuple(given))))


@pytest.mark.parametrize("shared", [b"", b"\x1f\x00", b"\x3f", b"\x9f"])
def test_marks_of_who_shared_that_fit_no_key_list_are_refused(wire: Wire, shared: bytes) -> None:
    """Of another length, or of a sixth and an eighth of five."""
    assert decode(wire.requests[Step.INPUT, "c1"], InputRequest).shared == EVERYONE == b"\x1f"
    with pytest.raises(MalformedMessage, match="mark"):
        wire.client(Step.INPUT).handle(encode(InputRequest(shared, tuple(dealt_to(wire)))))


def misplaced_shares(wire: Wire) -> dict[str, tuple[list[Extract], type[Exception]]]:
    dealt = dealt_to(wire)
    first, rest = dealt[0], dealt[1:]
    others = decode(wire.requests[Step.INPUT, "c2"], InputRequest).dealt  # what c0 dealt to c2
    own = taken_out(wire.reply(Step.SHARES, "c1"), 1)
    return {
        "one dealer twice": ([first, *dealt], Inconsistent),
        "one dealer in place of another": ([first, first, *dealt[2:]], Inconsistent),
        "one dealer less than marked": (rest, Inconsistent),
        "none": ([], Inconsistent),
        "out of order": (dealt[::-1], Inconsistent),
        "another's part": ([others[0], *rest], Inconsistent),
        "another's part as its own": ([msgspec.structs.replace(others[0], index=first.index), *rest], Forged),
        "another dealer's part": ([msgspec.structs.replace(first, part=dealt[1].part), *rest], Forged),
        "a part that was made up": ([msgspec.structs.replace(first, part=b"made up"), *rest], Forged),
        "a part cut short": ([msgspec.structs.replace(first, part=first.part[:-1]), *rest], Forged),
        "the commitment to the seed": ([taken_out(wire.reply(Step.SHARES, "c0"), 0), *rest], Inconsistent),
        "what it dealt itself too": ([own, *dealt], Inconsistent),
        "what it dealt itself": ([own, *rest], Inconsistent),
    }


@pytest.fixture(scope="module")
def finished() -> Wire:
    return clean_run(make("secagg"))


@pytest.mark.parametrize("case", misplaced_shares(clean_run(make("secagg"))))
def test_shares_that_come_twice_or_are_for_another_are_refused(finished: Wire, case: str) -> None:
    """Refused, not complained about: no dealer can be blamed for what a server did."""
    given, error = misplaced_shares(finished)[case]
    with pytest.raises(error):
        finished.client(Step.INPUT).handle(encode(InputRequest(EVERYONE, tuple(given))))


def spoiled_proofs(wire: Wire, given: Extract) -> dict[str, tuple[Extract, type[Exception]]]:
    """The same part of c0's for c1 with a proof of something else."""
    first, second = dealt_to(wire)[:2]

    def changed(**fields: object) -> Extract:
        return msgspec.structs.replace(given, **fields)

    return {
        "unsigned": (changed(signed=Signed(given.signed.header, bytes(64))), Forged),
        "with another signature of its dealer": (changed(signed=Signed(given.signed.header, b"\7" * 64)), Forged),
        "of another dealer": (changed(signed=second.signed), Forged),
        "of another exchange": (changed(signed=wire.reply(Step.KEYS, "c0").signed), Inconsistent),
        "of another place": (changed(index=first.index + 1), Forged),
        "of a negative place": (changed(index=-1), MalformedMessage),
        "of a body with a part more": (changed(parts=first.parts + 1), Inconsistent),
        "of a body that is too small for it": (changed(parts=1), MalformedMessage),
        "by nothing": (changed(path=b""), MalformedMessage),
        "of something else": (changed(path=second.path), Forged),
        "that is too long": (changed(path=given.path + bytes(32)), MalformedMessage),
        "that is cut short": (changed(path=given.path[:-1]), MalformedMessage),
    }


def no_share(wire: Wire) -> Extract:
    """What c0 could sign and deal to c1 that does not open."""
    parts = list(wire.reply(Step.SHARES, "c0").parts)
    return taken_out(
        envelope(
            identity("c0"), wire.reply(Step.SHARES, "c0").signed.authenticate(roster(5)), [parts[0], b"", *parts[2:]]
        ),
        1,
    )


PROOFS = list(spoiled_proofs(clean_run(make("secagg")), Extract(Signed(b"", b""), b"", 1, 5, b"")))


@pytest.mark.parametrize("case", PROOFS)
def test_a_share_that_does_not_open_is_complained_about_only_with_proof_that_its_dealer_signed_it(
    finished: Wire, case: str
) -> None:
    """Or a server could have an honest dealer blamed."""
    bad, rest = no_share(finished), dealt_to(finished)[1:]
    answer = decode(finished.client(Step.INPUT).handle(encode(InputRequest(EVERYONE, (bad, *rest)))), Envelope)
    assert answer.signed.says(Step.COMPLAINT)
    given, error = spoiled_proofs(finished, bad)[case]
    victim = finished.client(Step.INPUT)
    with pytest.raises(error):
        victim.handle(encode(InputRequest(EVERYONE, (given, *rest))))
    with pytest.raises(SessionSpent):
        victim.handle(finished.requests[Step.INPUT, "c1"])


@pytest.mark.parametrize("case", PROOFS)
def test_a_share_that_opens_needs_no_proof(finished: Wire, case: str) -> None:
    """Only its dealer and its receiver can make the key that it is sealed with, which names key list and session."""
    first, *rest = dealt_to(finished)
    given, _ = spoiled_proofs(finished, first)[case]
    victim = finished.client(Step.INPUT)
    answer = decode(victim.handle(encode(InputRequest(EVERYONE, (given, *rest)))), Envelope)
    answer.open(roster(5), make("secagg").terms.session, Step.INPUT, "c1")
    honest = finished.before[Step.CONSISTENCY, "c1"]._state
    assert isinstance(victim._state, Masked) and isinstance(honest, Masked)
    assert victim._state.held == honest.held


def test_shares_dealt_to_another_key_list_are_refused(finished: Wire) -> None:
    """Rightly signed by c0 in this session, which only a server that shows two key lists can get from it."""
    victim = finished.client(Step.SHARES, "c0")
    elsewhere = decode(victim.handle(encode(shares_request(finished.key_list()[:4], "c0"))), Envelope)
    padded = envelope(identity("c0"), elsewhere.signed.authenticate(roster(5)), [*elsewhere.parts, b""])
    for other, error in ((elsewhere, Inconsistent), (padded, Inconsistent)):
        with pytest.raises(error, match="this key list"):
            finished.client(Step.INPUT).handle(
                encode(InputRequest(EVERYONE, (taken_out(other, 1), *dealt_to(finished)[1:])))
            )


class WrongShares(AggregationClient):
    """Deals shares of its self seed and mask key that lie on polynomials of other secrets, rightly committed to."""

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        points = self._terms.roster.points
        holders = [points[name] for name in cohort.graph.holders(self._name)]
        wrong = shamir.split(bytes([7]) * 32, cohort.graph.threshold, holders, lambda count: bytes([9]) * count)
        return super()._deal(key, cohort, receiver, SharePair(wrong[points[receiver]], wrong[points[receiver]]))


class ShortShares(AggregationClient):
    """Deals shares that are no field elements, rightly committed to."""

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        return super()._deal(key, cohort, receiver, SharePair(b"short", b"\xff" * 33))


class WrongOpening(AggregationClient):
    """Opens another share of c0 than it was dealt."""

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[object, Envelope]:  # type: ignore[override]
        spent, honest = super()._unmask(state, request)
        opened = msgspec.msgpack.decode(honest.parts[0], type=Opened).shares
        body = Opened((bytes(33), *opened[1:]))
        return spent, self._envelope(Step.UNMASK, state.members, [msgspec.msgpack.encode(body)])


@pytest.mark.parametrize("dishonest", [WrongShares, ShortShares])
@pytest.mark.parametrize("silent", [{}, {"c2": int(Step.INPUT)}])
@pytest.mark.parametrize("cell", MASKED)
def test_a_dealer_of_bad_shares_aborts_the_attempt_and_is_named(
    cell: str, dishonest: type[AggregationClient], silent: dict[str, int]
) -> None:
    """Both secrets: its self seed where it survives, its mask key where it drops out."""
    cohort = make(cell, types={"c2": dishonest})
    with pytest.raises(RoundAborted) as aborted:
        cohort.run(Wire(cohort.clients, silent))
    assert set(aborted.value.faults) == {"c2"}
    assert "c2" in str(aborted.value)


@pytest.mark.parametrize("cell", MASKED)
def test_who_opens_a_share_that_it_was_not_dealt_is_named_and_not_needed(cell: str) -> None:
    cohort = make(cell, types={"c3": WrongOpening})
    aggregate = cohort.run(Wire(cohort.clients))
    assert set(aggregate.faults) == {"c3"} and "c0" in aggregate.faults["c3"]
    assert cohort.is_right(aggregate)
