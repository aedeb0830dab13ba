"""Attacks on masks. Each recovers a victim's update from a protocol whose masks are weaker in one way, and then meets
ours. The weak protocols are whole: their sums are right, and nobody would notice.

The attacker is the server. What exchange 4 opens is its by right: the self seed of a client that survived, the mask
key of one that it calls dropped. So a victim has one of its two kinds of masks left, and the server chooses which.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols import masking, shamir
from protocols.aggregation import secrets
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Advertised, Envelope, Opened
from protocols.aggregation.secrets import pair_mask, self_mask_key
from protocols.aggregation.session import Step
from protocols.aggregation.states import Sharing, State
from protocols.aggregation.verify import read
from protocols.base import ClientId
from protocols.encoding.fixedpoint import FixedPoint
from protocols.masking import Mask, apply_masks, expand
from protocols.primitives import AgreementKey, Engine, Keystream
from protocols.ring import Ring, RingVector
from protocols.wire import decode
from tests.protocols.cohort import Cohort, Wire, encoding, make, names

VICTIM, COLLUDER = "c1", "c3"
COUNT = 5
DIMENSION = 32
COUNTER = bytes(12) + (2).to_bytes(4, "big")

Updates = Mapping[ClientId, NDArray[np.float64]]
Attack = Callable[[Cohort, Wire], RingVector]


# ---- the setting: updates whose encoding is known to the bit, and what a server sees of a round


def on_the_grid(dimension: int = DIMENSION, zeros: int = 0) -> Updates:
    """Random updates that rounding leaves alone (below 2**20 steps a float64 holds every coin), behind some zeros."""
    generator = np.random.default_rng(2)
    steps = {name: generator.integers(-(1 << 20), 1 << 20, dimension) for name in names(COUNT)}
    for vector in steps.values():
        vector[:zeros] = 0
    return {name: vector.astype(np.float64) * step_of(dimension) for name, vector in steps.items()}


def step_of(dimension: int) -> float:
    coder = encoding("secagg", dimension, COUNT)
    assert isinstance(coder, FixedPoint)
    return coder.step


def encoded(cohort: Cohort, name: ClientId = VICTIM) -> RingVector:
    """What the client masked, to the bit."""
    return np.rint(cohort.inputs[name] / step_of(cohort.dimension)).astype(np.int64).astype(np.uint32)


def played(late: bool = False, inputs: Updates | None = None, **options: object) -> tuple[Cohort, Wire]:
    """A whole round whose sum is right. ``late``: the server takes the victim's input in and says it came too late."""

    def lost(step: Step, name: ClientId, data: bytes) -> bytes | None:
        return None if late and (step, name) == (Step.INPUT, VICTIM) else data

    inputs = on_the_grid() if inputs is None else inputs
    cohort = make("secagg", COUNT, len(inputs[VICTIM]), inputs=inputs, **options)  # type: ignore[arg-type]
    wire = Wire(cohort.clients, on_reply=lost)
    aggregate = cohort.run(wire)
    assert cohort.is_right(aggregate) and (VICTIM in aggregate.contributors) != late
    return cohort, wire


def reply(wire: Wire, step: Step, name: ClientId) -> Envelope:
    return decode(wire.replies[step, name], Envelope)


def masked_input(cohort: Cohort, wire: Wire) -> RingVector:
    layout = cohort.terms.layout
    return layout.ring.unpack(reply(wire, Step.INPUT, VICTIM).parts[0], layout.length).copy()


def opened_secret(cohort: Cohort, wire: Wire) -> bytes:
    """The victim's secret that exchange 4 opened: its self seed if it survived, else its mask key."""
    place = sorted(cohort.clients).index(VICTIM)
    answers = {name: read(reply(wire, step, name).parts, Opened) for step, name in wire.replies if step == Step.UNMASK}
    points = cohort.terms.roster.points
    shares = {points[name]: answer.shares[place] for name, answer in answers.items()}
    return shamir.join(shares, shamir.coefficients(shares))


def only_pair_masks_left(cohort: Cohort, wire: Wire) -> RingVector:
    """A survivor's input without its self mask."""
    vector = masked_input(cohort, wire)
    key = self_mask_key(cohort.terms, VICTIM, opened_secret(cohort, wire))
    apply_masks(vector, cohort.terms.layout.ring, [Mask(key, -1)])
    return vector


