"""What the server of a run got, counted from the transcript, and how much of it its protection let it read."""

from __future__ import annotations

from collections.abc import Sequence

from securefl.plan import Plan
from securefl.protection import KINDS
from securefl.records import ServerView
from securefl.report.document import Traffic
from securefl.settings import EMBEDDED, Engine, in_turn


def server_view(plan: Plan, rounds: int, traffic: Sequence[Traffic], engine: Engine = EMBEDDED) -> ServerView:
    """The view after so many completed ``rounds``; ``traffic``: all messages of the run, by kind.

    Under a protection that hides them no update is readable; where clients hold the key, no sum and no model either,
    unless the clients are the server.
    """
    kind = KINDS[plan.protection]
    inputs = sum(each.up.count for each in traffic if each.kind == "masked-input")
    sums = plan.cohort.groups * rounds
    readable = 0 if kind.sealed and not in_turn(engine) else rounds
    return ServerView(
        messages=sum(each.up.count for each in traffic),
        bytes=sum(each.up.bytes for each in traffic),
        updates_received=inputs,
        updates_readable=0 if kind.masked or kind.sealed else inputs,
        sums_readable=sums if readable else 0,
        models_readable=readable,
    )
