from __future__ import annotations

import inspect
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import ApplyRequest
from protocols.base import Random
from protocols.encoding import Encoded, Encoding, Upload, ckks, rlwe, sealfile
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.encoding.ntt import Integers, Transform, transform
from protocols.encoding.quantise import noise_tail, stochastic_round, toss
from protocols.encoding.rlwe import (
    DEGREE,
    LARGEST_NOISE,
    NOISE_DEVIATION,
    PRIMES,
    CKKSParameters,
    multiply,
    shift,
)
from protocols.errors import ConfigurationError, DecryptionFailed, MalformedMessage, UpdateRejected
from protocols.masking import Mask, Work
from protocols.primitives import Engine
from protocols.ring import RingVector, RunningSum
from tests.protocols.cohort import Wire, ckks_key, make

SESSION = b"session".ljust(32)
EVERY_WIDTH = pytest.mark.parametrize("bits", PRIMES)
SEVERAL_BLOCKS = ckks._BLOCK + DEGREE + 3


def coder(dimension: int, bound: float = 4.0, clients: int = 5, bits: int = 54, key: CKKSKey | None = None) -> CKKS:
    return CKKS(CKKSParameters(dimension, bound, clients, bits), key or ckks_key())


def encoded_sum(
    coder: CKKS, updates: Sequence[NDArray[np.floating]], weight: float = 1.0, random: Random = os.urandom
) -> tuple[RingVector, list[Upload]]:
    total, uploads = RunningSum(coder.layout.ring, coder.layout.length), []
    for number, update in enumerate(updates):
        encoded = coder.encode(update, weight, SESSION, f"c{number}", random)
        total.add(encoded.vector)
        uploads.append(Upload(SESSION, f"c{number}", encoded.seed))
    return total.finish(), uploads


def transform_of(coder: CKKS) -> Transform:
    return transform(DEGREE, coder.parameters.prime)


def decrypted(coder: CKKS, total: RingVector, uploads: Sequence[Upload]) -> Integers:
    """Messages with their noise, as a key holder that does not round would see them."""
    parts = total.reshape(-1, DEGREE)
    assert len(parts) == 1, "one ciphertext, or the public a would be another chunk's"
    return ckks._decrypt(coder._task(uploads), ckks._Block(0, parts[0]))


def whole_numbers(coder: CKKS, update: NDArray[np.floating], weight: float, random: Random) -> Integers:
    """What the encoder makes of an update: its seed comes first, then the coins."""
    p = coder.parameters
    random(32)
    return stochastic_round(update, p.bound, weight * p.levels, toss(len(update), random))


# ---- sums are exact


@settings(max_examples=40)
@given(
    st.sampled_from([*PRIMES]),
    st.integers(1, DEGREE + 1),
    st.integers(1, 5),
    st.floats(2**-4, 2**8),
    st.floats(2**-4, 1),
    st.integers(0, 2**32),
)
def test_a_decoded_sum_is_to_the_bit_the_sum_of_the_encoders_whole_numbers(
    bits: int, dimension: int, clients: int, bound: float, weight: float, seed: int
) -> None:
    """SEAL's noise is its own and fresh, the coins are pinned. No false alarm: the noise is never too large."""
    ours = coder(dimension, bound, bits=bits)
    updates = np.random.default_rng(seed).uniform(-1.1 * bound, 1.1 * bound, (clients, dimension))
    decoded = ours.decode(*encoded_sum(ours, list(updates), weight, np.random.default_rng(seed).bytes))
    again = np.random.default_rng(seed).bytes
    wholes = sum(whole_numbers(ours, update, weight, again) for update in updates)
    assert decoded.dtype == np.float64 and decoded.shape == (dimension,)
    assert (decoded == wholes / ours.parameters.levels).all()


@pytest.mark.parametrize(
    ("clients", "bits"),
    [(10, 32), (10, 40), (10, 48), (10, 54), (100, 40), (100, 54), (1000, 54)],
)
def test_a_sum_is_off_by_less_than_a_step_a_client_and_its_noise_is_the_documented(clients: int, bits: int) -> None:
    """The noise before rounding is below 21 a client, always. Its deviation, estimated from 4096 coefficients, is off
    by 1.1 % on average and by 6 % with probability 1e-7."""
    ours = coder(7, clients=clients, bits=bits)
    p = ours.parameters
    updates = np.random.default_rng(clients).uniform(-4, 4, (clients, 7)).astype(np.float32)
    total, uploads = encoded_sum(ours, list(updates))
    decoded = ours.decode(total, uploads)
    assert np.abs(decoded - updates.astype(np.float64).sum(axis=0)).max() < clients * p.step
    wholes = np.pad(np.rint(decoded * p.levels).astype(np.int64), (0, DEGREE - 7))
    noise = decrypted(ours, total, uploads) - wholes * p.spacing
    assert np.abs(noise).max() <= LARGEST_NOISE * clients < p.spacing / 2
    assert noise.std() == pytest.approx(math.sqrt(10.5 * clients), rel=0.06)
    assert noise.std() == pytest.approx(p.deviation * p.scale, rel=0.06)


