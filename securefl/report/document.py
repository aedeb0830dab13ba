"""The privacy report as a value: what a run claims, towards whom, and what that rests on. Format 1.

Every field is always there: what nobody knows is "unknown", what does not exist is "none". The JSON Schema beside this
file is generated from these types.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from msgspec import Struct

from securefl.plan import Protection
from securefl.privacy.mechanism import Budget, Mechanism, Release, Unit
from securefl.report.hazards import Listed
from securefl.report.statement import (
    Absent,
    Count,
    Epsilon,
    Hash,
    Head,
    Key,
    Nonnegative,
    Signature,
    SignedStatement,
    Unknown,
)
from securefl.report.surveyed import Surveyed

Word = Literal["private", "simulation", "not private", "unfinished", "violated"]

Audience = Literal["server", "peer", "colluders", "holder"]
"""The server alone; one other client alone; the plan's n_C colluding clients with the server; whoever has the final
model."""


class Status(Struct, frozen=True, forbid_unknown_fields=True):
    """One word, and why. "private" is a claim about arithmetic and provenance, not that sites behaved as they say."""

    word: Word
    reasons: tuple[str, ...]


class Run(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which run, of what. ``plan``: SHA-256 of the plan's encoding; ``model``: of the final model's file;
    ``architecture``: of parameter names and shapes. ``seed``: of the model's first values, public; text, since it may
    exceed 2**53.
    """

    id: str
    job: str
    plan: Hash
    model: Hash
    architecture: str
    dimension: Count
    seed: str
    clients: tuple[str, ...]
    weights: dict[str, float]
    rounds_planned: Count
    rounds_done: Count
    seconds: Nonnegative | Unknown


class Data(Struct, frozen=True, forbid_unknown_fields=True):
    """What was trained on. ``prepared``: how the records were made ready for training, "unknown" where an owner's own
    loader did it. ``disjoint``: the owners declared that nobody's data is at two clients.
    """

    name: str
    source: str
    prepared: str
    test: str
    disjoint: bool


