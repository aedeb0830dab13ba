"""What the server does where it cannot read the model: relay keys and models between clients, hand sums down.

It decides who is asked and counts equal words; nothing in it opens anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from protocols.aggregation.apply import ApplyServer, Commit
from protocols.aggregation.messages import ApplyRequest, Envelope
from protocols.aggregation.session import Roster, Step, Terms
from protocols.base import Exchange, drive
from protocols.errors import MalformedMessage, RoundAborted
from securefl import protection
from securefl.announcement import Announcement, KeyReceived
from securefl.checkpoint import Kept
from securefl.deliveries import deliver_model, new_key, share_key
from securefl.errors import RoundFailed
from securefl.outcome import Outcome


class Relay:
    """One run's. ``announce`` gives what is announced of a round as things stand."""

    def __init__(self, kept: Kept, roster: Roster, announce: Callable[[int], Announcement]) -> None:
        self._kept = kept
        self._roster = roster
        self._announce = announce

    def prepare(self, exchange: Exchange) -> None:
        """Before a round: bring who is behind up to date, and have the key made where there is none, replaced where it
        has decrypted as many sums as it may, or made anew where hardly anybody has it any more.
        """
        self.catch_up(exchange)  # first: only who has the model can sign for it under a new key
        state, plan = self._kept.state, self._announced.plan
        used_up = state.round - state.key_round >= plan.key_rounds
        lost = len(plan.clients) - len(state.behind) < self._enough
        if not state.key_id or used_up or lost:
            self._new_key(exchange)
            self.catch_up(exchange)

    def _new_key(self, exchange: Exchange) -> None:
        """It binds once enough clients signed the current model's tag under it; until then they keep the one before."""
        state, plan = self._kept.state, self._announced.plan
        try:
            delivered = new_key(self._announced, self._roster, self._enough, exchange)
        except RoundAborted as error:
            raise failed(error) from error
        words = {name: _word(reply) for name, reply in delivered.replies.items()}
        current = [word for word in words.values() if word is not None and word.round == state.round]
        word, count = Counter(current).most_common(1)[0] if current else (None, 0)
        if word is None or count < self._enough:
            older = {name for name, said in words.items() if said is None or said.round != state.round}
            self._kept.save(behind=tuple(sorted({*state.behind, *older})))  # to be caught up before the next try
            found = f"{delivered.joined} clients joined and {count} hold one CKKS key and the model"
            lost = named(delivered.faults)
            raise RoundFailed(f"{found}, {self._enough} are needed: {lost}. The run goes on when more are back.")
        agreed = tuple(reply for name, reply in delivered.replies.items() if words[name] == word)
        behind = tuple(name for name in plan.clients if words.get(name) != word)
        self._kept.save(key_id=word.key_id, tag=word.tag, key_round=state.round, evidence=agreed, behind=behind)

    def catch_up(self, exchange: Exchange) -> None:
        """Have key and model handed to those who lack them, by one who has them; who is silent is asked next time."""
        state = self._kept.state
        if not state.behind or not state.key_id:
            return
        shared = share_key(self._announced, self._roster, self._holders, state.behind, exchange)
        current = KeyReceived(state.key_id, state.round, state.tag).encoded()
        there = {name for name, reply in shared.replies.items() if reply.parts[0] == current}
        lacking = tuple(name for name in shared.replies if name not in there)
        if lacking:
            there.update(self._hand_model(lacking, exchange))
        self._kept.save(behind=tuple(name for name in state.behind if name not in there))

    def hand_out(self, agreed: Terms, request: ApplyRequest, formed: Outcome, exchange: Exchange) -> Outcome:
        """Hand a sum down, until enough clients have signed one tag. Raises ``RoundFailed``; the sum is then kept."""
        try:
            commit = drive(ApplyServer(agreed, request), exchange)
        except RoundAborted as error:
            self.note_behind(error.faults)
            waiting = f"The sum of round {request.round} is kept and handed out again when more clients are back."
            raise failed(error, waiting) from error
        done = _applied(formed, commit)
        self._kept.save(
            round=request.round,
            tag=commit.tag,
            evidence=commit.evidence,
            behind=commit.behind,
            pending=None,
            outcome=done,
        )
        return done

    def note_behind(self, faults: Mapping[str, str]) -> None:
        """Remember who said that it lacks the key or the model."""
        missed = {name for name, why in faults.items() if why == "refused: behind"}
        if missed:
            self._kept.save(behind=tuple(sorted({*self._kept.state.behind, *missed})))

    def seal(self, exchange: Exchange) -> None:
        """Have the current model sealed, and keep that. Two who have the model try whether it opens: nobody else could
        tell before it is needed.
        """
        if self._kept.sealed is None:
            self._hand_model(self._holders[-2:], exchange)

    def _hand_model(self, behind: Sequence[str], exchange: Exchange) -> tuple[str, ...]:
        kept, evidence = self._kept.sealed, self._kept.state.evidence
        caught = deliver_model(self._announced, self._roster, evidence, self._holders, behind, kept, exchange)
        if caught.checkpoint is not None and caught.checkpoint is not kept:
            self._kept.save_sealed(caught.checkpoint)
        return caught.holders

    @property
    def _announced(self) -> Announcement:
        return self._announce(self._kept.state.round)

    @property
    def _enough(self) -> int:
        plan = self._announced.plan
        return max(plan.minimum, protection.binding(plan))

    @property
    def _holders(self) -> list[str]:
        """Who signed that it has the current model; at each attempt another one comes first, if some do not help."""
        state = self._kept.state
        signed = (reply.signed.authenticate(self._roster).sender for reply in state.evidence)
        names = [name for name in signed if name not in state.behind]
        first = state.attempt % max(1, len(names))
        return names[first:] + names[:first]


def _applied(formed: Outcome, commit: Commit) -> Outcome:
    late = {name: f"exchange {Step.APPLY:d}" for name in commit.behind}
    dropped = {**late, **commit.faults, **formed.dropped}
    return replace(formed, accuracy=commit.accuracy, dropped=dropped, void=commit.void)


def _word(reply: Envelope) -> KeyReceived | None:
    """What a client said of its key; None for what is no word."""
    try:
        return KeyReceived.decoded(reply.parts[0])
    except MalformedMessage:
        return None


def failed(error: RoundAborted, then: str = "The model is unchanged.") -> RoundFailed:
    """The error for whoever runs the server: who was lost, and what becomes of the round."""
    lost = {**error.dropped, **error.faults}
    return RoundFailed(f"{error}. Lost: {named(lost)}. {then}", lost, error.disputes)


def named(faults: Mapping[str, str]) -> str:
    """Names and reasons in one line."""
    return "; ".join(f"{name} ({why})" for name, why in sorted(faults.items())) or "nobody"
