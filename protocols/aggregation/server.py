"""The server's side of a round: ask, fold in what verifies, go on while enough clients are left.

A crash, silence or a message that does not verify is a dropout, kept by name. Too few left raises ``RoundAborted``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.aggregation.collect import collect
from protocols.aggregation.messages import KeysRequest
from protocols.aggregation.session import Terms
from protocols.aggregation.sharing import Admit, Keys, admit_all
from protocols.aggregation.stage import Stage, Sum
from protocols.aggregation.summing import Inputs
from protocols.base import ClientId, Messages, Replies
from protocols.errors import BadDealers, Inconsistent, RoundAborted
from protocols.masking import Work
from protocols.wire import encode


@dataclass(frozen=True)
class Aggregate:
    """What a round gave. ``dropped`` maps a client to where it fell silent, ``faults`` to what was wrong with it.

    A fault that starts with "refused: " is the client's own word, with "blamed: " is what others can prove of it, with
    "disputed: " is what others say of the shares that it dealt: ``disputes`` maps dealers to those.
    """

    sum: Sum
    dropped: Mapping[ClientId, str]
    faults: Mapping[ClientId, str]
    disputes: Mapping[ClientId, frozenset[ClientId]] = field(default_factory=dict)

    @property
    def contributors(self) -> tuple[ClientId, ...]:
        return tuple(upload.sender for upload in self.sum.uploads)


class AggregationServer:
    """One attempt at one round. It holds one vector, whatever the number of clients, and no key of any client."""

    def __init__(
        self,
        terms: Terms,
        announcements: Mapping[ClientId, bytes],
        work: Work = Work(),  # noqa: B008
        admit: Admit = admit_all,
    ) -> None:
        self._announcements = dict(announcements)
        self._stage: Stage = Keys(terms, frozenset(announcements), work, admit)
        self._sum: Sum | None = None
        self.dropped: dict[ClientId, str] = {}
        self.faults: dict[ClientId, str] = {}
        self._disputes: dict[ClientId, frozenset[ClientId]] = {}

    def open(self) -> Messages:
        # Most often one object for all, which may hold a model: encoded once, and told apart without reading it.
        distinct = {id(text): text for text in self._announcements.values()}
        requests = {number: encode(KeysRequest(text)) for number, text in distinct.items()}
        return {name: requests[id(text)] for name, text in sorted(self._announcements.items())}

    def advance(self, replies: Replies) -> Messages:
        stage = self._stage
        collect(replies, stage, self.faults)
        for name in sorted(stage.asked - stage.accepted):
            self.dropped.setdefault(name, f"exchange {stage.step:d}")
        if isinstance(stage, Inputs):
            self._note_disputes(stage)
        if len(stage.accepted) < stage.needed:
            raise self._aborted(
                f"{len(stage.accepted)} clients are left after exchange {stage.step:d}, {stage.needed} are needed"
            )
        return self._next(stage)

    @property
    def result(self) -> Aggregate:
        if self._sum is None:
            raise RuntimeError("the round is not over: drive the session to its end first")
        return Aggregate(self._sum, self.dropped, self.faults, self._disputes)

    def _next(self, stage: Stage) -> Messages:
        try:
            following = stage.finish()
        except BadDealers as error:
            self.faults |= {name: f"blamed: {why}" for name, why in error.blamed.items()}
            raise self._aborted(str(error)) from error
        except Inconsistent as error:
            raise self._aborted(str(error)) from error
        if isinstance(following, Sum):
            self._sum = following
            return {}
        self._stage, requests = following
        return requests

    def _note_disputes(self, stage: Inputs) -> None:
        self._disputes = {dealer: frozenset(complainers) for dealer, complainers in stage.disputes.items()}
        for dealer, complainers in stage.disputes.items():
            self.faults.setdefault(dealer, f"disputed: {', '.join(sorted(complainers))[:80]} cannot open its shares")
        self.faults |= {name: f"blamed: {why}" for name, why in stage.blamed.items()}

    def _aborted(self, message: str) -> RoundAborted:
        return RoundAborted(message, self.faults, self.dropped, self._disputes)