class Claim(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one audience can learn about one unit, from this run. ``why``: why the bound holds, or why there is none.

    ``epsilon`` is the deciding accountant's, ``cross_check`` the other's; at ``delta``.
    """

    audience: Audience
    unit: Unit | Unknown
    neighbours: str
    epsilon: Epsilon
    delta: Nonnegative | Absent
    cross_check: Epsilon
    accountant: str
    why: str


class Released(Struct, frozen=True, forbid_unknown_fields=True):
    """How often one release was charged in this run."""

    release: Release
    times: Count


class Owner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One client's side. ``source``: whose word it is. ``ledger``: its id.

    ``before`` and ``after``: heads of its ledger around this run, and the epsilon of all that was ever charged to it
    then. ``fingerprints``: keyed digests of the records. ``witnesses``: peers to whom it showed a signed head.
    """

    client: str
    source: Literal["signed statement", "the server's copy"]
    data: str
    fingerprints: tuple[str, ...] | Unknown
    budget: Budget | Absent | Unknown
    ledger: str
    before: Head | Absent
    after: Head | Absent
    epsilon_before: Epsilon
    epsilon_after: Epsilon
    refused: Count | Unknown
    simulated: bool | Unknown
    released: tuple[Released, ...] | Unknown
    witnesses: tuple[str, ...] | Unknown
    claims: tuple[Claim, ...]
    software: dict[str, str] | Unknown


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """What one round was planned to release at a client, and how the client descends. ``sampling``: in words."""

    mechanisms: tuple[Mechanism, ...]
    sampling: str
    learning_rate: Nonnegative
    momentum: Nonnegative


class Accounting(Struct, frozen=True, forbid_unknown_fields=True):
    """Who computed the epsilons of the claims: a package, its version, and how the two accountants differ."""

    package: str
    version: str
    decides: str
    cross_check: str


class Aggregation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The protocol that ran. ``threshold``: shares that undo a dropout. ``colluders``: n_C. ``minimum``: fewest clients
    whose sum may be formed. ``recovered`` of ``lost`` contributions that were missing; ``encoding``: in words.
    """

    protection: Protection
    visibility: str
    threat_model: str
    assumptions: str
    minimum: Count
    threshold: Count | Absent
    colluders: Count
    bound: Nonnegative
    encoding: str
    key_rounds: Count | Absent
    lost: Count
    recovered: Count


class Sight(Struct, frozen=True, forbid_unknown_fields=True):
    """What one party can read under the protocol that ran, if it keeps to it and remembers everything it was sent."""

    party: str
    update: str
    total: str
    model: str
    besides: str


class View(Struct, frozen=True, forbid_unknown_fields=True):
    """What the server got, counted from the run's transcript, and how much of it it could read."""

    messages: Count
    bytes: Count
    updates_received: Count
    updates_readable: Count
    sums_readable: Count
    models_readable: Count


class Flow(Struct, frozen=True, forbid_unknown_fields=True):
    """Messages in one direction: how many, and their bytes in all."""

    count: Count
    bytes: Count

    @property
    def mean(self) -> float:
        """Bytes a message."""
        return self.bytes / self.count if self.count else 0.0


class Traffic(Struct, frozen=True, forbid_unknown_fields=True):
    """All messages of one kind: from clients to the server, and from the server to clients."""

    kind: str
    up: Flow
    down: Flow


class HeldOut(Struct, frozen=True, forbid_unknown_fields=True):
    """Weighted means over the clients' own held-out records."""

    accuracy: float
    loss: float


class Round(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One completed round. ``accuracy``: on the public test set, of the model after it; ``held_out``: on the clients'
    own records, of the model before it.

    ``epsilon``: each client's, as it told the server after the round. ``bytes_up``, ``bytes_down``: mean of a client.
    """

    round: Count
    attempt: Count
    contributors: tuple[str, ...]
    dropped: dict[str, str]
    recovered: tuple[str, ...]
    void: bool
    accuracy: float | Absent
    held_out: HeldOut | Absent
    epsilon: dict[str, Epsilon]
    bytes_up: Nonnegative
    bytes_down: Nonnegative
    seconds: Nonnegative


class Utility(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How good the final model is; ``centralised``: the same model on all records in one place, without privacy.

    ``by_group``: accuracy for each group of people, which nobody measures here yet. ``metrics``: other figures on the
    public test set, by their keys in :data:`securefl.measures.NAMES`, errors in ``unit``; absent where there are none,
    as is ``survey``.
    """

    accuracy: float | Absent
    centralised: float | Absent
    by_group: dict[str, float] | Unknown
    metrics: dict[str, float] = {}
    unit: str = ""
    survey: Surveyed | Absent = "none"


class Audited(Struct, frozen=True, forbid_unknown_fields=True):
    """A canary audit of the same mechanism and protection, with ``canaries`` in so many ``rounds``.

    ``claim``: epsilon at ``delta`` for those rounds; ``at_least``: the bound by ``method``, which was named before,
    with ``confidence`` if what it ``assumes`` holds. ``bounds``: by every method; ``tests``: p-values by name.
    ``refuted``: why the claim cannot hold, empty where nothing contradicts it. ``sha256``: of the whole audit.
    """

    client: str
    canaries: Count
    rounds: Count
    claim: Epsilon
    delta: float
    method: str
    assumes: str
    confidence: float
    at_least: Epsilon
    bounds: dict[str, Epsilon]
    tests: dict[str, float]
    refuted: tuple[str, ...]
    sha256: Hash


class Software(Struct, frozen=True, forbid_unknown_fields=True):
    """What ran where the report was assembled: versions by package, and a SHA-256 of each as it is installed."""

    versions: dict[str, str]
    hashes: dict[str, Hash]


class Endorsement(Struct, frozen=True, forbid_unknown_fields=True):
    """One client's signature over the report without signatures."""

    client: str
    key: Key
    signature: Signature


class Report(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="securefl-privacy-report/1", tag_field="format"
):
    """A run's privacy report. ``created``: UTC, ISO 8601. ``federation``: claims about a person whose data is in any
    client's. ``statements`` are what the clients signed; the rest is assembled from these, the plan and the server's
    record, and signed as a whole by those in ``signatures``.
    """

    LABEL: ClassVar[str] = "securefl privacy report 1"

    created: str
    run: Run
    status: Status
    hazards: tuple[Listed, ...] | Unknown
    owners: tuple[Owner, ...]
    federation: tuple[Claim, ...]
    training: Training
    accounting: Accounting
    audit: Audited | Absent
    utility: Utility
    rounds: tuple[Round, ...]
    aggregation: Aggregation
    sights: tuple[Sight, ...]
    server_view: View | Unknown
    traffic: tuple[Traffic, ...]
    data: Data
    software: Software
    statements: tuple[SignedStatement, ...]
    signatures: tuple[Endorsement, ...]