@EVERY_WIDTH
def test_a_model_of_several_ciphertexts_comes_back_in_order(bits: int) -> None:
    ours = coder(2 * DEGREE + 3, bits=bits)
    update = np.linspace(-4, 4, 2 * DEGREE + 3)
    assert np.abs(ours.decode(*encoded_sum(ours, [update])) - update).max() <= ours.parameters.step


@pytest.fixture(scope="module")
def several_blocks() -> tuple[CKKS, NDArray[np.float32], RingVector, list[Upload]]:
    """More values than a worker is given, in the narrowest width."""
    ours = coder(SEVERAL_BLOCKS, clients=2, bits=32)
    update = np.random.default_rng(1).uniform(-4, 4, SEVERAL_BLOCKS).astype(np.float32)
    return ours, update, *encoded_sum(ours, [update, -update / 2])


def test_a_model_of_several_blocks_comes_back_in_order(
    several_blocks: tuple[CKKS, NDArray[np.float32], RingVector, list[Upload]],
) -> None:
    ours, update, total, uploads = several_blocks
    assert len(total) == SEVERAL_BLOCKS - 3 + DEGREE
    assert np.abs(ours.decode(total, uploads) - update.astype(np.float64) / 2).max() < 2 * ours.parameters.step


def test_a_pool_of_processes_and_another_engine_make_and_open_the_same(
    several_blocks: tuple[CKKS, NDArray[np.float32], RingVector, list[Upload]],
) -> None:
    """Decoded is the same to the bit; what is encoded decodes the same, as its coins are."""
    alone, update, total, uploads = several_blocks
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        shared = CKKS(alone.parameters, ckks_key(), Work(Engine.GCM, map=pool.map))
        assert (shared.decode(total, uploads) == alone.decode(total, uploads)).all()
        made = [encoded_sum(each, [update], random=np.random.default_rng(2).bytes) for each in (alone, shared)]
    assert made[0][1] == made[1][1]
    assert (made[0][0] != made[1][0]).any()  # SEAL's noise is fresh
    assert (alone.decode(*made[0]) == alone.decode(*made[1])).all()


@EVERY_WIDTH
def test_weights_scale_and_the_bound_cuts_off(bits: int) -> None:
    ours = coder(3, bits=bits)
    decoded = ours.decode(*encoded_sum(ours, [np.array([1.0, 100.0, -100.0])], weight=0.5))
    assert np.abs(decoded - [0.5, 2.0, -2.0]).max() <= ours.parameters.step


@EVERY_WIDTH
def test_the_largest_sum_at_full_headroom_decodes(bits: int) -> None:
    """With all coins at their largest, too; the room is used to more than a quarter of what cannot wrap."""
    p = CKKSParameters(DEGREE, 128.0, 16, bits)
    assert 4 * p.largest * p.spacing > p.prime / 4
    ours = CKKS(p, ckks_key())
    for sign in (1.0, -1.0):
        total, uploads = encoded_sum(ours, [np.full(DEGREE, sign * 128.0)] * 16)
        assert (ours.decode(total, uploads) == sign * 2048).all()
    total, uploads = encoded_sum(ours, [np.full(DEGREE, 127.99)] * 16, random=counting())
    assert np.abs(ours.decode(total, uploads) - 16 * 127.99).max() <= 16 * p.step


def counting() -> Random:
    """Seeds and coins that differ, and can be said beforehand."""
    numbers = iter(range(1, 256))
    return lambda count: bytes([next(numbers)]) * count


@EVERY_WIDTH
def test_one_more_than_the_largest_sum_does_not_decode(bits: int) -> None:
    ours = coder(DEGREE, 1.0, 1, bits)
    total, uploads = encoded_sum(ours, [np.zeros(DEGREE)])
    for wholes, possible in ((ours.parameters.largest, True), (ours.parameters.largest + 1, False)):
        for sign in (1, -1):
            moved = plus(ours, total, np.full(DEGREE, sign * wholes))
            if possible:
                assert (ours.decode(moved, uploads) == sign * wholes / ours.parameters.levels).all()
            else:
                failure(ours, moved, uploads)


def plus(coder: CKKS, total: RingVector, wholes: Integers) -> RingVector:
    """Anybody can add to a sum what it knows."""
    values = transform_of(coder).forward(wholes * coder.parameters.spacing)
    return (total + values) % np.uint64(coder.parameters.prime)


@EVERY_WIDTH
def test_a_sum_with_noise_that_clients_added_decodes_to_that_noise(bits: int) -> None:
    """As far out as a tail of probability 2**-40 reaches, on top of the largest sum."""
    p = CKKSParameters(DEGREE, 4.0, 5, bits, noise=1.0)
    ours = CKKS(p, ckks_key())
    total, uploads = encoded_sum(ours, [np.full(DEGREE, 4.0)] * 5)
    added = np.linspace(-1, 1, DEGREE) * noise_tail(p.noise * p.levels, DEGREE)
    decoded = ours.decode(plus(ours, total, added.astype(np.int64)), uploads)
    assert (decoded == 20 + added.astype(np.int64) / p.levels).all()