def only_the_self_mask_left(cohort: Cohort, wire: Wire) -> RingVector:
    """The input of a client that was called dropped, without its pairwise masks."""
    vector, own = masked_input(cohort, wire), AgreementKey(opened_secret(cohort, wire))
    apply_masks(vector, cohort.terms.layout.ring, pair_masks_off(cohort, wire, own))
    return vector


def pair_masks_off(cohort: Cohort, wire: Wire, own: AgreementKey) -> list[Mask]:
    peers = [name for name in cohort.clients if name != VICTIM]
    keys = {name: read(reply(wire, Step.KEYS, name).parts, Advertised).mask_key for name in peers}
    added = [pair_mask(cohort.terms, own, VICTIM, peer, key) for peer, key in keys.items()]
    return [Mask(mask.key, -1 if mask.sign == 1 else 1) for mask in added]


def nothing_of(recovered: RingVector, update: RingVector) -> bool:
    """No coordinate is right. False alarm, where masks are uniform: 2**-32 a coordinate, 2**-27 for 32 of them."""
    return not (recovered == update).any()


# ---- masks used in two rounds


class KeepsItsMaskKey(AggregationClient):
    """Weak: the mask key lives longer than the session."""

    def _advertise(self) -> tuple[State, Envelope]:
        fresh, kept = self._random, iter([hashlib.sha256(self._name.encode()).digest()])
        self._random = lambda size: next(kept, None) or fresh(size)
        return super()._advertise()


def without_session(
    seed: bytes, label: str, session: bytes, ring: Ring, length: int, pair: tuple[bytes, bytes]
) -> bytes:
    """Weak: a mask's key is not bound to its session."""
    return masking.mask_key(seed, label, b"", ring, length, pair)


def difference_of_two_rounds(types: Mapping[ClientId, type[AggregationClient]]) -> tuple[RingVector, RingVector]:
    """A round with a dead model, whose updates are all zero, and one with the true model: the victim's second input
    less its first, and its second update.
    """
    dead = played(attempt=1, types=types, inputs=on_the_grid(zeros=DIMENSION))
    true = played(attempt=2, types=types)
    return only_pair_masks_left(*true) - only_pair_masks_left(*dead), encoded(true[0])


@pytest.mark.attack("masks used again in a later round")
def test_masks_that_come_again_cancel_between_two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dict.fromkeys(names(COUNT), KeepsItsMaskKey)
    with monkeypatch.context() as weak:
        weak.setattr(secrets, "mask_key", without_session)
        recovered, update = difference_of_two_rounds(kept)
        assert (recovered == update).all()
        assert nothing_of(*difference_of_two_rounds({}))  # fresh keys are enough against this,
    assert nothing_of(*difference_of_two_rounds(kept))  # and so is the session in the mask's key
    assert nothing_of(*difference_of_two_rounds({}))


def opened_in_the_next_round(types: Mapping[ClientId, type[AggregationClient]]) -> tuple[RingVector, RingVector]:
    """The victim survives one round, so that its self seed is opened, and is called dropped in the next, so that its
    mask key is: what both give of its first input, and its first update.
    """
    first, wire = played(attempt=1, types=types)
    key = AgreementKey(opened_secret(*played(late=True, attempt=2, types=types)))
    vector = only_pair_masks_left(first, wire)
    apply_masks(vector, first.terms.layout.ring, pair_masks_off(first, wire, key))
    return vector, encoded(first)


@pytest.mark.attack("a mask key that outlives its round")
def test_a_mask_key_that_is_opened_later_opens_nothing_earlier() -> None:
    recovered, update = opened_in_the_next_round(dict.fromkeys(names(COUNT), KeepsItsMaskKey))
    assert (recovered == update).all()
    assert nothing_of(*opened_in_the_next_round({}))


# ---- one number for all coordinates


