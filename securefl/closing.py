"""The end of a run: every client states its own side and signs it, then signs the report that is made of all sides.

Both are asked for by the server and neither needs it to be honest: a client signs its own words, and a report only if
that holds them unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, TypeVar

import msgspec

from protocols.aggregation.messages import RunName
from protocols.base import Exchange
from protocols.errors import Forged, ProtocolError
from protocols.wire import Message, decode, encode
from securefl.errors import NotARun
from securefl.report.canonical import canonical, read
from securefl.report.document import Endorsement, Report
from securefl.report.endorsements import check_endorsement
from securefl.report.statement import SignedStatement, opened

_Json = Annotated[bytes, msgspec.Meta(max_length=1 << 24)]
M = TypeVar("M", bound=Message)


class StateRequest(Message, frozen=True):
    """Asks for a client's signed statement on a run that it took part in."""

    KIND: ClassVar[int] = 14
    run: RunName


class Stated(Message, frozen=True):
    """A signed statement in canonical JSON."""

    KIND: ClassVar[int] = 34
    statement: _Json


class EndorseRequest(Message, frozen=True):
    """Asks for a client's signature under a report, in canonical JSON, that holds its statement."""

    KIND: ClassVar[int] = 15
    run: RunName
    report: _Json


class Endorsed(Message, frozen=True):
    """An endorsement in canonical JSON."""

    KIND: ClassVar[int] = 35
    endorsement: _Json


def statements(run: str, roster: Mapping[str, bytes], exchange: Exchange) -> tuple[SignedStatement, ...]:
    """What the roster's clients state, by name; who is silent or says what it cannot have signed is left out."""
    request = encode(StateRequest(run))
    found: dict[str, SignedStatement] = {}
    for client, reply in _answers(exchange, dict.fromkeys(sorted(roster), request), Stated):
        try:
            signed = read(reply.statement, SignedStatement, f"the statement of {client}")
            statement = opened(signed)
        except (NotARun, Forged):
            continue
        if (statement.run, statement.client, signed.key) == (run, client, roster[client].hex()):
            found[client] = signed
    return tuple(found[client] for client in sorted(found))


def endorsements(
    report: Report, run: str, roster: Mapping[str, bytes], exchange: Exchange, contributors: Iterable[str]
) -> tuple[Endorsement, ...]:
    """The signatures under a report of the contributors whose statements it holds."""
    stated = {signed.statement.client for signed in report.statements}
    request = encode(EndorseRequest(run, canonical(report)))
    found: dict[str, Endorsement] = {}
    asked = sorted(stated.intersection(contributors))
    for client, reply in _answers(exchange, dict.fromkeys(asked, request), Endorsed):
        try:
            signed = read(reply.endorsement, Endorsement, f"the signature of {client}")
            check_endorsement(report, signed)
        except (NotARun, Forged):
            continue
        if (signed.client, signed.key) == (client, roster[client].hex()):
            found[client] = signed
    return tuple(found[client] for client in sorted(found))


def _answers(exchange: Exchange, requests: Mapping[str, bytes], kind: type[M]) -> Iterator[tuple[str, M]]:
    """Each asked client's first answer, where it is well-formed."""
    waiting = set(requests)
    for client, data in exchange(requests) if requests else ():
        if client not in waiting:
            continue
        waiting.remove(client)
        try:
            yield client, decode(data, kind)
        except ProtocolError:
            continue
