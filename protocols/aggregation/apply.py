"""Exchange 5, where only clients can decode: hand the sum down, have it decrypted once enough clients hold the same,
and commit at enough equal model tags.

The server holds no key. It passes on the sum, and the proof whose sum it is; every client rebuilds what decrypts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from protocols.aggregation.collect import collect
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import (
    SHORT_REPLY,
    ApplyRequest,
    DecryptRequest,
    Envelope,
    Header,
    Signed,
    membership_digest,
    survivors_statement,
)
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.stage import Sum
from protocols.aggregation.verify import check_consents, read
from protocols.base import ClientId, Messages, Replies
from protocols.encoding import Upload
from protocols.errors import ConfigurationError, Inconsistent, MalformedMessage, RoundAborted
from protocols.merkle import tree_of
from protocols.primitives import authenticate, digest
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
    if max(len(request.cohort), len(request.inputs), len(request.consents)) > len(terms.roster.keys):
        raise Inconsistent("the sum names more clients than there are")
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


def sum_digest(request: ApplyRequest) -> bytes:
    """What names one sum with all that belongs to it."""
    return digest("apply", encode(request))


def check_agreed(terms: Terms, asked: bytes, agreed: Sequence[Signed], needed: int) -> None:
    """Raise unless so many different clients signed that they were handed the very sum with this digest.

    Or a server could hand each client another, and read off who answers like whom what no client would tell it.
    """
    if len(agreed) > len(terms.roster.keys):
        raise Inconsistent(f"{len(agreed)} signatures of {len(terms.roster.keys)} clients")
    body, signers = tree_of([asked]).root, set()
    for signed in agreed:
        header = signed.open(terms.roster, terms.session, Step.AGREE)
        if header.body != body:
            raise Inconsistent(f"{header.sender} was handed another sum")
        signers.add(header.sender)
    if len(signers) < needed or len(signers) != len(agreed):
        raise Inconsistent(f"{len(signers)} clients were handed this sum, {needed} are needed")


def _fewest(terms: Terms, request: ApplyRequest) -> tuple[int, int]:
    if list(request.cohort) != sorted(set(request.cohort)) or not set(request.cohort) <= set(terms.roster.keys):
        raise Inconsistent("the sum's cohort is unsorted or names clients outside the roster")
    try:
        terms.check_cohort(len(request.cohort))
        return terms.rules.quorum(len(request.cohort)), terms.rules.least(len(request.cohort))
    except ConfigurationError as error:
        raise Inconsistent(str(error)) from error


def _seed(terms: Terms, header: Header) -> bytes:
    if len(header.seed) != terms.layout.seed_bytes:
        raise Inconsistent(f"{header.sender} signed a seed of {len(header.seed)} bytes")
    return header.seed


@dataclass
class _Turn:
    """One half of exchange 5: who was asked what, and what those answered whose word is to be equal."""

    terms: Terms
    step: Step
    asked: frozenset[ClientId]
    request: bytes = field(repr=False)
    word: Callable[[Envelope], bytes]
    largest: int = SHORT_REPLY
    replies: dict[ClientId, Envelope] = field(default_factory=dict)
    words: dict[ClientId, bytes] = field(default_factory=dict)

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self.replies)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        reply.open(self.terms.roster, self.terms.session, self.step, sender)
        self.words[sender] = self.word(reply)
        self.replies[sender] = reply

    @property
    def agreed(self) -> tuple[ClientId, ...]:
        """Those who said the word that most of them said."""
        leading = Counter(self.words.values()).most_common(1)
        return tuple(sorted(name for name, word in self.words.items() if word == leading[0][0]))

    def ask(self) -> Messages:
        """The same bytes, for who has not answered yet."""
        return dict.fromkeys(sorted(self.asked - self.accepted), self.request)


class ApplyServer:
    """Hands a sum down, has clients decrypt it once enough of them hold the same one, until enough equal tags settle
    the model (``CohortRules.binding`` both). Asks with the same bytes, ``tries`` times each.
    """

    def __init__(self, terms: Terms, request: ApplyRequest, tries: int = 3) -> None:
        self._terms = terms
        self._request = request
        self._digest = sum_digest(request)  # once: a sum may be large, and every reply is compared with it
        rules, roster = terms.rules, len(terms.roster.keys)
        # Of the first half, what clients demand: they do not know the cohort of a sum before they accept it.
        self._needed = {
            Step.AGREE: rules.binding(rules.fewest, roster),
            Step.APPLY: rules.binding(len(request.cohort), roster),
        }
        self._tries = self._left = tries
        self._turn = _Turn(terms, Step.AGREE, frozenset(terms.roster.keys), encode(request), self._same)
        self.faults: dict[ClientId, str] = {}

    def open(self) -> Messages:
        return self._turn.ask()

    def advance(self, replies: Replies) -> Messages:
        turn = self._turn
        collect(replies, turn, self.faults)
        self._left -= 1
        needed = self._needed[turn.step]
        if len(turn.agreed) >= needed:
            return self._decrypt(turn) if turn.step is Step.AGREE else {}
        # Who answered is bound to that answer: with everyone heard, asking again cannot change the count.
        if self._left == 0 or turn.accepted == turn.asked:
            what = "sum" if turn.step is Step.AGREE else "model"
            raise RoundAborted(
                f"{len(turn.agreed)} clients agree on the {what}, {needed} are needed: ask again",
                self.faults,
                {name: f"exchange {Step.APPLY:d}" for name in sorted(self._terms.roster.keys.keys() - turn.accepted)},
            )
        return turn.ask()

    @property
    def result(self) -> Commit:
        turn, agreed = self._turn, self._turn.agreed
        if turn.step is Step.AGREE or len(agreed) < self._needed[Step.APPLY]:
            raise RuntimeError("the round is not committed: drive the session to its end first")
        said = [read(turn.replies[name].parts, Applied) for name in agreed]
        reported = sorted(applied.accuracy for applied in said if applied.accuracy is not None)
        evidence = tuple(turn.replies[name] for name in agreed)
        # All who agree hold the same model and test set; the middle report of a majority stands for them.
        accuracy = reported[len(reported) // 2] if 2 * len(reported) > len(agreed) else None
        # One model, so one outcome: with n_C colluders at most, more than half of those who agree are honest.
        void = 2 * sum(applied.void for applied in said) > len(agreed)
        behind = tuple(sorted(self._terms.roster.keys.keys() - set(agreed)))
        return Commit(said[0].tag, evidence, accuracy, behind, self.faults, void)

    def _decrypt(self, agreeing: _Turn) -> Messages:
        proof = tuple(agreeing.replies[name].signed for name in agreeing.agreed)
        request = encode(DecryptRequest(self._request.run, self._request.round, proof))
        self._turn = _Turn(self._terms, Step.APPLY, frozenset(agreeing.agreed), request, _tag)
        self._left = self._tries
        return self._turn.ask()

    def _same(self, reply: Envelope) -> bytes:
        if reply.parts != (self._digest,):
            raise Inconsistent("agrees to another sum")
        return reply.parts[0]


def _tag(reply: Envelope) -> bytes:
    applied = read(reply.parts, Applied)
    if applied.accuracy is not None and not 0 <= applied.accuracy <= 1:  # NaN too
        raise MalformedMessage("an accuracy that is none was reported")
    return applied.tag