@given(st.integers(-(2**30), 2**30), st.integers(6, 23), st.data())
def test_what_is_off_a_multiple_by_less_than_half_a_spacing_rounds_to_it(
    whole: int, exponent: int, data: st.DataObject
) -> None:
    half = 1 << exponent - 1
    off = data.draw(st.sampled_from([0, 1, -1, half - 1, 1 - half]) | st.integers(1 - half, half - 1))
    assert ckks._rounded(np.array([whole * 2 * half + off]), 2 * half).tolist() == [whole]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neither_the_update_nor_the_sum_is_changed(dtype: type) -> None:
    ours, update = coder(10), np.linspace(-9, 9, 10).astype(dtype)
    before = update.copy()
    total, uploads = encoded_sum(ours, [update])
    total.flags.writeable = False  # as one that was unpacked is
    assert (ours.decode(total, uploads) == ours.decode(total, uploads)).all() and (update == before).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    with pytest.raises(UpdateRejected, match="NaN"):
        coder(3).encode(np.array([0.0, bad, 0.0]), 1.0, SESSION, "c", os.urandom)


@pytest.mark.parametrize("shape", [(2,), (4,), (0,), (3, 1)])
def test_another_length_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UpdateRejected, match="shape"):
        coder(3).encode(np.zeros(shape), 1.0, SESSION, "c", os.urandom)


@pytest.mark.parametrize(
    "arguments",
    [
        {"degree": 8192},
        {"degree": 2048},
        {"bits": 55},
        {"bits": 32, "clients": 1000},  # would overflow
        {"clients": 1 << 32},
        {"noise": 2.0**40},
    ],
)
def test_what_could_overflow_or_has_no_keys_is_refused_at_construction(arguments: dict[str, float]) -> None:
    good: dict[str, float] = {"dimension": 3, "bound": 4.0, "clients": 5}
    CKKS(CKKSParameters(**good), ckks_key())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        CKKS(CKKSParameters(**good | arguments), ckks_key())  # type: ignore[arg-type]


# ---- what must not decrypt


def failure(coder: CKKS, total: RingVector, uploads: list[Upload]) -> tuple[type, str]:
    with pytest.raises(DecryptionFailed) as caught:
        coder.decode(total, uploads)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    return type(caught.value), str(caught.value)


