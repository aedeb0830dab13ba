"""The loop of a federation: initialise, distribute, train locally, send updates, aggregate, repeat.

Each completed round is yielded as a record; the caller's loop is the callback.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from securefl.client import Client
from securefl.engines.local import Corruption, LocalEngine, Silence
from securefl.errors import BadInput, RoundFailed
from securefl.privacy.mechanism import DPSGD
from securefl.records import RoundRecord
from securefl.server import Outcome, Server
from securefl.transcript import Transcript

# One more try per round: a crash is often over by then, and every attempt that trained is charged again.
ATTEMPTS = 2


def federate(
    server: Server,
    clients: Sequence[Client],
    rounds: int,
    *,
    faults: Sequence[Silence | Corruption] = (),
    transcript: Transcript | None = None,
) -> Iterator[RoundRecord]:
    """Run rounds until ``rounds`` are committed, counting those that the server's store already has.

    ``faults`` are made on purpose, to see what the others do then.

    Raises ``BadInput`` before the first round for a plan that could fail later, ``RoundFailed`` when too few clients
    were left in every attempt at a round, and ``BudgetExceeded`` when that is because owners' budgets are spent.
    """
    enrol(server, clients)
    engine = LocalEngine({client.name: client for client in clients}, faults)
    transcript = transcript or Transcript()
    server.set_up(transcript.recording(engine.exchange(0), 0))
    left_out: dict[str, str] = {}
    while server.round_number < rounds:
        started = time.perf_counter()
        transcript.count_anew()
        number = server.round_number + 1
        outcome = _attempt(server, clients, engine, transcript, number, left_out)
        yield _record(outcome, clients, transcript, time.perf_counter() - started)


def enrol(server: Server, clients: Sequence[Client]) -> None:
    """Make the roster of the clients' own keys and have everyone pin it."""
    roster = {client.name: client.public_key for client in clients}
    if len(roster) != len(clients):
        raise BadInput("two clients have the same name: every client needs its own")
    plan = server.enrol(roster)
    for client in clients:
        client.pin(roster, plan)


def _attempt(
    server: Server,
    clients: Sequence[Client],
    engine: LocalEngine,
    transcript: Transcript,
    number: int,
    left_out: dict[str, str],
) -> Outcome:
    """The round, tried again without those who refused; who is named or in dispute joins ``left_out``, for the run."""
    refused: set[str] = set()
    for tries_left in reversed(range(ATTEMPTS)):
        known = dict(left_out)
        try:
            outcome = server.round(transcript.recording(engine.exchange(number), number), refused.union(left_out))
        except RoundFailed as failure:
            refused |= {name for name, why in failure.lost.items() if _will_refuse_again(why)}
            _leave_out(server, failure.lost, failure.suspects, left_out)
            if tries_left == 0 or len(clients) - len(refused.union(left_out)) < server.plan.minimum:
                _refuse_over_budget(server, clients, failure)
                raise
        else:
            _leave_out(server, outcome.dropped, outcome.suspects, left_out)
            return replace(outcome, dropped={**known, **outcome.dropped})
    raise AssertionError("every attempt returns or raises")


def _will_refuse_again(why: str) -> bool:
    """Who refused will do so again. Who was silent, garbled or behind may be back."""
    return why.startswith("refused: ") and why != "refused: behind"


def _leave_out(server: Server, faults: Mapping[str, str], suspects: Collection[str], left_out: dict[str, str]) -> None:
    """Leave out for the rest of the run who deals bad shares or lies about others': as many as a round can do without.

    Those who are proven to come first. Either kind would cost an attempt, or its victims their part, every round.
    """
    blamed = [name for name, why in faults.items() if why.startswith("blamed: ")]
    for name in (*sorted(blamed), *sorted(set(suspects).difference(blamed))):
        if len(server.plan.clients) - len({*left_out, name}) >= server.plan.minimum:
            left_out.setdefault(name, f"left out: {faults.get(name, 'in dispute')}")


def _refuse_over_budget(server: Server, clients: Sequence[Client], failure: RoundFailed) -> None:
    """Raise the first refusing client's own error, with its figures."""
    mechanism = server.plan.mechanism
    for client in clients:
        if failure.lost.get(client.name) == "refused: budget" and isinstance(mechanism, DPSGD):
            client.ledger.check(mechanism)


def _record(outcome: Outcome, clients: Sequence[Client], transcript: Transcript, seconds: float) -> RoundRecord:
    epsilons = {client.name: client.epsilon() for client in clients}
    return RoundRecord(
        round=outcome.round,
        attempt=outcome.attempt,
        contributors=outcome.contributors,
        dropped=dict(sorted(outcome.dropped.items())),
        recovered=outcome.recovered,
        accuracy=outcome.accuracy,
        epsilon={name: value for name, value in epsilons.items() if value is not None},
        upload_bytes=dict(sorted(transcript.up.items())),
        download_bytes=dict(sorted(transcript.down.items())),
        seconds=seconds,
    )
