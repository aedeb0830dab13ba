"""What a run reports: one record a round, one summary at the end. Values only; the command line prints them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from securefl.global_state import Measured
from securefl.plan import Plan
from securefl.report.hazards import Hazard
from securefl.survey import Found


class RoundRecord(Struct, frozen=True):
    """One completed round. Bytes are per client, all exchanges of all attempts counted; ``seconds`` is wall time.

    ``void``: no client could decrypt the sum (somebody sent noise in place of a ciphertext), so that the model is the
    one from before.

    ``dropped`` maps each client that did not contribute or fell silent later to where or why ("exchange 2",
    "refused: budget"). ``recovered`` are clients that went silent after the masks were agreed and whose masks the
    others helped to remove. ``accuracy`` is that of the model after this round on the public test set (None where no
    test set was declared). ``epsilon`` is each client's own ledger, read after the round, at the budget's delta.
    ``held_out``: what the round measured, on the clients' held-out records, of the model before it.
    """

    round: int
    attempt: int
    contributors: tuple[str, ...]
    dropped: dict[str, str]
    recovered: tuple[str, ...]
    accuracy: float | None
    epsilon: dict[str, float]
    upload_bytes: dict[str, int]
    download_bytes: dict[str, int]
    seconds: float
    void: bool = False
    held_out: Measured | None = None

    def __str__(self) -> str:
        accuracy = "-" if self.accuracy is None else f"{self.accuracy:.3f}"
        epsilon = f"{max(self.epsilon.values()):.2f}" if self.epsilon else "no DP"
        lost = f", dropped {', '.join(self.dropped)}" if self.dropped else ""
        void = ", VOID: the sum could not be decrypted, the model is unchanged" if self.void else ""
        who = f"{len(self.contributors)} contributors{lost}"
        return f"round {self.round}: {who}, accuracy {accuracy}, epsilon {epsilon}{void}"


class ServerView(Struct, frozen=True):
    """What the server got, counted from the run's transcript, and how much of it its protection let it read."""

    messages: int
    bytes: int
    updates_received: int
    updates_readable: int
    sums_readable: int
    models_readable: int


class Summary(Struct, frozen=True):
    """The end of a run. ``upload_bytes`` is the mean per client and round, all exchanges counted. ``id``: the run's;
    ``model_sha256``: of the model's file, in hex. ``budget_epsilon`` and ``delta`` are None, too, where clients are at
    sites of their own, whose owners decide; ``epsilon_by_client`` then has those who stated theirs. ``metrics``: the
    model's other figures on the public test set, by their keys in :data:`securefl.measures.NAMES`; ``metrics_unit``: of
    those that are errors. ``survey``: what the last round asked, where one did. ``participation``: rounds that each
    client contributed to.
    """

    accuracy: float | None
    accuracy_centralised: float | None
    epsilon: float | None
    epsilon_by_client: dict[str, float]
    budget_epsilon: float | None
    delta: float | None
    rounds: int
    protection: str
    dropouts_recovered: int
    upload_bytes: int
    download_bytes: int
    server_view: ServerView
    hazards: tuple[Hazard, ...]
    seconds: float
    id: str
    model_sha256: str
    run: str
    model: str
    report: str
    metrics: dict[str, float] = {}
    metrics_unit: str = ""
    survey: Found | None = None
    participation: dict[str, int] = {}


def participation(plan: Plan, history: Sequence[RoundRecord]) -> dict[str, int]:
    """How many rounds each client contributed to."""
    counts = Counter(name for record in history for name in record.contributors)
    return {name: counts[name] for name in plan.clients}
