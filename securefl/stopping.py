"""When a run has learned what it will: a rule on numbers that are known anyway, so that it reveals nothing more."""

from __future__ import annotations

from collections.abc import Sequence

from securefl.job.sections import Stopping
from securefl.records import RoundRecord


def plateaued(history: Sequence[RoundRecord], rule: Stopping) -> bool:
    """Whether the last ``patience`` rounds were all below the best before them plus ``by``.

    Rounds of which nothing was measured do not count. ``held-out``: on the clients' records, by the noised metrics that
    the job asks for (and is charged for), which are of the model before each round.
    """
    measured = [value for record in history if (value := _accuracy(record, rule.on)) is not None]
    before, last = measured[: -rule.patience], measured[-rule.patience :]
    return bool(before) and all(value <= max(before) + rule.by for value in last)


def _accuracy(record: RoundRecord, on: str) -> float | None:
    if on == "test":
        return record.accuracy
    return None if record.held_out is None else record.held_out.accuracy
