"""A peer in its turn: it gets the turn from a quorum, runs the round as its server, and passes on what came of it.

What it needs it learns when it asks for the turn: who is further on, who is behind, what a quorum has voted for
already, and which sum was handed down by somebody who died over it.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from protocols.aggregation.messages import SHORT_REPLY
from protocols.base import Exchange
from protocols.errors import ConfigurationError, ProtocolError
from securefl import protection
from securefl.errors import RoundFailed
from securefl.parties import Parties
from securefl.peers import baton as batons
from securefl.peers import handed
from securefl.peers.asking import ask
from securefl.peers.baton import Baton, name_of
from securefl.peers.evidence import Evidence
from securefl.peers.gathering import Given, bring_all_up, bring_up, complete, given
from securefl.peers.messages import Fetched, FetchRequest, Passed, Sum, SumRequest
from securefl.peers.peer import Peer
from securefl.peers.reached import Reached
from securefl.peers.settling import settle
from securefl.peers.turns import attempts_before
from securefl.progress import Watcher
from securefl.records import RoundRecord
from securefl.round import LeftOut, one_round
from securefl.transcript import Crossing, Transcript

_LONGEST_REASON: Final = 200  # characters of why somebody dropped out


class Acting:
    """One peer's turns, for as long as its process lives. ``reach``: an exchange with all peers, itself included;
    ``soon``: the same, over in a small part of a turn's time; ``beside``: what else the engine lets it see of them.
    """

    def __init__(
        self,
        peer: Peer,
        reach: Exchange,
        beside: Parties,
        watcher: Watcher = Watcher(),  # noqa: B008
        soon: Exchange | None = None,
    ) -> None:
        self._peer = peer
        self._reach = reach
        self._soon = soon or reach
        self._beside = beside
        self._watcher = watcher
        self._left_out = LeftOut()  # what this peer has seen itself: on another's word nobody is left out

    def take_turn(self, turn: int, least: int = 0) -> RoundRecord:
        """Act in the next round, until it is settled; ``least``: fewest peers who must give the turn, beyond a quorum.

        Raises ``Overtaken`` where it is settled already, and ``RoundFailed`` where too few gave the turn, took part or
        voted: then it is somebody else's turn.
        """
        peer = self._peer
        complete(peer, self._reach)  # first: as long as it has no turn, it keeps nobody waiting
        found, passed = self._bound(given(peer, self._reach, self._soon, turn, least))
        passed = passed or self._passed_before(turn) or self._made(turn, found)
        settle(peer, self._reach, turn, found, passed)
        for name, theirs in found.behind.items():
            bring_up(peer, self._reach, name, theirs)
        return batons.decoded(passed.baton).record

    def finish(self) -> None:
        """After the last round: bring who is behind up to date, and keep the model, sealed by a client, if it is."""
        peer = self._peer
        complete(peer, self._reach)
        bring_all_up(peer, self._reach)
        recording = Transcript(watcher=self._watcher).recording(self._reach, peer.round)
        peer.server.finish(recording)

    # ---- what is passed on

    def _bound(self, found: Given) -> tuple[Given, Passed | None]:
        """What a quorum voted for, with the grants that say so; None where there is nothing that binds this peer.

        A lock whose baton nobody hands over is let go of, with the grants that name it, if a quorum is left. No baton
        is lost by that: of one that is settled, an honest peer that locked it is in every quorum, and names it.
        """
        while found.votes is not None:
            passed = self._shown(found.votes.digest, found)
            if passed is not None:
                return found, passed
            left = found.without(found.locked)
            if len(left.grants) < self._peer.circle.quorum:
                number = self._peer.round + 1
                raise RoundFailed(f"nobody who was reached hands over what was voted for in round {number}")
            found = left
        return found, None

    def _shown(self, wanted: bytes, found: Given) -> Passed | None:
        """The baton of this name. All are asked at once: a quorum voted for it, and hears that this peer is at work."""
        own = self._peer.memory.shown(wanted)
        if own is not None:
            return own
        question = FetchRequest(self._peer.circle.run, self._peer.round + 1, wanted)
        answers = ask(self._reach, list(found.grants), question, Fetched).values()
        shown = (answer.passed for answer in answers if answer.passed is not None)
        return next((passed for passed in shown if name_of(passed.baton) == wanted), None)

    def _passed_before(self, turn: int) -> Passed | None:
        """The baton that this peer passed at this very turn before it stopped."""
        candidate = self._peer.memory.next.candidate
        return candidate.passed if candidate is not None and candidate.turn == turn else None

    def _made(self, turn: int, found: Given) -> Passed:
        """A new baton: the round, run by this peer's own server."""
        peer, server = self._peer, self._peer.server
        self._begin(turn, found)
        evidence = self._evidence()
        pending = server.state.pending
        crossings: list[Crossing] = []
        parties = Reached(self._beside, evidence.watching(self._reach), found.grants)
        start = evidence.starting()
        record = one_round(server, parties, Transcript(crossings.append, self._watcher), self._left_out)
        record = replace(record, dropped={name: _printable(why) for name, why in record.dropped.items()})
        baton = Baton(
            maker=peer.name,
            turn=turn,
            before=peer.memory.standing.digest,
            start=start if pending is not None or evidence.start is None else evidence.start,
            state=replace(server.state, model=b"", attempt=0, outcome=batons.outcome_of(record)),
            inputs=pending.inputs if pending is not None else evidence.inputs(record.contributors),
            shown=tuple(evidence.shown.values()),
            record=record,
            crossings=tuple(crossings),
        )
        return peer.sign(baton, server.state.model)

    def _begin(self, turn: int, found: Given) -> None:
        """Have the server go on from what is settled, and from a sum that was handed down already."""
        peer, standing = self._peer, self._peer.memory.standing
        if protection.protection_of(peer.circle.plan).sealed:
            asked = SumRequest(peer.circle.run, standing.round + 1)
            # All at once, if it is large: they hear that this peer is at work.
            sums = ask(self._reach, [name for name, named in found.handed.items() if named], asked, Sum)
            for named, name in handed.in_order(found.handed):
                answer = sums.get(name)
                if answer is None or answer.handed is None or handed.name_of(answer.handed) != named:
                    continue
                try:
                    peer.server.adopt(handed.resumed(peer.circle, standing, turn, answer.handed))
                    return
                except (ProtocolError, ConfigurationError):
                    continue
        # Of this very turn, begun before this peer stopped: an attempt is never used twice.
        used = peer.server.state.attempt if peer.server.state.round >= standing.round else 0
        peer.server.adopt(replace(standing.state, attempt=max(attempts_before(turn), used)))

    def _evidence(self) -> Evidence:
        peer = self._peer
        layout = protection.layout(peer.circle.plan)
        longest = SHORT_REPLY + layout.length * layout.ring.item_bytes
        return Evidence(peer.circle, longest, lambda: peer.server.state)


def _printable(why: str) -> str:
    """In a form that others accept and a person can read."""
    return "".join(sign if sign.isprintable() else "?" for sign in why)[:_LONGEST_REASON]
