from __future__ import annotations

import inspect
import os

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.aggregation.messages import ApplyRequest
from protocols.encoding import Encoding, Upload
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.encoding.rlwe import DEGREE, NOISE_DEVIATION, PRIME, CKKSParameters, public_a, shift
from protocols.errors import ConfigurationError, DecryptionFailed, MalformedMessage, UpdateRejected
from protocols.ring import Ring, RingVector
from tests.protocols.cohort import ckks_key

SESSION = b"session".ljust(32)
RING = Ring(PRIME)


def coder(dimension: int, bound: float = 4.0, clients: int = 5) -> CKKS:
    return CKKS(CKKSParameters(dimension, bound, clients), ckks_key())


def encoded_sum(ckks: CKKS, updates: list[np.ndarray], weight: float = 1.0) -> tuple[RingVector, list[Upload]]:
    total, uploads = ckks.layout.ring.zeros(ckks.layout.length), []
    for number, update in enumerate(updates):
        encoded = ckks.encode(update, weight, SESSION, f"c{number}", os.urandom)
        total = (total + encoded.vector) % np.uint64(PRIME)
        uploads.append(Upload(SESSION, f"c{number}", encoded.seed))
    return total, uploads


@settings(max_examples=20)
@given(st.integers(1, DEGREE), st.integers(1, 5), st.floats(2**-4, 2**8), st.integers(0, 2**32))
def test_a_decoded_sum_is_off_by_at_most_half_a_grid_step_and_noise(
    dimension: int, clients: int, bound: float, seed: int
) -> None:
    """Half the grid for rounding, and 8 standard deviations of noise: beyond them once in 1e15 coordinates."""
    ckks = coder(dimension, bound)
    updates = list(np.random.default_rng(seed).uniform(-bound, bound, (clients, dimension)))
    decoded = ckks.decode(*encoded_sum(ckks, updates))
    p = ckks.parameters
    assert decoded.shape == (dimension,)
    assert np.abs(decoded - sum(updates)).max() <= p.grid / 2 + 8 * p.noise
    assert (decoded / p.grid == np.rint(decoded / p.grid)).all()


def test_a_model_of_several_ciphertexts_comes_back_in_order() -> None:
    ckks = coder(2 * DEGREE + 3)
    update = np.linspace(-4, 4, 2 * DEGREE + 3)
    assert np.abs(ckks.decode(*encoded_sum(ckks, [update])) - update).max() <= ckks.parameters.grid


def test_weights_scale_and_the_bound_cuts_off() -> None:
    ckks = coder(3)
    decoded = ckks.decode(*encoded_sum(ckks, [np.array([1.0, 100.0, -100.0])], weight=0.5))
    assert np.abs(decoded - [0.5, 2.0, -2.0]).max() <= ckks.parameters.grid


def test_the_largest_sum_at_full_headroom_decodes() -> None:
    """A constant vector is one large coefficient: the case that uses the headroom up."""
    parameters = CKKSParameters(DEGREE, 128.0, 16)
    assert 2 * parameters.clients * parameters.bound * parameters.scale >= PRIME / 4
    ckks = CKKS(parameters, ckks_key())
    for sign in (1.0, -1.0):
        updates = [np.full(DEGREE, sign * 128.0)] * 16
        assert np.abs(ckks.decode(*encoded_sum(ckks, updates)) - sign * 2048).max() <= parameters.grid


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    with pytest.raises(UpdateRejected):
        coder(3).encode(np.array([0.0, bad, 0.0]), 1.0, SESSION, "c", os.urandom)


def test_parameters_that_the_keys_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="degree"):
        CKKS(CKKSParameters(3, 4.0, 5, degree=8192), ckks_key())
    with pytest.raises(ConfigurationError, match="prime"):
        CKKS(CKKSParameters(3, 4.0, 5, prime=40961 * 2**20 + 1), ckks_key())


# ---- what must not decrypt


def failure(ckks: CKKS, total: RingVector, uploads: list[Upload]) -> tuple[type, str]:
    with pytest.raises(DecryptionFailed) as caught:
        ckks.decode(total, uploads)
    return type(caught.value), str(caught.value)


