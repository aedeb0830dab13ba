"""Exchange 5, where only clients can decode: hand the sum down, collect model tags, commit at t equal ones.

The server holds no key. It passes on the sum, and the proof whose sum it is; every client rebuilds what decrypts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from protocols.aggregation.collect import collect
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    SHORT_REPLY,
    ApplyRequest,
    Envelope,
    Header,
    membership_digest,
    survivors_statement,
)
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.stage import Sum
from protocols.aggregation.verify import check_consents, read
from protocols.base import ClientId, Messages, Replies
from protocols.encoding import Upload
from protocols.errors import ConfigurationError, Inconsistent, MalformedMessage, RoundAborted
from protocols.primitives import authenticate
from protocols.ring import RingVector
from protocols.wire import encode


class Applied(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Body of exchange 5: the tag of the resulting model and its accuracy on the public test set, if there is one.

    ``void``: the sum was no possible sum, so that the model is the one from before, under the new round's number. Or a
    single client that sends noise in place of a ciphertext could stop a run for good.
    """

    tag: bytes
    accuracy: float | None
    void: bool = False


@dataclass(frozen=True)
class Commit:
    """A model that enough clients hold: its tag, their signed replies as evidence, and who does not hold it.

    ``void``: they could not decrypt the sum, and kept the model from before.
    """

    tag: bytes
    evidence: tuple[Envelope, ...]
    accuracy: float | None
    behind: tuple[ClientId, ...]
    faults: Mapping[ClientId, str]
    void: bool = False


def model_tag(tag_key: bytes, run: str, round: int, model: bytes) -> bytes:
    """HMAC of a model under the clients' tag key: equal for equal models, and says nothing to who lacks the key."""
    return authenticate(tag_key, "model tag", run.encode(), round.to_bytes(8, "big"), model)


def apply_request(terms: Terms, total: Sum) -> ApplyRequest:
    """What every client is sent, byte for byte the same however often it is asked."""
    proof, context = total.proof, terms.context
    packed = terms.layout.ring.pack(total.total)
    return ApplyRequest(
        context.run,
        context.round,
        context.attempt,
        packed,
        proof.cohort,
        proof.shared,
        proof.keys,
        proof.inputs,
        proof.consents,
    )


def verified_sum(terms: Terms, request: ApplyRequest) -> tuple[RingVector, tuple[Upload, ...]]:
    """The sum and its signed uploads, if at least t clients agreed to exactly these.

    The ``a`` of the sum follows from the seeds in the contributors' own signatures. Nothing that the server chose
    is ever multiplied by the key.
    """
    headers = [signed.open(terms.roster, terms.session, Step.INPUT) for signed in request.inputs]
    survivors = [header.sender for header in headers]
    quorum, least = _fewest(terms, request)
    if survivors != sorted(set(survivors)) or len(survivors) < least:
        raise Inconsistent(
            f"a sum of {len(survivors)} from a cohort of {len(request.cohort)} is not one this client accepts"
        )
    members = membership_digest(request.keys, request.shared) if terms.masked else request.keys
    if not set(survivors) <= set(request.cohort) or any(header.keys != members for header in headers):
        raise Inconsistent("the sum names contributors outside its cohort, of another key list or other sharers")
    if terms.masked:
        marks = mark(request.cohort, survivors)
        statement = survivors_statement(terms.session, request.keys, request.cohort, request.shared, marks)
        check_consents(terms, request.consents, statement, survivors, quorum)
    uploads = tuple(Upload(terms.session, header.sender, _seed(terms, header)) for header in headers)
    if len({upload.seed for upload in uploads}) != len(uploads):
        raise Inconsistent("two contributors have the same seed")
    return terms.layout.ring.unpack(request.total, terms.layout.length), uploads


def _fewest(terms: Terms, request: ApplyRequest) -> tuple[int, int]:
    if list(request.cohort) != sorted(set(request.cohort)) or not set(request.cohort) <= set(terms.roster.keys):
        raise Inconsistent("the sum's cohort is unsorted or names clients outside the roster")
    try:
        return terms.rules.quorum(len(request.cohort)), terms.rules.least(len(request.cohort))
    except ConfigurationError as error:
        raise Inconsistent(str(error)) from error


def _seed(terms: Terms, header: Header) -> bytes:
    if len(header.seed) != terms.layout.seed_bytes:
        raise Inconsistent(f"{header.sender} signed a seed of {len(header.seed)} bytes")
    return header.seed


class ApplyServer:
    """Asks until enough equal tags settle the model (``CohortRules.binding``), with the same bytes, ``tries`` times."""

    def __init__(self, terms: Terms, request: ApplyRequest, tries: int = 3) -> None:
        self.asked = frozenset(terms.roster.keys)
        self.largest = SHORT_REPLY
        self._terms = terms
        self._bytes = encode(request)
        self._threshold = terms.rules.binding(len(request.cohort), len(terms.roster.keys))
        self._tries = tries
        self._replies: dict[ClientId, Envelope] = {}
        self._applied: dict[ClientId, Applied] = {}
        self.faults: dict[ClientId, str] = {}

    def open(self) -> Messages:
        return dict.fromkeys(sorted(self.asked), self._bytes)

    def advance(self, replies: Replies) -> Messages:
        collect(replies, self, self.faults)
        self._tries -= 1
        if self._leading()[1] >= self._threshold:
            return {}
        # Who answered is bound to that answer: with everyone heard, asking again cannot change the count.
        if self._tries == 0 or self.accepted == self.asked:
            raise RoundAborted(
                f"{self._leading()[1]} clients agree on the model, {self._threshold} are needed: ask again",
                self.faults,
                {name: f"exchange {Step.APPLY:d}" for name in sorted(self.asked - self.accepted)},
            )
        return dict.fromkeys(sorted(self.asked - self.accepted), self._bytes)

    @property
    def result(self) -> Commit:
        tag, count = self._leading()
        if count < self._threshold:
            raise RuntimeError("the round is not committed: drive the session to its end first")
        agreed = [name for name in sorted(self._applied) if self._applied[name].tag == tag]
        reported = sorted(a for name in agreed if (a := self._applied[name].accuracy) is not None)
        evidence = tuple(self._replies[name] for name in agreed)
        # All who agree hold the same model and test set; the middle report of a majority stands for them.
        accuracy = reported[len(reported) // 2] if 2 * len(reported) > len(agreed) else None
        # One model, so one outcome: with n_C colluders at most, more than half of those who agree are honest.
        void = 2 * sum(self._applied[name].void for name in agreed) > len(agreed)
        return Commit(tag, evidence, accuracy, tuple(sorted(self.asked - set(agreed))), self.faults, void)

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self._replies)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        reply.open(self._terms.roster, self._terms.session, Step.APPLY, sender)
        applied = read(reply.parts, Applied)
        if applied.accuracy is not None and not 0 <= applied.accuracy <= 1:  # NaN too
            raise MalformedMessage(f"{sender} reports an accuracy that is none")
        self._applied[sender], self._replies[sender] = applied, reply

    def _leading(self) -> tuple[bytes, int]:
        counts = Counter(applied.tag for applied in self._applied.values()).most_common(1)
        return counts[0] if counts else (b"", 0)
