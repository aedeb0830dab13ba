"""Attacks on CKKS by those who hold the key, or who send what is no ciphertext of theirs.

The key opens every ciphertext: all clients have it, so one that works with the server makes encryption worthless on its
own. What is left to a victim are the masks under it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.aggregation import summing
from protocols.aggregation.messages import Envelope, Header, envelope
from protocols.aggregation.secrets import pair_mask, self_mask_key
from protocols.aggregation.session import Step
from protocols.base import ClientId
from protocols.encoding import Upload, ckks, rlwe
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.encoding.rlwe import CKKSParameters, a_masks
from protocols.errors import DecryptionFailed
from protocols.masking import Mask, apply_masks
from protocols.ring import RingVector
from protocols.wire import decode, encode
from tests.protocols.cohort import BOUND, Cohort, Wire, clean_run, encoding, identity, make, names, updates

VICTIM, COLLUDER = "c1", "c3"
COUNT = 5
# As many coordinates as an estimate is judged by: chance correlations are 1 / sqrt of that.
DIMENSION = 8192

Values = NDArray[np.float64]


def sent(wire: Wire, name: ClientId) -> Envelope:
    return wire.reply(Step.INPUT, name)


def upload(cohort: Cohort, wire: Wire, name: ClientId) -> tuple[RingVector, Upload]:
    """What a client sent, as the server has it."""
    layout, reply = cohort.encoding.layout, sent(wire, name)
    seed = msgspec.msgpack.decode(reply.signed.header, type=Header).seed
    return layout.ring.unpack(reply.parts[0], layout.length).copy(), Upload(cohort.terms.session, name, seed)


def opened(cohort: Cohort, vector: RingVector, uploads: list[Upload]) -> Values:
    """What the key makes of a vector, whether or not it is in range."""
    coder = cohort.encoding
    assert isinstance(coder, CKKS)
    blocks = ckks._decrypt(coder._task(uploads), ckks._Block(0, vector))
    return blocks[: cohort.dimension] / coder.parameters.scale


def without_known_masks(cohort: Cohort, wire: Wire, vector: RingVector) -> RingVector:
    """The victim's vector less the masks that server and colluder know: its own one, and that with the colluder."""
    terms, state = cohort.terms, wire.before[Step.INPUT, COLLUDER]._state
    secret = wire.before[Step.INPUT, VICTIM]._state.self_seed  # the server rebuilds it from shares
    mine = pair_mask(terms, state.mask, COLLUDER, VICTIM, state.cohort.advertised[VICTIM].mask_key)
    # The victim carries the pair's mask with the other sign, so that the colluder's own takes it off.
    apply_masks(vector, terms.layout.ring, [Mask(self_mask_key(terms, VICTIM, secret), -1), mine])
    return vector


def from_the_sum(cohort: Cohort) -> Values:
    """What server and colluder may know of the victim: the mean of the others in the sum that they both have."""
    others = cohort.truth([name for name in names(COUNT) if name != COLLUDER])
    return others / (COUNT - 1)


def unexplained(target: Values, *known: Values) -> float:
    """The share of the target's variance that the best linear estimate from what is known leaves."""
    columns = np.stack([np.ones(len(target)), *known], axis=1)
    rest = target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
    return float(rest.var() / target.var())


@pytest.mark.attack("one key that all clients share")
def test_server_and_one_key_holder_open_an_update_without_masks_and_only_the_sum_with_them() -> None:
    """They pool all they have: every message, the key, the colluder's input and session secrets, the opened shares.

    Without masks they read the victim's update to the step of the encoding. With masks, what the key makes of its
    vector adds nothing to the legitimate sum: R^2 of pure chance is below 25 / DIMENSION but for 6e-7 of all runs.
    """
    bare = make("ckks-unmasked", COUNT, DIMENSION)
    vector, given = upload(bare, clean_run(bare), VICTIM)
    read = opened(bare, vector, [given])
    assert isinstance(bare.encoding, CKKS)
    assert np.abs(read - bare.inputs[VICTIM]).max() <= 1.01 * bare.encoding.parameters.step

    masked = make("ckks", COUNT, DIMENSION)
    wire = clean_run(masked)
    vector, given = upload(masked, wire, VICTIM)
    guess = opened(masked, without_known_masks(masked, wire, vector), [given])
    target, legitimate = masked.inputs[VICTIM], from_the_sum(masked)
    allowed = unexplained(target, legitimate)
    assert 0.70 < allowed < 0.80  # of four honest inputs alike, the sum explains a quarter
    for known in (guess, guess % 1.0, np.sign(guess)):
        assert allowed - unexplained(target, legitimate, known) < 25 / DIMENSION


