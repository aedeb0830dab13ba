"""Where only clients can read the model: a client's CKKS key, its model, and the exchanges that keep both in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from protocols.aggregation.apply import Applied, check_agreed, model_tag, sum_digest, verified_sum
from protocols.aggregation.messages import ApplyRequest, DecryptRequest, Envelope, Header, envelope
from protocols.aggregation.session import Roster, Step, Terms
from protocols.base import Random
from protocols.delivery.client import give, join, open_model, receive, seal_model
from protocols.delivery.messages import (
    InstallModelRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    ShareKeyRequest,
    catch_up,
    key_setup,
)
from protocols.encoding import Encoding, Upload
from protocols.encoding.ckks import CKKSKey
from protocols.errors import Behind, DecryptionFailed, Forged, Inconsistent
from protocols.masking import Work
from protocols.primitives import AgreementKey, Identity
from protocols.ring import RingVector
from protocols.wire import encode
from securefl import global_state, protection, strategy
from securefl.announcement import Announcement, KeyReceived, terms
from securefl.data import Dataset
from securefl.errors import Refused
from securefl.evidence import check_signed
from securefl.holding import Holding, Record
from securefl.plan import Plan
from securefl.store import Store

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class _Handed:
    """A sum that this client agreed to decrypt, verified."""

    request: ApplyRequest
    total: RingVector
    uploads: Sequence[Upload]


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
        work: Work,
    ) -> None:
        self._name = name
        self._identity = identity
        self._roster = roster
        self._run = run
        self._plan = plan
        self._factory = factory
        self._test = test
        self._random = random
        self._work = work
        self._one_use: AgreementKey | None = None
        self._handed: _Handed | None = None
        self._held = Holding(store, run, plan.digest())

    @property
    def model(self) -> NDArray[np.float32] | None:
        """The run's vector (:mod:`securefl.global_state`)."""
        return None if self._held.empty else np.frombuffer(self._held.model, "<f4")

    @property
    def round(self) -> int | None:
        """The round whose model this is; 0 before the first."""
        return None if self._held.empty else self._held.record.round

    # ---- the key

    def join(self, announced: Announcement) -> bytes:
        """Sign a one-use key to receive a CKKS key of the run."""
        self._check_round(announced.round)
        self._one_use = AgreementKey.generate(self._random)
        return encode(join(self._name, self._identity, self._key_session(announced.round), self._one_use))

    def make_key(self, request: MakeKeyRequest) -> bytes:
        """Make a new key and seal it to all who joined, this client included."""
        self._check_round(request.round)
        return self._give(CKKSKey.generate(self._random), request)

    def share_key(self, request: ShareKeyRequest) -> bytes:
        """Seal the key that the run has now to those who joined; no older one."""
        return self._give(self._named(request.key_id), request)

    def receive_key(self, request: ReceiveKeyRequest) -> bytes:
        """Take a key from the package that a roster member signed for this client, and say which tag the model has
        under it.

        Beside a key that is in use it waits for a round that is announced under it: until then, nothing is lost.
        """
        self._check_round(request.round)
        if self._one_use is None:
            raise Inconsistent("a package came that this client did not ask for")
        session = self._key_session(request.round)
        package, secret = receive(self._name, session, self._roster, self._one_use, request.given)
        key = CKKSKey.from_bytes(secret)
        if key.key_id != package.about:
            raise Inconsistent("the package holds another key than it says")
        if not self._held.empty and key.key_id in self._held.record.retired:
            raise Inconsistent("the package holds a key that was replaced before")
        if self._held.empty:
            self._held.write(Record(self._plan.digest(), secret), self._first_model())
        elif secret != self._held.record.key:
            self._held.write(replace(self._held.record, next_key=secret))
        return self._reply(
            session, Step.RECEIVE_KEY, KeyReceived(key.key_id, self._held.record.round, self._tag(key)).encoded()
        )

    # ---- a round

    def key_for(self, announced: Announcement) -> CKKSKey:
        """The key of the announced round. Raises ``Behind`` unless the round builds on this client's key and model,
        ``Refused`` if that key has decrypted as many sums as it may, or is a new one that too few have signed for.
        """
        record, key = self._held.record, self._named(announced.key_id)
        if announced.round != record.round + 1 or self._tag(key) != announced.tag:
            raise Behind("this client's model is not the one that the round builds on")
        if key.to_bytes() != record.key:
            # The one in use is given up for it: not on the server's word.
            check_signed(self._roster, announced.tag, announced.evidence, protection.binding(self._plan))
        elif record.sums >= self._plan.key_rounds:
            raise Refused(f"the run's key has decrypted its {record.sums} sums: the server must have a new one made")
        self._one_use = None  # or packages recorded before would open for as long as this process lives
        return key

    def take_up(self, key: CKKSKey) -> Encoding:
        """From now on use this key, and no longer the one before."""
        record = self._held.record.under(key)
        if record is not self._held.record:
            self._held.write(record)
        return protection.encoding(self._plan, record.key, self._work)

    def agree(self, request: ApplyRequest) -> bytes:
        """Sign which sum of a round this client was handed, if it is one that enough clients contributed to.

        No other sum of the same round is ever decrypted, and this one is counted from now on. After the round, whatever
        is asked about its sum gets the same bytes.
        """
        record = self._held.record
        if request.round == record.round and record.reply:
            return record.agreed
        if request.round != record.round + 1:
            raise Behind(f"the sum is of round {request.round}, this client is at round {record.round}")
        agreed, asked = self._terms(request), sum_digest(request)
        packed, uploads = verified_sum(agreed, request)
        self._remember(asked, request.round)
        self._handed = _Handed(request, packed, uploads)
        return self._reply(agreed.session, Step.AGREE, asked)

    def decrypt(self, request: DecryptRequest) -> bytes:
        """Decrypt the sum that enough clients were handed alike, take the strategy's step, answer with the model's tag.

        What is no possible sum voids the round: the model stays, under the new round's number.
        """
        record, handed = self._held.record, self._handed
        if request.round == record.round and record.reply:
            return record.reply
        if handed is None or request.round != handed.request.round or request.round != record.round + 1:
            raise Behind(f"this client was handed no sum of round {request.round} since it started")
        agreed = self._terms(handed.request)
        check_agreed(agreed, record.asked, request.agreed, protection.binding(self._plan))
        start = np.frombuffer(self._held.model, "<f4")
        try:
            total = protection.encoding(self._plan, record.key, self._work).decode(handed.total, handed.uploads)
        except DecryptionFailed:
            return self._move(request.round, agreed.session, None)
        moved = strategy.step(self._plan, start, total, [upload.sender for upload in handed.uploads], request.round)
        return self._move(request.round, agreed.session, moved.tobytes())

    def _terms(self, request: ApplyRequest) -> Terms:
        """The session of a sum, from this client's own key and model."""
        key = CKKSKey.from_bytes(self._held.record.key)
        run, round, attempt = self._run, request.round, request.attempt
        return terms(self._plan, self._roster, run, round, attempt, self._tag(key), key.key_id)

    def _remember(self, asked: bytes, round: int) -> None:
        """Count a decryption before it is agreed to."""
        record = self._held.record
        if record.asked not in (b"", asked):
            raise Inconsistent(f"another sum of round {round} was agreed to before")
        if record.asked == asked:
            return
        if record.sums >= self._plan.key_rounds:
            raise Inconsistent(f"this key has decrypted {record.sums} sums, which is all it may")
        self._held.write(replace(record, asked=asked, sums=record.sums + 1))

    def _move(self, round: int, session: bytes, moved: bytes | None) -> bytes:
        """Store the model of a round and the answers about its sum, together; return the second of them."""
        record, model = self._held.record, self._held.model if moved is None else moved
        tag = model_tag(CKKSKey.from_bytes(record.key).tag_key, self._run, round, model)
        applied = Applied(tag, None if moved is None else self._accuracy(model), moved is None)
        agreed = self._reply(session, Step.AGREE, record.asked)
        reply = self._reply(session, Step.APPLY, msgspec.msgpack.encode(applied))
        self._held.write(replace(record, round=round, agreed=agreed, reply=reply, asked=b""), model)
        self._handed = None
        return reply

    # ---- a missed model

    def seal_model(self, request: SealModelRequest) -> bytes:
        """Seal the model of a round, this client's last or the one before, for those who missed it; else ``Behind``."""
        record, key = self._held.record, self._named(request.key_id)
        held = {record.round: lambda: self._held.model, record.round - 1: lambda: self._held.previous}
        model = held[request.round]() if request.round in held else b""
        if not model:
            raise Behind(f"this client is at round {record.round}, not {request.round}")
        tag = model_tag(key.tag_key, self._run, request.round, model)
        session = self._model_session(request.round)
        return encode(seal_model(self._name, self._identity, session, key.tag_key, tag, model, self._random))

    def install_model(self, request: InstallModelRequest) -> bytes:
        """Take a missed model whose tag t clients and a majority of the roster signed; else ``Inconsistent``."""
        record, session = self._held.record, self._model_session(request.round)
        self._check_round(request.round)
        key, model = self._opened(session, request.checkpoint)
        tag = model_tag(key.tag_key, self._run, request.round, model)
        check_signed(self._roster, tag, request.evidence, protection.binding(self._plan))
        if len(model) != len(self._held.model):
            raise Inconsistent(f"a model of {len(model)} bytes was handed over, this one has {len(self._held.model)}")
        # What was decrypted of the next round stays remembered, unless the model moves on: a catch-up to the round that
        # this client has already must not buy the server another decryption.
        asked = record.asked if request.round == record.round else b""
        if (request.round, model) != (record.round, self._held.model):
            record = replace(record, round=request.round, agreed=b"", reply=b"", asked=asked)
            self._held.write(record.under(key), model)  # together: one without the other would be of no round
        self.take_up(key)
        return self._reply(session, Step.INSTALL_MODEL, tag)

    def _opened(self, session: bytes, checkpoint: Envelope) -> tuple[CKKSKey, bytes]:
        """The model, under whichever key of this client it was sealed."""
        for key in self._held.record.keys:
            try:
                return key, open_model(session, self._roster, key.tag_key, checkpoint)
            except Forged:
                continue
        raise Forged("the sealed model does not open under this client's key")

    # ---- helpers

    def _give(self, key: CKKSKey, request: MakeKeyRequest | ShareKeyRequest) -> bytes:
        session = self._key_session(request.round)
        given = give(
            self._name, self._identity, session, self._roster, request.joined, key.key_id, key.to_bytes(), self._random
        )
        return encode(given)

    def _named(self, key_id: bytes) -> CKKSKey:
        for key in self._held.record.keys:
            if key.key_id == key_id:
                return key
        raise Behind("this client does not have the key that the run has now")

    def _check_round(self, round: int) -> None:
        if not self._held.empty and round < self._held.record.round:
            raise Inconsistent(f"this client is at round {self._held.record.round} already, not {round}")

    def _tag(self, key: CKKSKey) -> bytes:
        return model_tag(key.tag_key, self._run, self._held.record.round, self._held.model)

    def _reply(self, session: bytes, step: Step, word: bytes) -> bytes:
        return encode(envelope(self._identity, Header(session, step, self._name, b"", b"", b""), [word]))

    def _key_session(self, round: int) -> bytes:
        return key_setup(self._run, self._plan.digest(), self._roster, round)

    def _model_session(self, round: int) -> bytes:
        return catch_up(self._run, self._plan.digest(), self._roster, round)

    def _first_model(self) -> bytes:
        from securefl import vector

        parameters = vector.flatten(vector.build(self._factory, self._plan.model_seed))
        return global_state.first(self._plan, parameters).astype("<f4").tobytes()

    def _accuracy(self, model: bytes) -> float | None:
        from securefl import evaluation

        parameters = global_state.parameters(self._plan, np.frombuffer(model, "<f4"))
        return evaluation.accuracy_of(self._factory, self._plan.model_seed, parameters, self._test)
