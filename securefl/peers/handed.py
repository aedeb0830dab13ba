"""A sum that an acting peer handed down before it died: the next one hands out the same again, byte for byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from protocols.aggregation.apply import verified_sum
from protocols.aggregation.marks import marked
from protocols.aggregation.messages import ApplyRequest
from protocols.errors import Inconsistent
from protocols.primitives import digest
from protocols.wire import decode
from securefl.announcement import terms
from securefl.checkpoint import State
from securefl.outcome import Outcome
from securefl.peers.baton import Standing
from securefl.peers.circle import Circle
from securefl.peers.messages import Handed
from securefl.peers.turns import turn_of


def name_of(handed: Handed | None) -> bytes:
    """By which peers say which sum they were handed; empty for none."""
    return b"" if handed is None else digest("handed", handed.request)


def in_order(named: Mapping[str, bytes]) -> Iterator[tuple[bytes, str]]:
    """What peers say that they were handed, with one of them to ask: what most of them say comes first."""
    counted = Counter(name for name in named.values() if name)
    for name, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
        yield from ((name, peer) for peer in sorted(named) if named[peer] == name)


def resumed(circle: Circle, standing: Standing, turn: int, handed: Handed) -> State:
    """The server's state with this sum pending. Raises ``ProtocolError`` or ``ConfigurationError`` for what is none.

    The sum's own bytes nobody signed: whoever hands it on could change it, like the server that formed it. Whose it is
    and that so many agreed to it, is signed.
    """
    request, began, number = decode(handed.request, ApplyRequest), handed.began, standing.round + 1
    if (request.run, request.round) != (circle.run, number) or turn_of(request.attempt) > turn:
        raise Inconsistent("a sum of another run, round or turn")
    agreed = terms(circle.plan, circle.roster, circle.run, number, request.attempt, began.tag, began.key_id)
    _, uploads = verified_sum(agreed, request)
    contributors = tuple(upload.sender for upload in uploads)
    before = standing.state
    same_key = began.key_id == before.key_id
    return replace(
        before,
        attempt=request.attempt,
        tag=began.tag,
        key_id=began.key_id,
        evidence=began.evidence or before.evidence,
        key_round=before.key_round if same_key else standing.round,
        pending=request,
        counts=before.counts | {name: before.counts.get(name, 0) + 1 for name in contributors},
        outcome=_outcome(circle, request, contributors),
    )


def _outcome(circle: Circle, request: ApplyRequest, contributors: tuple[str, ...]) -> Outcome:
    shared = marked(request.cohort, request.shared)
    missing = {name: "not in the sum" for name in circle.plan.clients if name not in contributors}
    recovered = tuple(name for name in shared if name not in contributors)
    return Outcome(request.round, request.attempt, contributors, recovered, missing, None, {}, 0.0)
