"""The loop of a federation: initialise, distribute, train locally, send updates, aggregate, repeat.

Each completed round is yielded as a record; the caller's loop is the callback.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

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
    while server.round_number < rounds:
        started = time.perf_counter()
        transcript.count_anew()
        number = server.round_number + 1
        outcome = _attempt(server, clients, engine, transcript, number)
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
    server: Server, clients: Sequence[Client], engine: LocalEngine, transcript: Transcript, number: int
) -> Outcome:
    without: set[str] = set()
    for tries_left in reversed(range(ATTEMPTS)):
        try:
            return server.round(transcript.recording(engine.exchange(number), number), without)
        except RoundFailed as failure:
            without |= {name for name, why in failure.lost.items() if _will_fail_again(why)}
            if tries_left == 0 or len(clients) - len(without) < server.plan.minimum:
                _refuse_over_budget(server, clients, failure)
                raise
    raise AssertionError("every attempt returns or raises")


def _will_fail_again(why: str) -> bool:
    """Who refused, or is to blame for an attempt's end. Who was silent, garbled or behind may be back."""
    return why.startswith(("refused: ", "blamed: ")) and why != "refused: behind"


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