def test_whatever_is_wrong_with_a_sum_the_failure_says_the_same() -> None:
    ckks = coder(10)
    total, uploads = encoded_sum(ckks, [np.ones(10), np.ones(10)])
    ckks.decode(total, uploads)
    changed = total.copy()
    changed[0] = (int(changed[0]) + PRIME // 2) % PRIME
    failures = {
        failure(ckks, changed, uploads),
        failure(ckks, RING.zeros(len(total)), uploads),
        failure(ckks, total, uploads[:1]),  # one contributor left out
        failure(ckks, total, [*uploads, Upload(SESSION, "c2", bytes(32))]),
        failure(ckks, total, [uploads[0], uploads[0]]),
        failure(ckks, total, [uploads[0], Upload(SESSION, "c2", uploads[0].seed)]),  # a seed that repeats
        failure(ckks, total, [Upload(b"another", u.sender, u.seed) for u in uploads]),
        failure(ckks, total, [Upload(SESSION, str(i), bytes([i]) * 32) for i in range(6)]),  # more than it is made for
        failure(CKKS(ckks.parameters, CKKSKey.generate(os.urandom)), total, uploads),
    }
    assert len(failures) == 1


def test_a_sum_beyond_the_bound_is_not_decoded() -> None:
    wide, narrow = coder(10, bound=4.0), coder(10, bound=4.0)
    total, uploads = encoded_sum(wide, [np.full(10, 4.0)] * 2)
    doubled = (total + total) % np.uint64(PRIME)
    failure(narrow, doubled, uploads)


def test_valid_sums_with_a_repeated_seed_or_of_too_many_are_not_decoded() -> None:
    """Both would decrypt rightly: it is the seed and the count that are refused."""
    ckks = coder(10)
    ones = [ckks.encode(np.ones(10), 1.0, SESSION, name, lambda count: b"\x05" * count) for name in ("c0", "c1")]
    total = (ones[0].vector + ones[1].vector) % np.uint64(PRIME)
    failure(ckks, total, [Upload(SESSION, name, one.seed) for name, one in zip(("c0", "c1"), ones, strict=True)])
    ckks.decode(*encoded_sum(ckks, [np.ones(10)] * 5))
    failure(ckks, *encoded_sum(ckks, [np.ones(10)] * 6))


# ---- the key


def test_a_key_package_comes_back_and_nothing_else_does() -> None:
    key = ckks_key()
    data = key.to_bytes()
    again = CKKSKey.from_bytes(data)
    assert (again.secret == key.secret).all() and again.tag_key == key.tag_key and again.key_id == key.key_id
    for wrong in (b"", data[:-1], data + b"x", b"\xff" * len(data), data[:31]):
        with pytest.raises(MalformedMessage):
            CKKSKey.from_bytes(wrong)


def test_every_key_is_new_and_not_printed() -> None:
    one, two = CKKSKey.generate(os.urandom), CKKSKey.generate(os.urandom)
    assert one.key_id != two.key_id and one.tag_key != two.tag_key and (one.secret != two.secret).any()
    assert str(int(one.secret[0])) not in repr(one) and repr(one.tag_key)[2:-1] not in repr(one)
    assert one.key_id not in one.to_bytes()


def test_the_key_is_ternary_and_belongs_to_seals_transform() -> None:
    """Its coefficients, recovered by decoding s itself as if it were a message of scale 1, are -1, 0 and 1."""
    slots = coder(1)._decode_block(ckks_key().secret) * coder(1).parameters.scale
    coefficients = coefficients_of(slots[: DEGREE // 2] + 1j * slots[DEGREE // 2 :], 1.0)
    assert (coefficients == ckks_key().secret).all()


# ---- why the design is as it is: two attacks, and that our code path offers neither


def seal_encryption(ckks: CKKS, value: float) -> tuple[RingVector, RingVector]:
    """One fresh symmetric SEAL encryption, as (c0, c1)."""
    plaintext, ciphertext = seal.Plaintext(), seal.Ciphertext()
    ckks._encoder.encode([complex(value)] * (DEGREE // 2), ckks.parameters.scale, plaintext)
    ckks._encryptor.encrypt_symmetric(plaintext, ciphertext)
    words = np.array([ciphertext[i] for i in range(2 * DEGREE)], np.uint64)
    return words[:DEGREE], words[DEGREE:]


def subtract(left: RingVector, right: RingVector) -> RingVector:
    return (left + (np.uint64(PRIME) - right)) % np.uint64(PRIME)


def solve(difference: RingVector, factor: RingVector) -> list[int]:
    """The s with factor * s = difference, elementwise."""
    return [int(d) * pow(int(f), -1, PRIME) % PRIME for d, f in zip(difference, factor, strict=True)]


def an_a(ckks: CKKS, sender: str) -> RingVector:
    return public_a(ckks.parameters, Upload(SESSION, sender, os.urandom(32)))


def test_two_moves_of_one_encryption_recover_the_key() -> None:
    ckks, s = coder(DEGREE), ckks_key().secret
    c0, c1 = seal_encryption(ckks, 1.25)
    one, two = an_a(ckks, "c1"), an_a(ckks, "c2")
    moved = [shift(c0, subtract(c1, a), s, PRIME) for a in (one, two)]
    assert solve(subtract(moved[0], moved[1]), subtract(two, one)) == s.tolist()


def test_one_move_and_the_original_recover_the_key() -> None:
    ckks, s = coder(DEGREE), ckks_key().secret
    c0, c1 = seal_encryption(ckks, 1.25)
    a = an_a(ckks, "c1")
    moved = shift(c0, subtract(c1, a), s, PRIME)
    assert solve(subtract(moved, c0), subtract(c1, a)) == s.tolist()


def test_encoding_the_same_update_again_is_a_fresh_encryption_so_the_attack_gives_nothing() -> None:
    """By chance one residue in 2**54 would agree. A re-sent upload is the same bytes: no second equation."""
    ckks, s = coder(DEGREE), ckks_key().secret
    update = np.full(DEGREE, 1.25)
    encoded = [ckks.encode(update, 1.0, SESSION, "c1", os.urandom) for _ in range(2)]
    assert encoded[0].seed != encoded[1].seed
    one, two = (public_a(ckks.parameters, Upload(SESSION, "c1", e.seed)) for e in encoded)
    guessed = solve(subtract(encoded[0].vector, encoded[1].vector), subtract(two, one))
    assert (np.array(guessed, np.uint64) != s).all()


def test_even_a_generator_that_repeats_its_seed_gets_a_fresh_encryption() -> None:
    """The noise is SEAL's own: with one ``a``, the uploads differ by noise alone, which says nothing exact about s."""
    ckks = coder(DEGREE)
    one, two = (ckks.encode(np.zeros(DEGREE), 1.0, SESSION, "c1", lambda n: b"\x05" * n).vector for _ in range(2))
    assert (one != two).mean() > 0.99


def coefficients_of(slots: np.ndarray, scale: float) -> RingVector:
    """Round slots * scale to an integer polynomial, in evaluation form: what a CKKS encoder does."""
    encoder, plaintext = coder(1)._encoder, seal.Plaintext()
    encoder.encode(slots.tolist(), scale, plaintext)
    return np.array([plaintext[i] for i in range(DEGREE)], np.uint64)


def test_a_decryption_under_a_chosen_c1_is_the_key_itself() -> None:
    s = ckks_key().secret
    zero, one = RING.zeros(DEGREE), np.ones(DEGREE, np.uint64)
    assert shift(zero, one, s, PRIME).tolist() == s.tolist()


def test_a_small_change_of_c1_recovers_the_key_from_a_decryption_that_passes_every_check() -> None:
    """2**34 added to the constant coefficient of c1 adds s / 64: within the bound, and far above the grid."""
    ckks = coder(DEGREE, bound=64.0)
    p, s = ckks.parameters, ckks_key().secret
    total, uploads = encoded_sum(ckks, [np.linspace(-1, 1, DEGREE)] * 3)
    a = ckks._sum_of_a(uploads)
    assert p.scale == 2.0**40 or p.scale * 2**-34 >= 4
    tampered = (a + np.uint64(1 << 34)) % np.uint64(
        PRIME
    )  # a constant polynomial is the same in every evaluation point

    def decrypted(c1: RingVector) -> np.ndarray:
        values = np.rint(ckks._decrypt(total, c1) / p.grid) * p.grid
        assert (np.abs(values) <= len(uploads) * p.bound + p.grid).all(), "the range check does not notice"
        return values

    leak = decrypted(tampered) - decrypted(a)
    slots = leak[: DEGREE // 2] + 1j * leak[DEGREE // 2 :]
    assert (coefficients_of(slots, p.scale / 2**34) == s).all()


def test_no_door_takes_a_c1() -> None:
    """What reaches the key is a sum of c0 and seeds. That the seeds are the contributors' own is in test_apply."""
    assert ApplyRequest.__struct_fields__ == (
        "run", "round", "attempt", "total", "cohort", "shared", "keys", "inputs", "consents",
    )  # fmt: skip
    for decode in (CKKS.decode, Encoding.decode):
        assert list(inspect.signature(decode).parameters) == ["self", "total", "uploads"]
    assert [field for field in Upload.__dataclass_fields__] == ["session", "sender", "seed"]
    public = [name for name in vars(CKKS) if not name.startswith("_")]
    assert sorted(public) == ["decode", "encode", "layout"]


# ---- noise and looks


def test_a_moved_ciphertext_has_the_noise_of_seals_own() -> None:
    """Per coefficient 3.2 in both; an estimate from 40960 samples is 10 % off with probability below 1e-150."""
    ckks, s = coder(DEGREE), ckks_key().secret
    ours, theirs = [], []
    for _ in range(10):
        upload = ckks.encode(np.zeros(DEGREE), 1.0, SESSION, "c1", os.urandom)
        ours.append(ckks._decrypt(upload.vector, public_a(ckks.parameters, Upload(SESSION, "c1", upload.seed))))
        c0, c1 = seal_encryption(ckks, 0.0)
        theirs.append(ckks._decode_block(shift(c0, c1, s, PRIME)))
    for sample in (ours, theirs):
        # A slot's real part is a sum of DEGREE coefficients with squared weights of 1/2 on average.
        deviation = np.std(sample) * ckks.parameters.scale / np.sqrt(DEGREE / 2)
        assert deviation == pytest.approx(NOISE_DEVIATION, rel=0.1)
    assert np.std(ours) <= ckks.parameters.noise


def test_an_upload_looks_uniform() -> None:
    """Chi-square over 256 cells, 40960 residues of one constant update: false alarm 1e-6."""
    from scipy import stats

    ckks = coder(DEGREE)
    residues = np.concatenate(
        [ckks.encode(np.full(DEGREE, 4.0), 1.0, SESSION, "c1", os.urandom).vector for _ in range(10)]
    )
    counts = np.bincount((residues.astype(np.float64) / PRIME * 256).astype(int), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-6
