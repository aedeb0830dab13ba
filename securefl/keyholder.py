"""Where only clients can read the model: a client's CKKS key, its model, and the exchanges that keep both in step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from protocols.aggregation.apply import Applied, model_tag, verified_sum
from protocols.aggregation.messages import ApplyRequest, Extract, Header, envelope
from protocols.aggregation.session import Roster, Step
from protocols.aggregation.verify import read
from protocols.base import Random
from protocols.delivery.client import give, join, receive
from protocols.delivery.messages import (
    CatchUpRequest,
    InstallModelRequest,
    MakeKeyRequest,
    Purpose,
    ReceiveKeyRequest,
    SealModelRequest,
    catch_up,
    key_setup,
)
from protocols.encoding.ckks import CKKSKey
from protocols.errors import Behind, Inconsistent, MalformedMessage
from protocols.primitives import AgreementKey, Identity, digest
from protocols.wire import encode
from securefl import protection
from securefl.announcement import KeyReceived, terms
from securefl.data import Dataset
from securefl.plan import Plan
from securefl.store import Store
from securefl.strategy import federated_average

if TYPE_CHECKING:
    from torch import nn


class _Record(Struct, frozen=True, array_like=True):
    """What is stored: the plan, the key package, the newest model beside the one it came from, and what was decrypted.

    ``asked``: hash of the one sum of the next round that this client decrypts.
    """

    plan: bytes
    package: bytes
    round: int
    model: bytes
    previous: bytes
    reply: bytes
    asked: bytes = b""

    def __repr__(self) -> str:
        return f"_Record(round={self.round})"  # the package is the run's secret key


class KeyHolder:
    """One client's key and model in one run. Stored before it is said, so that a restart changes nothing."""

    def __init__(
        self,
        name: str,
        identity: Identity,
        roster: Roster,
        plan: Plan,
        run: str,
        factory: Callable[[], nn.Module],
        test: Dataset | None,
        store: Store,
        random: Random,
    ) -> None:
        self._name = name
        self._identity = identity
        self._roster = roster
        self._run = run
        self._plan = plan
        self._factory = factory
        self._test = test
        self._store = store
        self._random = random
        self._one_use: AgreementKey | None = None
        self._record = self._read()

    @property
    def key(self) -> bytes:
        return self._joined().package

    @property
    def key_id(self) -> bytes:
        return CKKSKey.from_bytes(self.key).key_id

    @property
    def model(self) -> NDArray[np.float32] | None:
        return np.frombuffer(self._record.model, "<f4") if self._record else None

    @property
    def round(self) -> int | None:
        """The round whose model this is; 0 before the first."""
        return self._record.round if self._record else None

    @property
    def tag(self) -> bytes:
        return self._tag(self._joined().round, self._joined().model)

    def join(self) -> bytes:
        """Sign a one-use key to receive the run's CKKS key."""
        self._one_use = AgreementKey.generate(self._random)
        return encode(join(self._name, self._identity, self._setup(), self._one_use))

    def make_key(self, request: MakeKeyRequest) -> bytes:
        """Make the run's key and seal it to all who joined, this client included."""
        key = CKKSKey.generate(self._random)
        sealed = give(
            self._name,
            self._identity,
            self._setup(),
            self._roster,
            request.joined,
            key.key_id,
            key.to_bytes(),
            self._random,
        )
        return encode(sealed)

    def receive_key(self, request: ReceiveKeyRequest) -> bytes:
        """Take the run's key from the package that a roster member signed for this client.

        Once a round is over it is too late: a new key and the first model would undo what the clients agreed on.
        """
        if self._record is not None and self._record.round > 0:
            raise Inconsistent(f"this client is at round {self._record.round}: the run's key was made before the first")
        package, secret = self._receive(self._setup(), request.given)
        key = CKKSKey.from_bytes(secret)
        if key.key_id != package:
            raise Inconsistent("the package holds another key than it says")
        self._write(_Record(self._plan.digest(), secret, 0, self._first_model(), b"", b""))
        return self._reply(self._setup(), Step.RECEIVE_KEY, KeyReceived(key.key_id, self.tag).encoded())

    def apply(self, request: ApplyRequest) -> bytes:
        """Decrypt a sum that enough clients agreed to, take the strategy's step, answer with the new model's tag.

        The same request again gets the same bytes. No other sum of the same round is ever decrypted: whether a sum is
        in range is an answer too, and a server that could ask often would learn the model from it.
        """
        record = self._joined()
        if request.round == record.round and record.reply:
            return record.reply
        if request.round != record.round + 1:
            raise Behind(f"the sum is of round {request.round}, this client is at round {record.round}")
        agreed = terms(self._plan, self._roster, self._run, request.round, request.attempt, self.tag, self.key_id)
        packed, uploads = verified_sum(agreed, request)
        asked = digest("apply", encode(request))
        if record.asked not in (b"", asked):
            raise Inconsistent(f"another sum of round {request.round} was decrypted before")
        self._write(msgspec.structs.replace(record, asked=asked))
        total = protection.encoding(self._plan, record.package).decode(packed, uploads)
        start = np.frombuffer(record.model, "<f4")
        model = federated_average(self._plan, start, total, [upload.sender for upload in uploads]).tobytes()
        body = Applied(self._tag(request.round, model), self._accuracy(model))
        header = Header(agreed.session, Step.APPLY, self._name, b"", b"", b"")
        reply = encode(envelope(self._identity, header, [msgspec.msgpack.encode(body)]))
        self._write(_Record(record.plan, record.package, request.round, model, record.model, reply))
        return reply

    def ask_catch_up(self, request: CatchUpRequest) -> bytes:
        """Sign a one-use key to receive the model of a round that was missed, or of which a wrong sum came."""
        if request.round < self._joined().round:
            raise Inconsistent(f"this client is at round {self._joined().round} already")
        self._one_use = AgreementKey.generate(self._random)
        return encode(join(self._name, self._identity, self._catch_up(request.round), self._one_use))

    def seal_model(self, request: SealModelRequest) -> bytes:
        """Seal the model of a round, this client's last or the one before, to those who missed it; else ``Behind``."""
        models = {self._joined().round: self._joined().model, self._joined().round - 1: self._joined().previous}
        model = models.get(request.round)
        if not model:
            raise Behind(f"this client is at round {self._joined().round}, not {request.round}")
        purpose = self._catch_up(request.round)
        sealed = give(
            self._name,
            self._identity,
            purpose,
            self._roster,
            request.wanted,
            self._tag(request.round, model),
            model,
            self._random,
        )
        return encode(sealed)

    def install_model(self, request: InstallModelRequest) -> bytes:
        """Take a missed model whose tag t clients and a majority of the roster signed; else ``Inconsistent``."""
        record, purpose = self._joined(), self._catch_up(request.round)
        if request.round < record.round:
            raise Inconsistent(f"this client is at round {record.round} already")
        _, model = self._receive(purpose, request.given)
        tag = self._tag(request.round, model)
        signers = set()
        for reply in request.evidence:
            header = reply.signed.authenticate(self._roster)
            reply.open(self._roster, header.session, Step.APPLY, header.sender)
            if read(reply.parts, Applied).tag == tag:
                signers.add(header.sender)
        if len(signers) < self._enough() or len(model) != len(record.model):
            raise Inconsistent(f"{len(signers)} clients signed the tag of the model that was handed over")
        # What was decrypted of the next round stays remembered, unless the model moves on: a catch-up to the round that
        # this client has already must not buy the server another decryption.
        asked = record.asked if request.round == record.round else b""
        self._write(_Record(record.plan, record.package, request.round, model, record.model, b"", asked))
        self._one_use = None
        return self._reply(purpose, Step.INSTALL_MODEL, tag)

    def _enough(self) -> int:
        """The fewest equal tags that can have settled a model."""
        rules = protection.rules(self._plan)
        return rules.binding(rules.fewest, len(self._plan.clients))

    def _receive(self, purpose: Purpose, given: Extract) -> tuple[bytes, bytes]:
        if self._one_use is None:
            raise Inconsistent("a package came that this client did not ask for")
        package, secret = receive(self._name, purpose, self._roster, self._one_use, given)
        return package.about, secret

    def _reply(self, purpose: Purpose, step: Step, word: bytes) -> bytes:
        return encode(envelope(self._identity, Header(purpose.session, step, self._name, b"", b"", b""), [word]))

    def _tag(self, round: int, model: bytes) -> bytes:
        return model_tag(CKKSKey.from_bytes(self.key).tag_key, self._run, round, model)

    def _setup(self) -> Purpose:
        return key_setup(self._run, self._plan.digest(), self._roster)

    def _catch_up(self, round: int) -> Purpose:
        return catch_up(self._run, self._plan.digest(), self._roster, round)

    def _first_model(self) -> bytes:
        from securefl import vector

        return vector.flatten(vector.build(self._factory, self._plan.model_seed)).astype("<f4").tobytes()

    def _accuracy(self, model: bytes) -> float | None:
        from securefl import evaluation, vector

        if self._test is None:
            return None
        module = vector.build(self._factory, self._plan.model_seed)
        vector.load(module, np.frombuffer(model, "<f4"))
        return evaluation.accuracy(module, self._test)

    def _joined(self) -> _Record:
        if self._record is None:
            raise Inconsistent("this client has no key of this run: it must join before the first round")
        return self._record

    def _read(self) -> _Record | None:
        stored = self._store.get(f"run {self._run}")
        if stored is None:
            return None
        try:
            record = msgspec.msgpack.decode(stored, type=_Record)
        except msgspec.DecodeError as error:
            raise MalformedMessage(
                "this client's stored key and model cannot be read: restore the run's folder"
            ) from error
        if record.plan != self._plan.digest():
            raise Inconsistent("the plan that the owner accepted is not the one that this run's key was made for")
        return record

    def _write(self, record: _Record) -> None:
        self._store.put({f"run {self._run}": msgspec.msgpack.encode(record)})
        self._record = record