def test_the_attack_on_masks_is_the_right_one() -> None:
    """With the other honest clients' masks known, too, the same steps recover the update: nothing else hides it."""
    cohort = make("ckks", COUNT, 64)
    wire = clean_run(cohort)
    vector, given = upload(cohort, wire, VICTIM)
    vector = without_known_masks(cohort, wire, vector)
    for name in names(COUNT):
        if name not in (VICTIM, COLLUDER):
            state = wire.before[Step.INPUT, name]._state
            mask = pair_mask(cohort.terms, state.mask, name, VICTIM, state.cohort.advertised[VICTIM].mask_key)
            apply_masks(vector, cohort.terms.layout.ring, [mask])
    assert isinstance(cohort.encoding, CKKS)
    assert np.abs(opened(cohort, vector, [given]) - cohort.inputs[VICTIM]).max() <= cohort.encoding.parameters.step


# ---- what is no ciphertext of one's own


def copying(wire: Wire, cohort: Cohort) -> Callable[[Step, ClientId, bytes], bytes]:
    """The colluder sends the victim's ciphertext and seed as its own, in its own name and under its own signature."""

    def change(step: Step, name: ClientId, data: bytes) -> bytes:
        if step is not Step.INPUT or name != COLLUDER:
            return data
        copied = sent(wire, VICTIM)
        seed = msgspec.msgpack.decode(copied.signed.header, type=Header).seed
        return resigned(cohort, decode(data, Envelope), [*copied.parts], seed=seed)

    return change


def resigned(cohort: Cohort, honest: Envelope, parts: list[bytes], **fields: object) -> bytes:
    """What a dishonest client can send: anything, properly signed."""
    header = msgspec.msgpack.decode(honest.signed.header, type=Header)
    return encode(envelope(identity(header.sender), msgspec.structs.replace(header, **fields), parts))