class OneNumber(Keystream):
    """Weak: a mask is a single random word, added to every coordinate."""

    def __init__(self, key: bytes, counter: bytes, engine: Engine = Engine.CTR) -> None:
        word = bytearray(4)
        Keystream(key, counter, engine).read_into(memoryview(bytes(4)), memoryview(word))
        self._word = bytes(word)
        self.read_into = self._repeat

    def _repeat(self, zeros: memoryview, buffer: memoryview) -> int:
        buffer[:] = self._word * (len(buffer) // 4)
        return len(buffer)


def less_its_first_coordinate(cohort: Cohort, wire: Wire) -> RingVector:
    """All that the attacker needs is the masked input, and one coordinate of the update that it knows (a dead unit)."""
    vector = masked_input(cohort, wire)
    vector -= vector[0].copy()
    return vector


@pytest.mark.attack("one mask number for all coordinates")
def test_one_number_for_all_coordinates_hides_only_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weak:
        weak.setattr(masking, "Keystream", OneNumber)
        cohort, wire = played()
        update = encoded(cohort)
        assert (less_its_first_coordinate(cohort, wire) == update - update[0]).all()  # all but a constant, always
        cohort, wire = played(inputs=on_the_grid(zeros=1))
        assert (less_its_first_coordinate(cohort, wire) == encoded(cohort)).all()  # all, with one known
    cohort, wire = played(inputs=on_the_grid(zeros=1))
    assert nothing_of(less_its_first_coordinate(cohort, wire)[1:], encoded(cohort)[1:])


# ---- a key that can be tried out


class Folded(Keystream):
    """Weak: 16 bits of the key are used."""

    def __init__(self, key: bytes, counter: bytes, engine: Engine = Engine.CTR) -> None:
        super().__init__(key[:2] + bytes(14), counter, engine)


def all_keys(bits: int = 16) -> Iterator[bytes]:
    return (number.to_bytes(2, "little") + bytes(14) for number in range(1 << bits))


def tried_out(left: RingVector, largest: int) -> RingVector | None:
    """The first vector within the public bound that any of 2**16 keys gives. A wrong key passes with 2**-96."""
    words, zeros = np.empty(DIMENSION, np.uint32), memoryview(bytes(4 * DIMENSION))
    for key in all_keys():
        Keystream(key, COUNTER).read_into(zeros, words.view(np.uint8).data)
        candidate = left - words
        if (candidate + np.uint32(largest) <= 2 * largest).all():
            return candidate
    return None


def largest_step(cohort: Cohort) -> int:
    assert isinstance(cohort.encoding, FixedPoint)
    return round(cohort.encoding.bound * cohort.encoding.scale)


@pytest.mark.attack("a mask seed folded to 16 bits")
def test_a_folded_seed_is_found_by_trying(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Many implementations seed a generator with 28 or 32 bits; how long these would last is printed, not tested."""
    with monkeypatch.context() as weak:
        weak.setattr(masking, "Keystream", Folded)
        cohort, wire = played(late=True)
        recovered = tried_out(only_the_self_mask_left(cohort, wire), largest_step(cohort))
        assert recovered is not None and (recovered == encoded(cohort)).all()
    cohort, wire = played(late=True)
    start = perf_counter()
    assert tried_out(only_the_self_mask_left(cohort, wire), largest_step(cohort)) is None
    with capsys.disabled():
        print(f"\n{as_long_as((1 << 16) / (perf_counter() - start))}")


def as_long_as(rate: float) -> str:
    """What a rate of keys a second, of one core and in Python, means for longer seeds."""
    return "\n  ".join(
        [
            f"seeds tried: {rate:,.0f} a second, on one core and in Python",
            f"28 bits: 2**28 / rate = {2**28 / rate / 60:,.0f} minutes",
            f"32 bits: 2**32 / rate = {2**32 / rate / 3600:,.1f} hours",
            f"128 bits, as here (AES key, from a 256-bit X25519 secret): {2**128 / rate / 3.156e7:.0e} years",
        ]
    )


# ---- one secret for the whole group


def from_the_group_key(
    seed: bytes, label: str, session: bytes, ring: Ring, length: int, pair: tuple[bytes, bytes]
) -> bytes:
    """Weak: masks of all pairs follow from a secret that all clients share."""
    group = b"the group's secret" if label == "pair mask" else seed
    return masking.mask_key(group, label, session, ring, length, pair)


def as_a_colluder_would(cohort: Cohort, wire: Wire) -> RingVector:
    """One client helps the server: it makes, with all that it holds, the masks that are the victim's."""
    colluder = copy.copy(wire.before[Step.INPUT, COLLUDER])
    colluder._name = VICTIM
    assert isinstance(colluder._state, Sharing)
    masks = colluder._masks(colluder._state, dict.fromkeys(name for name in cohort.clients if name != VICTIM))  # type: ignore[arg-type]
    vector = only_pair_masks_left(cohort, wire)
    apply_masks(vector, cohort.terms.layout.ring, [Mask(m.key, -1 if m.sign == 1 else 1) for m in masks[1:]])
    return vector


@pytest.mark.attack("pair masks from one group secret")
def test_one_colluder_opens_all_where_pair_masks_follow_from_a_group_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weak:
        weak.setattr(secrets, "mask_key", from_the_group_key)
        cohort, wire = played()
        assert (as_a_colluder_would(cohort, wire) == encoded(cohort)).all()
    cohort, wire = played()
    assert nothing_of(as_a_colluder_would(cohort, wire), encoded(cohort))


# ---- a generator that can be predicted


class Twister(Keystream):
    """Weak: masks from numpy's RandomState, seeded with the whole key: a Mersenne Twister of 624 words."""

    def __init__(self, key: bytes, counter: bytes, engine: Engine = Engine.CTR) -> None:
        self._generator = np.random.RandomState(np.frombuffer(key + counter, "<u4"))
        self.read_into = self._words

    def _words(self, zeros: memoryview, buffer: memoryview) -> int:
        buffer[:] = self._generator.bytes(len(buffer))
        return len(buffer)


KNOWN, ALL = 624, 700


def untempered(outputs: RingVector) -> RingVector:
    """The generator's state behind 624 outputs (Matsumoto and Nishimura, TOMACS 1998, section 2.1, undone)."""
    y = outputs.copy()
    y ^= y >> np.uint32(18)
    y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
    x = y.copy()
    for _ in range(4):  # each turn makes seven more bits right
        x = y ^ ((x << np.uint32(7)) & np.uint32(0x9D2C5680))
    y = x.copy()
    for _ in range(2):  # eleven more
        x = y ^ (x >> np.uint32(11))
    return x


def predicted(cohort: Cohort, wire: Wire) -> RingVector:
    """Where the update is known to be zero (words that nobody at the victim's wrote), the mask lies open; 624 words of
    it predict the others.
    """
    left = only_the_self_mask_left(cohort, wire)
    generator = np.random.RandomState()
    generator.set_state(("MT19937", untempered(left[:KNOWN]).astype(np.uint32), KNOWN, 0, 0.0))
    left[KNOWN:] -= np.frombuffer(generator.bytes(4 * (ALL - KNOWN)), "<u4")
    return left[KNOWN:]


@pytest.mark.attack("masks from a Mersenne Twister")
def test_624_known_coordinates_predict_a_twisters_others(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = on_the_grid(ALL, zeros=KNOWN)
    with monkeypatch.context() as weak:
        weak.setattr(masking, "Keystream", Twister)
        cohort, wire = played(late=True, inputs=inputs)
        assert (predicted(cohort, wire) == encoded(cohort)[KNOWN:]).all()
    cohort, wire = played(late=True, inputs=inputs)
    assert nothing_of(predicted(cohort, wire), encoded(cohort)[KNOWN:])  # false alarm: 76 * 2**-32


# ---- residues that are not uniform

# As biased as it gets: of 53-bit words a quarter is not below this modulus, and the remainder folds it onto the lowest
# third. (With the 54-bit prime of CKKS the folded part is 2**-37 of all, and no such test would ever notice.)
SKEWED = Ring(3 * (1 << 51) + 1)
DRAWN, GAMES = 2000, 64


class Remainder(masking._Residues):
    """Weak: `% p` of a word, where ours rejects."""

    def read(self, out: RingVector, zeros: memoryview) -> None:
        self._main.read_into(zeros[: out.nbytes], out.view(np.uint8).data)
        np.bitwise_and(out, self._low, out=out)
        np.remainder(out, self._modulus, out=out)


def games_won() -> int:
    """Of 64 masked vectors, how often is it guessed rightly whether the update is 0 or two thirds of p all over?

    Of each, the attacker counts what lies in the lowest third and what in the highest.
    """
    p, secret = SKEWED.modulus, np.random.default_rng(3).integers(0, 2, GAMES)
    won = 0
    for game, second in enumerate(secret):
        key = hashlib.sha256(b"game %d" % game).digest()[:16]
        masked = (expand(SKEWED, key, DRAWN) + np.uint64(int(second) * (2 * p // 3))) % np.uint64(p)
        low, high = (masked < p // 3).sum(), (masked >= 2 * p // 3).sum()
        won += bool(high > low) == bool(second)
    return won


@pytest.mark.attack("masks by remainder instead of rejection")
def test_a_remainder_shows_which_update_it_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fair masks win Bin(64, 1/2) games: outside 12 to 52 with less than 1e-6 (the keys are fixed, so once for all).

    Biased ones: half of 2000 draws against a quarter, and the other way round with less than 1e-100 a game.
    """
    with monkeypatch.context() as weak:
        weak.setattr(masking, "_Residues", Remainder)
        assert games_won() == GAMES
    assert 12 <= games_won() <= 52
