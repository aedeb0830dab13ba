"""The four protections as values: which encoding, masks or not, and in one sentence who can see what."""

from __future__ import annotations

import math
from typing import ClassVar, Final

from msgspec import Struct

from protocols.degree import Sparse
from protocols.encoding import Encoding, Layout
from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import CKKSParameters, narrowest
from protocols.errors import ConfigurationError
from protocols.graph import LARGEST_COMPLETE, CohortRules, two_thirds
from protocols.masking import Work
from securefl import global_state
from securefl.errors import BadInput
from securefl.plan import Plan
from securefl.plan import Protection as Kind

# Answers to sums, by all clients, under one CKKS key: a quarter of the coefficients of its secret. See docs/ckks.md.
_DECRYPTIONS: Final = 1 << 10


class Protection(Struct, frozen=True, kw_only=True):
    """How updates travel. ``bound``: largest absolute coordinate of an update, the rest is cut off at the client.

    ``minimum``: fewest clients whose sum may be formed; None: floor(2n/3) + 1.
    ``threshold``: shares that undo a dropout; None: floor(2n/3) + 1 of those who began. ``colluders`` (n_C): clients
    that may work with the server; needs minimum > 3 n_C, 2 threshold > n + n_C and threshold - n_C >= 2. ``bits`` for
    each number of an update, on the wire too: 16, 24 or 32 in fixed point (None: 32), 32, 40, 48 or 54 under CKKS
    (None: the fewest that keep ``precision``). ``precision``: the largest step between encodable values, under CKKS
    (None: finer than float32). ``key_rounds``: sums that one CKKS key decrypts (None: 1024 / n, which is also the
    most). ``corrupt`` and ``dropout``: fractions of the clients that may deviate and leave, for which a sparse graph is
    made: of masks, with more than 100 clients and no threshold (:mod:`protocols.degree`). Raises ``BadInput`` for what
    a kind cannot keep.
    """

    kind: ClassVar[Kind] = "plain"
    masked: ClassVar[bool] = False
    sealed: ClassVar[bool] = False
    visibility: ClassVar[str] = ""

    bound: float = 8.0
    minimum: int | None = None
    threshold: int | None = None
    colluders: int = 0
    bits: int | None = None
    precision: float | None = None
    key_rounds: int | None = None
    corrupt: float = 0.1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.colluders and not self.masked:
            raise BadInput(
                f"{self.kind!r} withstands no colluding client: leave colluders at 0, or use 'secagg' or 'ckks'"
            )
        if not self.sealed and (self.precision is not None or self.key_rounds is not None):
            raise BadInput(f"{self.kind!r} has no key and takes its precision from bits: leave the others out")
        if self.precision is not None and (self.bits is not None or not 0 < self.precision < math.inf):
            raise BadInput("a precision is a finite number above 0, in place of bits: it chooses them")
        if self.key_rounds is not None and self.key_rounds < 1:
            raise BadInput(f"key_rounds of {self.key_rounds}: a key decrypts at least one sum")

    def minimum_of(self, clients: int) -> int:
        """The minimum, or its default for so many: what is left of them must open any secret."""
        return self.minimum or max(3, self.threshold or two_thirds(clients))

    def rules(self, clients: int) -> CohortRules:
        """What each of so many clients demands of a cohort. Raises ``ConfigurationError`` for what is unsafe."""
        sparse = Sparse(self.corrupt, self.dropout) if self.masked else None
        return CohortRules(self.minimum_of(clients), self.threshold, self.colluders, sparse)

    def honest(self, clients: int, largest: int | None = None) -> int:
        """The fewest contributors, of so many clients (``largest``: at most), whose client-level noise nobody knows who
        may see a sum.

        Of the fewest survivors all but n_C, or but one where that is 0: a client knows its own noise and sees the
        model. Without masks each update is seen alone, and has its own noise only.
        """
        if not self.masked:
            return 1
        known = max(self.colluders, 1)
        most = largest or clients
        if self.threshold is None and most > LARGEST_COMPLETE:
            known = max(known, math.ceil(self.corrupt * most))  # what the sparse graph is made for
        return max(1, self.minimum_of(clients) - known)

    def parameters(self, dimension: int, clients: int, noise: float = 0.0) -> FixedPoint | CKKSParameters:
        """The encoding's public parameters, for sums of so many updates. ``ConfigurationError`` where one could wrap.

        Modulus (``bits``), bound and scale are chosen together: the scale is the finest that cannot wrap. ``noise``:
        standard deviation of noise that clients add in the ring, all together.
        """
        if not self.sealed:
            return FixedPoint(dimension, self.bound, clients, self.bits or 32, noise)
        if self.bits is None:
            return narrowest(dimension, self.bound, clients, self.precision, noise)
        return CKKSParameters(dimension, self.bound, clients, self.bits, noise)

    def key_rounds_of(self, clients: int) -> int:
        """How many sums one CKKS key decrypts; 0 where there is none. Raises ``BadInput`` for more than are safe.

        From each answer to a sum that it may have changed, a server that deviates learns one bit at most, and each may
        be a hint about the key. All clients' together are kept below a quarter of its coefficients.
        """
        most = max(1, _DECRYPTIONS // clients) if self.sealed else 0
        if self.key_rounds is not None and self.key_rounds > most:
            raise BadInput(
                f"key_rounds of {self.key_rounds}: {clients} clients decrypt at most {most} sums under one key"
            )
        return self.key_rounds or most


class Plain(Protection, frozen=True, kw_only=True):
    """No protection: fixed point, readable by the server. The reference that the others are compared with."""

    kind: ClassVar[Kind] = "plain"
    visibility: ClassVar[str] = (
        "plain: the server reads every client's update and the model; clients see the model only."
    )


class SecAgg(Protection, frozen=True, kw_only=True):
    """Pairwise masks (Bonawitz et al., CCS 2017).

    **Guarantee** (at most n_C = ``colluders`` clients work with the server): it learns the weighted sum of the
    contributors' updates, at least ``minimum`` of them, and the model; with colluders, that sum less their own, at
    least ``minimum`` - n_C updates. An update is hidden in proportion to the others' weights, which are part of the
    plan that owners accept.
    """

    kind: ClassVar[Kind] = "secagg"
    masked: ClassVar[bool] = True
    visibility: ClassVar[str] = (
        "secagg: the server reads only the sum of the updates and the model; no party reads another's update."
    )


class CKKSUnmasked(Protection, frozen=True, kw_only=True):
    """CKKS under one key that all clients share: what is usually shipped, kept for comparison."""

    kind: ClassVar[Kind] = "ckks-unmasked"
    sealed: ClassVar[bool] = True
    visibility: ClassVar[str] = (
        "ckks-unmasked: the server alone reads neither updates nor the model, "
        "but with the key of any one client it reads every update."
    )


class CKKS(Protection, frozen=True, kw_only=True):
    """CKKS under pairwise masks.

    **Guarantee** (assuming RLWE): the server alone learns no update, and of sum and model what clients answer, once a
    round: the accuracy, and whether a sum that it may have changed was in range. Together with key-holding clients, at
    most n_C = ``colluders``, it learns what it would learn under ``SecAgg``.
    """

    kind: ClassVar[Kind] = "ckks"
    masked: ClassVar[bool] = True
    sealed: ClassVar[bool] = True
    visibility: ClassVar[str] = (
        "ckks: the server reads neither updates, nor their sum, nor the model (it is told the accuracy); "
        "with the key of one client it would read the sum."
    )


KINDS: dict[str, type[Protection]] = {kind.kind: kind for kind in (Plain, SecAgg, CKKSUnmasked, CKKS)}


def protection_of(plan: Plan) -> Protection:
    """The protection that a plan names. Raises ``BadInput`` for an unknown one, or one that cannot keep the plan."""
    if plan.protection not in KINDS:
        raise BadInput(f"unknown protection {plan.protection!r}: use one of {', '.join(KINDS)}")
    return KINDS[plan.protection](
        bound=plan.bound,
        minimum=plan.minimum,
        threshold=plan.threshold,
        colluders=plan.colluders,
        bits=plan.bits,
        key_rounds=plan.key_rounds or None,
        corrupt=plan.corrupt,
        dropout=plan.dropout,
    )


def rules(plan: Plan) -> CohortRules:
    """What a client demands of a cohort under this plan. Raises ``ConfigurationError`` for an unsafe plan."""
    return protection_of(plan).rules(plan.expected)


def binding(plan: Plan) -> int:
    """The fewest equal tags that can have settled a model under this plan."""
    demanded = rules(plan)
    return demanded.binding(demanded.fewest, len(plan.clients))


def parameters(plan: Plan) -> FixedPoint | CKKSParameters:
    """The public parameters of the plan's encoding. Raises ``ConfigurationError`` where a sum could wrap."""
    return protection_of(plan).parameters(global_state.sent(plan), plan.largest, ring_noise(plan))


def honest(plan: Plan) -> int:
    """What :meth:`Protection.honest` says of the plan's protection and clients."""
    return protection_of(plan).honest(plan.expected, plan.largest)


def ring_noise(plan: Plan) -> float:
    """Standard deviation of the client-level noise of all clients together, in the update's units (clips); else 0."""
    level, survey = plan.privacy.client_level, plan.privacy.survey
    found = [0.0] if survey is None else [survey.noise_multiplier]
    if level is not None:
        found += [level.noise_multiplier, level.adaptive.noise_multiplier / 2 if level.adaptive else 0.0]
    return max(found) * math.sqrt(plan.largest / honest(plan))


def layout(plan: Plan) -> Layout:
    """What a server needs to add up encodings that it cannot read."""
    return parameters(plan).layout


def encoding(plan: Plan, key: bytes | None, work: Work = Work()) -> Encoding:  # noqa: B008
    """A client's encoding; ``key`` is its CKKS key package where the plan needs one."""
    chosen = parameters(plan)
    if isinstance(chosen, FixedPoint):
        return chosen
    if key is None:
        raise ConfigurationError("this client has no CKKS key yet")
    from protocols.encoding import ckks

    return ckks.CKKS(chosen, ckks.CKKSKey.from_bytes(key), work)