def test_whatever_is_wrong_with_a_sum_the_failure_says_the_same() -> None:
    """That a sum decrypts by chance under another ``a`` or key is a matter of 4086 coefficients that would be zero."""
    ours = coder(10)
    p, spare = ours.parameters, [Upload(SESSION, "c2", bytes(32))]
    total, uploads = encoded_sum(ours, [np.ones(10), np.ones(10)])
    ours.decode(total, uploads)
    changed = total.copy()
    changed[0] = (int(changed[0]) + p.prime // 2) % p.prime
    beyond = plus(ours, total, np.eye(1, DEGREE, 9, np.int64)[0] * (p.largest + 1))
    padding = plus(ours, total, np.eye(1, DEGREE, 10, np.int64)[0])
    narrow = coder(10, bits=40)
    failures = {
        failure(ours, changed, uploads),
        failure(ours, beyond, uploads),
        failure(ours, padding, uploads),  # a value behind the last
        failure(ours, plus(ours, total, -np.eye(1, DEGREE, DEGREE - 1, np.int64)[0]), uploads),
        failure(ours, ours.layout.ring.zeros(len(total)), uploads),
        failure(ours, total, []),
        failure(ours, ours.layout.ring.zeros(len(total)), []),  # zero is what an empty sum decrypts to
        failure(ours, total, uploads[:1]),  # one contributor left out
        failure(ours, total, uploads + spare),
        failure(ours, total, [uploads[0], uploads[0]]),
        failure(ours, total, [uploads[0], Upload(SESSION, "c1", uploads[0].seed)]),  # a seed that repeats
        failure(ours, total, [Upload(b"another", u.sender, u.seed) for u in uploads]),
        failure(ours, total, [Upload(SESSION, name, u.seed) for name, u in zip("xy", uploads, strict=True)]),
        failure(ours, total, [Upload(SESSION, str(i), bytes([i]) * 32) for i in range(6)]),  # more than it is made for
        failure(coder(10, key=CKKSKey.generate(os.urandom)), total, uploads),
        failure(coder(11), total, uploads),  # other parameters have another a
        failure(coder(10, bound=2.0), total, uploads),
        failure(coder(10, bits=48), *encoded_sum(narrow, [np.ones(10)])),
        failure(ours, *encoded_sum(narrow, [np.ones(10)])),
    }
    assert len(failures) == 1


def test_valid_sums_with_a_repeated_seed_or_of_too_many_are_not_decoded() -> None:
    """Both would decrypt rightly: it is the seed and the count that are refused."""
    ours = coder(10)
    failure(ours, *encoded_sum(ours, [np.ones(10)] * 2, random=lambda count: b"\x05" * count))
    ours.decode(*encoded_sum(ours, [np.ones(10)] * 5))
    failure(ours, *encoded_sum(ours, [np.ones(10)] * 6))


def test_a_wrong_last_block_is_noticed(
    several_blocks: tuple[CKKS, NDArray[np.float32], RingVector, list[Upload]],
) -> None:
    ours, _, total, uploads = several_blocks
    for place in (0, len(total) - 1):
        changed = total.copy()
        changed[place] = (int(changed[place]) + ours.parameters.prime // 2) % ours.parameters.prime
        failure(ours, changed, uploads)


# ---- the key


def test_a_key_package_comes_back_and_nothing_of_another_length_does() -> None:
    key = ckks_key()
    data = key.to_bytes()
    again = CKKSKey.from_bytes(data)
    assert len(data) == 1056
    assert (again.coefficients == key.coefficients).all() and again.coefficients.dtype == key.coefficients.dtype
    assert again.tag_key == key.tag_key and again.key_id == key.key_id and again.to_bytes() == data
    for wrong in (b"", data[:-1], data + b"x", data[:1024], data[:31], data * 2):
        with pytest.raises(MalformedMessage, match="length"):
            CKKSKey.from_bytes(wrong)


@given(st.binary(min_size=1056, max_size=1056))
def test_random_bytes_are_no_key(data: bytes) -> None:
    """Without a pair of bits 3 with probability 0.75**4096, and hypothesis likes few different bytes."""
    try:
        key = CKKSKey.from_bytes(data)
    except MalformedMessage:
        return
    assert key.to_bytes() == data and 2457 <= np.count_nonzero(key.coefficients) <= 3072


@pytest.mark.parametrize("pair", range(4))
@pytest.mark.parametrize("byte", [0, 511, 1023])
def test_a_pair_of_bits_3_is_refused(byte: int, pair: int) -> None:
    data = bytearray(ckks_key().to_bytes())
    data[byte] |= 3 << 2 * pair
    with pytest.raises(MalformedMessage, match="no ternary draw"):
        CKKSKey.from_bytes(bytes(data))


def key_of_weight(weight: int) -> CKKSKey:
    """With so many coefficients that are not zero."""
    coefficients = np.zeros(DEGREE, np.int8)
    coefficients[:weight] = np.where(np.arange(weight) % 2, 1, -1)
    return CKKSKey(np.random.default_rng(weight).permutation(coefficients), b"t" * 32)


@pytest.mark.parametrize("weight", [0, 1, 2, 64, 2303, 3073, 4096])
def test_a_secret_that_is_almost_all_zero_or_has_hardly_any_is_refused(weight: int) -> None:
    with pytest.raises(MalformedMessage, match="no ternary draw"):
        CKKSKey.from_bytes(key_of_weight(weight).to_bytes())


@pytest.mark.parametrize("weight", [2457, 2731, 3072])
def test_a_secret_that_a_fair_draw_could_give_is_taken(weight: int) -> None:
    key = key_of_weight(weight)
    assert (CKKSKey.from_bytes(key.to_bytes()).coefficients == key.coefficients).all()


def test_a_fair_secret_is_refused_with_probability_below_2_to_minus_100() -> None:
    fair = stats.binom(DEGREE, 2 / 3)
    refused = np.logaddexp(fair.logcdf(ckks._FEWEST_NONZERO - 1), fair.logsf(ckks._MOST_NONZERO)) / math.log(2)
    assert refused < -100


def test_every_key_is_new_and_not_printed() -> None:
    one, two = CKKSKey.generate(os.urandom), CKKSKey.generate(os.urandom)
    assert one.tag_key != two.tag_key and (one.coefficients != two.coefficients).any()
    assert repr(one) == "CKKSKey()"
    task = coder(3, key=one)._task([Upload(SESSION, "c1", bytes(32))])
    assert "array" not in repr(task) and "Mask" not in repr(task)
    assert "array" not in repr(ckks._Block(0, np.ones(3, np.int64)))
    assert repr(one.tag_key)[2:-1] not in repr(coder(3, key=one)) and "array" not in repr(coder(3, key=one))
    assert "array" not in repr(Encoded(np.ones(3, np.uint64), b""))


def test_a_key_id_names_the_whole_key_and_says_nothing_of_it() -> None:
    key = ckks_key()
    flipped = key.coefficients.copy()
    flipped[np.flatnonzero(flipped)[-1]] *= -1
    others = [replace(key, tag_key=bytes(32)), replace(key, coefficients=flipped), CKKSKey.generate(os.urandom)]
    assert len({key.key_id, *(other.key_id for other in others)}) == 4
    assert len(key.key_id) == 32 and key.key_id not in key.to_bytes()


def test_the_key_is_a_fair_ternary_draw() -> None:
    """Chi-square over -1, 0 and 1: false alarm 1e-6."""
    coefficients = np.concatenate([CKKSKey.generate(os.urandom).coefficients for _ in range(10)])
    assert coefficients.dtype == np.int8 and set(coefficients.tolist()) == {-1, 0, 1}
    assert stats.chisquare(np.bincount(coefficients + 1)).pvalue > 1e-6


# ---- SEAL agrees


def framed_ciphertext(context: seal.SEALContext, c0: RingVector, c1: RingVector) -> bytes:
    """SEAL's file of a ciphertext of two polynomials, by values, at scale 1."""
    words = np.concatenate([c0, c1])
    array = sealfile.framed(struct.pack("<Q", len(words)) + words.tobytes())
    head = struct.pack("<4QB3QdQ", *context.first_parms_id(), True, 2, DEGREE, 1, 1.0, 1)
    return sealfile.framed(head + array)


def opened_by_seal(coder: CKKS, c0: RingVector, c1: RingVector) -> Integers:
    """The coefficients that SEAL's own decryptor finds."""
    context, ciphertext, plaintext = ckks._context(coder.parameters.prime), seal.Ciphertext(), seal.Plaintext()
    with sealfile.scratch() as file:
        key = ckks._secret_key(coder._task([]), context, file)
        file.write(framed_ciphertext(context, c0, c1))
        ciphertext.load(context, file.path)
        seal.Decryptor(context, key).decrypt(ciphertext, plaintext)
        return transform_of(coder).inverse(sealfile.words(plaintext.dyn_array(), DEGREE, file))


def public_a(coder: CKKS, *uploads: Upload) -> RingVector:
    return ckks._sum_of_a(coder._task(uploads), ckks._Block(0, coder.layout.ring.zeros(DEGREE)))


@EVERY_WIDTH
def test_seals_own_decryptor_opens_an_upload_as_we_do(bits: int) -> None:
    ours = coder(DEGREE, bits=bits)
    p, update = ours.parameters, np.random.default_rng(bits).uniform(-4, 4, DEGREE)
    vector, uploads = encoded_sum(ours, [update])
    opened = opened_by_seal(ours, vector, public_a(ours, *uploads))
    assert (opened == decrypted(ours, vector, uploads)).all()
    assert (ckks._rounded(opened, p.spacing) / p.levels == ours.decode(vector, uploads)).all()


@EVERY_WIDTH
def test_seals_own_decryptor_opens_a_sum(bits: int) -> None:
    ours = coder(DEGREE, bits=bits)
    total, uploads = encoded_sum(ours, list(np.random.default_rng(bits).uniform(-4, 4, (5, DEGREE))))
    opened = opened_by_seal(ours, total, public_a(ours, *uploads))
    assert (
        ckks._rounded(opened, ours.parameters.spacing) / ours.parameters.levels == ours.decode(total, uploads)
    ).all()


def seal_encryption(coder: CKKS, plaintext: seal.Plaintext | None = None) -> tuple[RingVector, RingVector]:
    """One fresh symmetric encryption of SEAL's, of zero unless a plaintext is given, as (c0, c1)."""
    context, ciphertext = ckks._context(coder.parameters.prime), seal.Ciphertext()
    with sealfile.scratch() as file:
        encryptor = seal.Encryptor(context, ckks._secret_key(coder._task([]), context, file))
        if plaintext is None:
            encryptor.encrypt_zero_symmetric(ciphertext)
        else:
            encryptor.encrypt_symmetric(plaintext, ciphertext)
        words = sealfile.words(ciphertext.dyn_array(), 2 * DEGREE, file)
    return words[:DEGREE], words[DEGREE:]


def moved(coder: CKKS, c0: RingVector, c1: RingVector, upload: Upload) -> RingVector:
    prime = coder.parameters.prime
    return shift(c0, minus(c1, public_a(coder, upload), prime), coder._secret, prime)


def minus(left: RingVector, right: RingVector, prime: int) -> RingVector:
    return (left + (np.uint64(prime) - right)) % np.uint64(prime)


@EVERY_WIDTH
def test_we_open_what_seal_encoded_and_encrypted(bits: int) -> None:
    """Through its slots, which we do not use: the coefficients are those of its plaintext, and its noise."""
    ours, upload, plaintext = coder(DEGREE, bits=bits), Upload(SESSION, "c1", os.urandom(32)), seal.Plaintext()
    encoder = seal.CKKSEncoder(ckks._context(ours.parameters.prime))
    slots = np.random.default_rng(bits).uniform(-1, 1, DEGREE // 2)
    encoder.encode(slots.tolist(), 2.0**24, plaintext)
    with sealfile.scratch() as file:
        message = transform_of(ours).inverse(sealfile.words(plaintext.dyn_array(), DEGREE, file))
    opened = decrypted(ours, moved(ours, *seal_encryption(ours, plaintext), upload), [upload])
    assert np.abs(message).max() > 2**16 and np.abs(opened - message).max() <= LARGEST_NOISE


# ---- noise and looks


def goodness(noise: Integers) -> float:
    """Chi-square against a centred binomial of 42 coins, in cells that expect at least 20."""
    expected = stats.binom.pmf(np.arange(43), 42, 0.5) * len(noise)
    counts = np.bincount(noise + 21, minlength=43)
    inner = np.flatnonzero(expected >= 20)
    cells = [slice(0, inner[0] + 1), *(slice(i, i + 1) for i in inner[1:-1]), slice(inner[-1], 43)]
    return float(stats.chisquare(*([each[cell].sum() for cell in cells] for each in (counts, expected))).pvalue)


def of_moved(coder: CKKS) -> Iterator[Integers]:
    """The noise of uploads of zeros, without end."""
    while True:
        encoded = coder.encode(np.zeros(DEGREE), 1.0, SESSION, "c1", os.urandom)
        yield decrypted(coder, encoded.vector, [Upload(SESSION, "c1", encoded.seed)])


def of_seals(coder: CKKS) -> Iterator[Integers]:
    """The noise of SEAL's own encryptions of zero, without end."""
    while True:
        c0, c1 = seal_encryption(coder)
        values = (c0 + multiply(c1, coder._secret, coder.parameters.prime)) % np.uint64(coder.parameters.prime)
        yield transform_of(coder).inverse(values)


@pytest.mark.parametrize("noises", [of_moved, of_seals])
@EVERY_WIDTH
def test_a_moved_ciphertext_has_the_noise_of_seals_own(noises: Callable[[CKKS], Iterator[Integers]], bits: int) -> None:
    """Both are centred binomials of 42 coins in 40960 coefficients: false alarm 1e-6 each. (Their deviation would be
    3 % off with probability below 1e-15.)"""
    stream = noises(coder(DEGREE, bits=bits))
    noise = np.concatenate([next(stream) for _ in range(10)])
    assert np.abs(noise).max() <= LARGEST_NOISE and noise.std() == pytest.approx(NOISE_DEVIATION, rel=0.03)
    assert goodness(noise) > 1e-6


@EVERY_WIDTH
def test_an_upload_looks_uniform(bits: int) -> None:
    """Chi-square over 256 cells, 40960 residues of one constant update: false alarm 1e-6."""
    ours = coder(DEGREE, bits=bits)
    residues = np.concatenate([encoded_sum(ours, [np.full(DEGREE, 4.0)])[0] for _ in range(10)])
    counts = np.bincount((residues.astype(np.float64) / ours.parameters.prime * 256).astype(int), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_noise_is_fresh_for_each_encryption_even_if_the_generator_repeats() -> None:
    """The noise is SEAL's: under one seed, two uploads differ by it. Of two independent noises 91 % of the
    coefficients differ, fewer than 88 % with probability below 1e-9, and a correlation of 0.1 has 1e-10.
    """
    ours = coder(DEGREE)
    one, two = (
        decrypted(ours, *encoded_sum(ours, [np.zeros(DEGREE)], random=lambda count: b"\x05" * count)) for _ in range(2)
    )
    assert (one != two).mean() > 0.88
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


def test_noise_is_fresh_for_each_ciphertext_of_an_upload() -> None:
    """As above, for neighbours in one upload."""
    ours = coder(2 * DEGREE)
    total, uploads = encoded_sum(ours, [np.zeros(2 * DEGREE)])
    one, two = ckks._decrypt(ours._task(uploads), ckks._Block(0, total)).reshape(2, DEGREE)
    assert (one != two).mean() > 0.88
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


# ---- why the design is as it is: attacks, and that our code path offers none


def on_the_grid(coder: CKKS) -> NDArray[np.float64]:
    """An update that rounding leaves alone: below 2**20 levels a float64 holds every coin."""
    levels = np.random.default_rng(2).integers(-(1 << 19), 1 << 19, DEGREE)
    return levels / coder.parameters.levels


def solve(difference: RingVector, factor: RingVector, prime: int) -> list[int]:
    """The s with factor * s = difference, elementwise."""
    return [int(d) * pow(int(f), -1, prime) % prime for d, f in zip(difference, factor, strict=True)]


def key_behind(coder: CKKS, values: list[int]) -> Integers:
    return transform_of(coder).inverse(np.array(values, np.uint64))


def nothing_of(values: list[int], secret: RingVector) -> bool:
    """Not one value of s. False alarm: 4096 of 2**54, below 1e-12."""
    return not (np.array(values, np.uint64) == secret).any()


def moves_of(c0: RingVector, c1: RingVector) -> type[ckks._Noise]:
    """Weak: SEAL encrypted zero once, and every upload is a move of that ciphertext, which is to say has its noise."""

    class MovesOne(ckks._Noise):
        def __init__(self, task: ckks._Task, file: ckks._Scratch) -> None:
            prime = task.parameters.prime
            self._kept = (c0 + multiply(c1, task.secret, prime)) % np.uint64(prime)

        def fresh(self) -> RingVector:
            return self._kept

    return MovesOne


def two_uploads(coder: CKKS) -> list[tuple[RingVector, RingVector]]:
    """Of one update, by one client, each with its public a."""
    made = [encoded_sum(coder, [on_the_grid(coder)]) for _ in range(2)]
    return [(vector, public_a(coder, *uploads)) for vector, uploads in made]


def from_two(coder: CKKS) -> list[int]:
    """Where both are moves of one encryption, their difference is that of their a times s."""
    (one, its_a), (two, other_a) = two_uploads(coder)
    prime = coder.parameters.prime
    return solve(minus(one, two, prime), minus(other_a, its_a, prime), prime)


@pytest.mark.attack("two moves of one encryption")
def test_two_moves_of_one_encryption_recover_the_key_and_every_upload_is_a_fresh_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = coder(DEGREE)
    with monkeypatch.context() as weak:
        weak.setattr(ckks, "_Noise", moves_of(*seal_encryption(ours)))
        assert (key_behind(ours, from_two(ours)) == ckks_key().coefficients).all()
    assert nothing_of(from_two(ours), ours._secret)


def from_one_and(coder: CKKS, original: tuple[RingVector, RingVector]) -> list[int]:
    """An upload of zeros (the model was dead), less the original that it was moved from."""
    vector, uploads = encoded_sum(coder, [np.zeros(DEGREE)])
    prime, (c0, c1) = coder.parameters.prime, original
    return solve(minus(vector, c0, prime), minus(c1, public_a(coder, *uploads), prime), prime)


@pytest.mark.attack("one move and the original")
def test_one_move_and_the_original_recover_the_key_and_the_original_does_not_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the real one there is nothing to see but uploads: what is in an encoding, and other encryptions."""
    ours = coder(DEGREE)
    original = seal_encryption(ours)
    with monkeypatch.context() as weak:
        weak.setattr(ckks, "_Noise", moves_of(*original))
        assert (key_behind(ours, from_one_and(ours, original)) == ckks_key().coefficients).all()
    assert nothing_of(from_one_and(ours, original), ours._secret)
    assert all(nothing_of(from_one_and(ours, upload), ours._secret) for upload in two_uploads(ours))
    assert [*Encoded.__dataclass_fields__] == ["vector", "seed"]


def test_a_decryption_under_a_chosen_c1_is_the_key_itself() -> None:
    ours = coder(DEGREE)
    zero, one = ours.layout.ring.zeros(DEGREE), np.ones(DEGREE, np.uint64)
    assert shift(zero, one, ours._secret, ours.parameters.prime).tolist() == ours._secret.tolist()


REBUILT = ckks._sum_of_a


def sent_with(change: Integers) -> Callable[[ckks._Task, ckks._Block], RingVector]:
    """Weak: the sum of a is not rebuilt but sent by the server, which adds a polynomial of its own."""

    def sent(task: ckks._Task, block: ckks._Block) -> RingVector:
        values = transform(DEGREE, task.parameters.prime).forward(change)
        return (REBUILT(task, block) + values) % np.uint64(task.parameters.prime)

    return sent


@pytest.mark.attack("a c1 chosen by the server")
@EVERY_WIDTH
def test_a_small_change_of_c1_recovers_the_key_from_a_sum_that_passes_every_check(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spacing, added to the constant coefficient of c1, adds s to the whole numbers: a step here and there.

    Ours rebuilds c1 from seeds. What the server can send is a sum: what it adds there, it knows, and sees again.
    """
    ours = coder(DEGREE, bits=bits)
    total, uploads = encoded_sum(ours, list(np.random.default_rng(3).uniform(-4, 4, (3, DEGREE))))
    honest, constant = ours.decode(total, uploads), np.eye(1, DEGREE, 0, np.int64)[0]
    with monkeypatch.context() as weak:
        weak.setattr(ckks, "_sum_of_a", sent_with(constant * ours.parameters.spacing))
        leak = (ours.decode(total, uploads) - honest) * ours.parameters.levels
        assert (leak == ckks_key().coefficients).all()
    seen = (ours.decode(plus(ours, total, constant), uploads) - honest) * ours.parameters.levels
    assert (seen == constant).all()
    failure(ours, total, [replace(uploads[0], seed=os.urandom(32)), *uploads[1:]])


def test_no_door_takes_a_c1() -> None:
    """What reaches the key is a sum of c0 and seeds. That the seeds are the contributors' own is in test_apply."""
    assert ApplyRequest.__struct_fields__ == (
        "run", "round", "attempt", "total", "cohort", "shared", "keys", "inputs", "consents",
    )  # fmt: skip
    for decode in (CKKS.decode, Encoding.decode):
        assert list(inspect.signature(decode).parameters) == ["self", "total", "uploads"]
    assert [*Upload.__dataclass_fields__] == ["session", "sender", "seed"]
    public = [name for name in vars(CKKS) if not name.startswith("_")]
    assert sorted(public) == ["decode", "encode", "layout"]


def unbound(parameters: CKKSParameters, uploads: Sequence[Upload]) -> list[Mask]:
    """Weak: ``a`` follows from the seed alone."""
    return rlwe.a_masks(parameters, [Upload(b"", "", upload.seed) for upload in uploads])


def difference_read(coder: CKKS, one: tuple[bytes, str], two: tuple[bytes, str]) -> Integers:
    """Two uploads from a generator that repeats, the first of zeros: their difference, opened without the key."""
    vectors = [
        coder.encode(update, 1.0, *whose, lambda count: b"\x05" * count).vector
        for update, whose in zip((np.zeros(DEGREE), on_the_grid(coder)), (one, two), strict=True)
    ]
    difference = transform_of(coder).inverse(minus(vectors[1], vectors[0], coder.parameters.prime))
    return ckks._rounded(difference, coder.parameters.spacing)


@pytest.mark.attack("a seed that repeats")
@pytest.mark.parametrize("two", [(b"next session", "c1"), (SESSION, "c2")], ids=["in the next round", "in one round"])
def test_under_one_a_two_uploads_show_how_their_updates_differ_without_the_key(
    two: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is bound to session and sender, and one client encodes once in a session. False alarm: of 4096 random
    coefficients one is within the spacing of the right one with probability 2**-25."""
    ours, one = coder(DEGREE), (SESSION, "c1")
    update = on_the_grid(ours) * ours.parameters.levels
    with monkeypatch.context() as weak:
        weak.setattr(ckks, "a_masks", unbound)
        assert (difference_read(ours, one, two) == update).all()
    assert not (difference_read(ours, one, two) == update).any()


class RepeatsItsSeed(AggregationClient):
    """Its generator has lost its state when it encodes."""

    def _encode(self) -> Encoded:
        self._random = lambda count: b"\x05" * count
        return super()._encode()


@pytest.mark.attack("a seed that repeats")
def test_a_server_and_a_decoder_take_no_seed_twice() -> None:
    cohort = make("ckks-unmasked", types={"c1": RepeatsItsSeed, "c2": RepeatsItsSeed})
    aggregate = cohort.run(Wire(cohort.clients))
    assert set(aggregate.faults) == {"c2"} and "seed" in aggregate.faults["c2"]
    assert cohort.is_right(aggregate) and "c2" not in aggregate.contributors
    ours = coder(10)
    failure(ours, *encoded_sum(ours, [np.ones(10)] * 2, random=lambda count: b"\x05" * count))


def read_without_a_key(coder: CKKS, vector: RingVector) -> NDArray[np.float64]:
    """What anybody sees who takes c0 for the message."""
    coefficients = transform_of(coder).inverse(vector)
    return ckks._rounded(coefficients, coder.parameters.spacing) / coder.parameters.levels


@pytest.mark.attack("a key that is not fair")
@EVERY_WIDTH
def test_under_an_all_zero_key_anybody_reads_an_update_and_such_a_key_is_refused(bits: int) -> None:
    """Nobody would notice: sums are right. Under a fair key coefficients are uniform in +-p/2, that is +-40 and more:
    4096 of them are off by less than 4 on average with probability below 1e-100."""
    weak, ours = coder(DEGREE, bits=bits, key=key_of_weight(0)), coder(DEGREE, bits=bits)
    update = np.random.default_rng(4).uniform(-4, 4, DEGREE)
    vector, uploads = encoded_sum(weak, [update])
    assert (read_without_a_key(weak, vector) == weak.decode(vector, uploads)).all()
    assert np.abs(read_without_a_key(weak, vector) - update).max() <= weak.parameters.step
    with pytest.raises(MalformedMessage, match="no ternary draw"):
        CKKSKey.from_bytes(key_of_weight(0).to_bytes())
    vector, uploads = encoded_sum(ours, [update])
    assert np.abs(read_without_a_key(ours, vector) - update).mean() > 4


# ---- noise beside the update


@EVERY_WIDTH
def test_noise_is_added_in_whole_steps_before_encryption_and_its_sum_decrypts_exactly(bits: int) -> None:
    generator, n = np.random.default_rng(bits), DEGREE + 3
    ours = CKKS(CKKSParameters(n, 1.0, 3, bits, 2.0), ckks_key())
    levels = ours.parameters.levels
    update = generator.integers(-levels, levels, n) / levels
    noises = [generator.integers(-3 * int(levels), 3 * int(levels), n) for _ in range(3)]
    total, uploads = RunningSum(ours.layout.ring, ours.layout.length), []
    for number, noise in enumerate(noises):
        encoded = ours.encode(update, 1.0, SESSION, f"c{number}", os.urandom, noise)
        total.add(encoded.vector)
        uploads.append(Upload(SESSION, f"c{number}", encoded.seed))
    np.testing.assert_array_equal(ours.decode(total.finish(), uploads), 3 * update + sum(noises) / levels)


def test_noise_spans_several_blocks_and_leaves_the_padding_empty() -> None:
    ours = CKKS(CKKSParameters(SEVERAL_BLOCKS, 1.0, 3, noise=2.0), ckks_key())
    noise = np.random.default_rng(1).integers(-1000, 1000, SEVERAL_BLOCKS)
    before = noise.copy()
    encoded = ours.encode(np.zeros(SEVERAL_BLOCKS), 1.0, SESSION, "c", os.urandom, noise)
    values = ours.decode(encoded.vector, [Upload(SESSION, "c", encoded.seed)])
    assert (values * ours.parameters.levels == noise).all()
    assert (noise == before).all()


@pytest.mark.parametrize("shape", [(9,), (11,), (0,), (1,), (DEGREE,)])
def test_noise_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UpdateRejected, match="noise of shape"):
        coder(10).encode(np.zeros(10), 1.0, SESSION, "c", os.urandom, np.zeros(shape, np.int64))


def test_of_what_is_beyond_the_room_for_noise_nothing_decrypts() -> None:
    """Whole numbers that no honest sum can be: a sum that wraps would pass for another."""
    ours = coder(10)
    noise = np.zeros(10, np.int64)
    noise[3] = ours.parameters.largest + 1
    encoded = ours.encode(np.zeros(10), 1.0, SESSION, "c", os.urandom, noise)
    failure(ours, encoded.vector, [Upload(SESSION, "c", encoded.seed)])
