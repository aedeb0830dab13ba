"""The loop of a federation: initialise, distribute, train locally, send updates, aggregate, repeat.

Each completed round is yielded as a record; the caller's loop is the callback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from protocols.aggregation.disputes import suspects
from securefl.account import ATTEMPTS
from securefl.client import Client
from securefl.engines.local import Corruption, Silence
from securefl.errors import RoundFailed
from securefl.outcome import Outcome
from securefl.parties import Parties
from securefl.plan import Plan
from securefl.progress import PRESENCE, Stage
from securefl.records import RoundRecord
from securefl.server import Server
from securefl.together import Together
from securefl.transcript import Transcript


def federate(
    server: Server,
    clients: Sequence[Client],
    rounds: int | None = None,
    *,
    faults: Sequence[Silence | Corruption] = (),
    transcript: Transcript | None = None,
) -> Iterator[RoundRecord]:
    """Run rounds with clients in this process until ``rounds`` (None: the plan's) are committed, counting those that
    the server's store has. ``faults`` are made on purpose, to see what the others do then.

    Raises ``BadInput`` before the first round for a plan that could fail later, ``RoundFailed`` when too few clients
    were left in every attempt at a round, and ``BudgetExceeded`` when that is because owners' budgets are spent.
    """
    together = Together(clients, faults)
    together.enrol(server)
    yield from conduct(server, together, rounds, transcript or Transcript())


def enrol(server: Server, clients: Sequence[Client]) -> None:
    """Make the roster of the clients' own keys and have everyone pin it (:meth:`securefl.together.Together.enrol`)."""
    Together(clients).enrol(server)


def conduct(
    server: Server,
    parties: Parties,
    rounds: int | None,
    transcript: Transcript,
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[RoundRecord]:
    """The same on any engine, with clients that are enrolled; ``enough`` is asked before each round."""
    server.set_up(transcript.recording(parties.exchange(0), 0))
    left_out = LeftOut()
    while server.round_number < (server.plan.last if rounds is None else rounds) and not enough():
        yield one_round(server, parties, transcript, left_out)
    server.finish(transcript.recording(parties.exchange(server.round_number), server.round_number))


def one_round(server: Server, parties: Parties, transcript: Transcript, left_out: LeftOut) -> RoundRecord:
    """The next round of a server; who is named in it joins ``left_out``. Raises as :func:`federate` does."""
    started = time.perf_counter()
    transcript.count_anew()
    number = server.round_number + 1
    outcome = _attempt(server, parties, transcript, number, left_out)
    return _record(outcome, server, parties, transcript, time.perf_counter() - started)


def last_record(server: Server, parties: Parties, transcript: Transcript) -> RoundRecord | None:
    """That of the last committed round, where a crash kept it from being written down; None before the first.

    ``transcript`` has counted what crossed in that round. Its ``seconds`` are those of the attempt that succeeded.
    """
    done = server.last
    return None if done is None else _record(done, server, parties, transcript, done.seconds)


@dataclass
class LeftOut:
    """Who is not asked again in a run: who deals bad shares, or lies about others', as many as rounds can do without.

    Either would cost an attempt, or its victims their part, in every round. Disputes add up over the run: a pair of
    liars has one honest dealer left out, and is itself in as many disputes as the next one.
    """

    faults: dict[str, str] = field(default_factory=dict)
    disputes: dict[str, set[str]] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def learn(self, plan: Plan, faults: Mapping[str, str], disputes: Mapping[str, Collection[str]]) -> None:
        """Take in what became known in one attempt. Who is proven to be at fault goes first."""
        for dealer, complainers in disputes.items():
            self.disputes.setdefault(dealer, set()).update(complainers)
        suspected = suspects(self.disputes)
        for name, why in faults.items():
            if why.startswith("blamed: ") or name in suspected:
                self.faults.setdefault(name, f"left out: {why}")
        blamed = [name for name, why in self.faults.items() if why.startswith("left out: blamed: ")]
        wanted = dict.fromkeys((*sorted(blamed), *self.names, *sorted(suspected)))
        self.names = tuple(wanted)[: max(0, len(plan.clients) - plan.minimum)]

    def reasons(self) -> dict[str, str]:
        """Who is left out, and why."""
        return {name: self.faults.get(name, "left out: in dispute about shares") for name in self.names}


def _attempt(server: Server, parties: Parties, transcript: Transcript, number: int, left_out: LeftOut) -> Outcome:
    """The round, tried again without those who refused; who is named or suspected joins ``left_out``, for the run."""
    plan = server.plan
    refused: set[str] = set()
    for tries_left in reversed(range(ATTEMPTS)):
        transcript.watcher.stage(Stage(number, PRESENCE, len(plan.clients), 0))
        known = left_out.reasons() | _absent(plan, parties)
        try:
            outcome = server.round(transcript.recording(parties.exchange(number), number), refused.union(known))
        except RoundFailed as failure:
            refused |= {name for name, why in failure.lost.items() if _will_refuse_again(why)}
            left_out.learn(plan, failure.lost, failure.disputes)
            if tries_left == 0 or len(plan.clients) - len(refused.union(left_out.reasons())) < plan.minimum:
                parties.refuse(plan, failure.lost)
                raise
        else:
            left_out.learn(plan, outcome.dropped, outcome.disputes)
            return replace(outcome, dropped={**known, **outcome.dropped})
    raise AssertionError("every attempt returns or raises")


def _absent(plan: Plan, parties: Parties) -> dict[str, str]:
    """Who cannot be asked now. Raises ``RoundFailed``, before an attempt is spent, where too few are left."""
    present = parties.present(plan)
    absent = {name: "not reached" for name in plan.clients if name not in present}
    if len(present) < plan.minimum:
        raise RoundFailed(
            f"{len(present)} clients were reached, {plan.minimum} are needed. Lost: {', '.join(sorted(absent))}. "
            "The model is unchanged.",
            absent,
        )
    return absent


def _will_refuse_again(why: str) -> bool:
    """Who refused will do so again. Who was silent, garbled, behind or restarted may be back."""
    return why.startswith("refused: ") and why not in ("refused: behind", "refused: spent")


def _record(outcome: Outcome, server: Server, parties: Parties, transcript: Transcript, seconds: float) -> RoundRecord:
    measured = server.measured
    if measured is None and server.plan.privacy.held_out is not None:  # only clients can read it
        measured = parties.measured(server.run, server.round_number)
    return RoundRecord(
        round=outcome.round,
        attempt=outcome.attempt,
        contributors=outcome.contributors,
        dropped=dict(sorted(outcome.dropped.items())),
        recovered=outcome.recovered,
        accuracy=outcome.accuracy,
        epsilon=parties.epsilon(server),
        upload_bytes=dict(sorted(transcript.up.items())),
        download_bytes=dict(sorted(transcript.down.items())),
        seconds=seconds,
        void=outcome.void,
        held_out=measured,
    )