@pytest.mark.attack("another client's ciphertext sent as one's own")
def test_a_copied_ciphertext_counts_for_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where seeds may repeat and ``a`` does not depend on the sender, a copy decrypts: the victim counts twice."""
    with monkeypatch.context() as weak:
        unbound = weakly_bound(a_masks)
        weak.setattr(rlwe, "a_masks", unbound)
        weak.setattr(ckks, "a_masks", unbound)
        weak.setattr(summing.Inputs, "fold", without_seed_check(summing.Inputs.fold))
        cohort = make("ckks-unmasked", COUNT, 64)
        wire = Wire(cohort.clients)
        wire.on_reply = copying(wire, cohort)
        total = cohort.run(wire).sum
        doubled = opened(cohort, total.total.copy(), list(total.uploads))
        truth = cohort.truth([name for name in names(COUNT) if name != COLLUDER]) + cohort.inputs[VICTIM]
        assert np.abs(doubled - truth).max() < 1e-6

    cohort = make("ckks-unmasked", COUNT, 64)
    wire = Wire(cohort.clients)
    wire.on_reply = copying(wire, cohort)
    aggregate = cohort.run(wire)
    assert aggregate.faults == {COLLUDER: f"{COLLUDER} repeats another client's seed"}
    assert cohort.is_right(aggregate)


def test_a_copied_ciphertext_under_a_seed_of_its_own_is_no_ciphertext() -> None:
    """It decrypts to noise: the sum is no possible sum, and the round is void for all."""
    cohort = make("ckks-unmasked", COUNT, 64)
    wire = Wire(cohort.clients)

    def change(step: Step, name: ClientId, data: bytes) -> bytes:
        if step is not Step.INPUT or name != COLLUDER:
            return data
        return resigned(cohort, decode(data, Envelope), [*sent(wire, VICTIM).parts])

    wire.on_reply = change
    with pytest.raises(DecryptionFailed):
        cohort.decoded(cohort.run(wire))


def weakly_bound(honest: Callable[[CKKSParameters, list[Upload]], list[Mask]]) -> Callable[..., list[Mask]]:
    """``a`` from the seed alone."""
    return lambda parameters, uploads: honest(parameters, [Upload(b"", "", each.seed) for each in uploads])


def without_seed_check(fold: Callable[..., None]) -> Callable[..., None]:
    def folding(self: summing.Inputs, sender: ClientId, reply: Envelope) -> None:
        known, self._seeds = self._seeds, {}
        try:
            fold(self, sender, reply)
        finally:
            self._seeds = known | self._seeds

    return folding


# ---- every class of bytes of an upload

FLIPS = ("session", "step", "sender", "keys", "seed", "body", "signature", "residues", "length", "range", "parts")


def flipped(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def tampered(data: bytes, what: str, cohort: Cohort) -> bytes:
    """An upload with one class of its bytes changed on the wire."""
    honest = decode(data, Envelope)
    header, signature = msgspec.msgpack.decode(honest.signed.header, type=Header), honest.signed.signature
    (vector,) = honest.parts
    width = cohort.terms.layout.ring.item_bytes
    parts: tuple[bytes, ...] = honest.parts
    match what:
        case "signature":
            signature = flipped(signature)
        case "residues":
            parts = (flipped(vector, 8),)
        case "length":
            parts = (vector[:-width],)
        case "range":
            parts = (b"\xff" * width + vector[width:],)
        case "parts":
            parts = (vector, b"")
        case "step":
            header = msgspec.structs.replace(header, step=Step.CONSISTENCY)
        case "sender":
            header = msgspec.structs.replace(header, sender="c2")
        case _:
            header = msgspec.structs.replace(header, **{what: flipped(getattr(header, what))})
    signed = msgspec.structs.replace(honest.signed, header=msgspec.msgpack.encode(header), signature=signature)
    return encode(Envelope(signed, parts))


@pytest.mark.parametrize(
    ("cell", "what"),
    # Without masks there is no key list to name.
    [("ckks", what) for what in FLIPS] + [("ckks-unmasked", what) for what in FLIPS if what != "keys"],
)
def test_an_upload_that_is_changed_on_the_wire_is_left_out(cell: str, what: str) -> None:
    cohort = make(cell, COUNT, 64)
    wire = Wire(
        cohort.clients,
        on_reply=lambda step, name, data: (
            tampered(data, what, cohort) if (step, name) == (Step.INPUT, VICTIM) else data
        ),
    )
    aggregate = cohort.run(wire)
    assert VICTIM not in aggregate.contributors and VICTIM in aggregate.faults
    assert cohort.is_right(aggregate)


@pytest.mark.parametrize("what", ["length", "range", "parts", "seed length"])
def test_an_upload_of_the_wrong_form_is_left_out_also_under_its_senders_own_signature(what: str) -> None:
    cohort = make("ckks", COUNT, 64)

    def change(step: Step, name: ClientId, data: bytes) -> bytes:
        if (step, name) != (Step.INPUT, VICTIM):
            return data
        honest = decode(data, Envelope)
        if what == "seed length":
            return resigned(cohort, honest, [*honest.parts], seed=b"short")
        return resigned(cohort, honest, [*decode(tampered(data, what, cohort), Envelope).parts])

    aggregate = cohort.run(Wire(cohort.clients, on_reply=change))
    assert VICTIM in aggregate.faults and cohort.is_right(aggregate)


# ---- another key, other parameters


@pytest.mark.parametrize(
    "parameters",
    [CKKSParameters(64, BOUND, COUNT, 48), CKKSParameters(64, BOUND / 2, COUNT), CKKSParameters(65, BOUND, COUNT)],
    ids=["prime", "bound", "length"],
)
def test_a_client_with_the_parameters_of_another_run_speaks_in_another_session(parameters: CKKSParameters) -> None:
    ours = encoding("ckks", 64, COUNT)
    theirs = CKKS(parameters, CKKSKey.generate(lambda count: bytes(count)))
    assert ours.layout.digest != theirs.layout.digest
    cohort = make("ckks", COUNT, 64)
    other = msgspec_like_terms(cohort, theirs)
    assert other != cohort.terms.session


def msgspec_like_terms(cohort: Cohort, coder: CKKS) -> bytes:
    from dataclasses import replace

    return replace(cohort.terms, layout=coder.layout).session


def test_a_sum_under_another_key_is_no_sum() -> None:
    cohort = make("ckks", COUNT, 64)
    aggregate = cohort.run(Wire(cohort.clients))
    assert isinstance(cohort.encoding, CKKS)
    other = CKKS(cohort.encoding.parameters, CKKSKey.generate(lambda count: bytes(count)))
    with pytest.raises(DecryptionFailed):
        other.decode(aggregate.sum.total, aggregate.sum.uploads)
    assert updates(COUNT, 64)[VICTIM].shape == (64,)
