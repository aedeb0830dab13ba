"""CKKS through SEAL: the only door to ``tenseal``. Whoever holds a ``CKKSKey`` can encrypt and decrypt.

Encrypted once by SEAL, then moved once onto an ``a`` from a public seed, so that only c0 travels. What comes back is a
sum of c0; the sum of ``a`` is rebuilt here from the contributors' signed seeds and never taken from the server.
SEAL makes keys and encrypts; decryption is arithmetic of ours. Nothing that a peer made reaches SEAL's deserialiser: it
reads back the run's key only, from ternary coefficients that were checked, in framing that is made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from protocols.base import ClientId, Random
from protocols.encoding import Encoded, Floats, Integers, Layout, Upload, checked
from protocols.encoding.ntt import transform
from protocols.encoding.quantise import stochastic_round, toss
from protocols.encoding.rlwe import DEGREE, PRIME, SEED_BYTES, CKKSParameters, a_masks, shift
from protocols.encoding.sealfile import Scratch, plaintext, scratch, words
from protocols.errors import DecryptionFailed, MalformedMessage
from protocols.masking import CHUNK_BYTES, Mask, Span, Work, mask_span
from protocols.primitives import KEY_BYTES, Engine, digest
from protocols.ring import RingVector

# Two bits a coefficient: 0, 1 and 2 stand for 0, 1 and -1.
_PACKED_SECRET_BYTES = DEGREE // 4
# Of a fair ternary draw two thirds are not zero; as far off as this is a chance below 2**-100.
_FEWEST_NONZERO, _MOST_NONZERO = DEGREE * 9 // 16, DEGREE * 3 // 4
# What one worker is given: a chunk of the keystream that ``a`` comes from.
_BLOCK = CHUNK_BYTES // 8
# What is worked on at a time within it.
_BATCH = 32 * DEGREE


@dataclass(frozen=True)
class CKKSKey:
    """The clients' shared secret: s as (degree,) coefficients -1, 0 and 1, and a separate key for model tags."""

    coefficients: NDArray[np.int8] = field(repr=False)
    tag_key: bytes = field(repr=False)

    @classmethod
    def generate(cls, random: Random) -> CKKSKey:
        """A fresh ternary s from SEAL's own generator (seeded by the operating system), and a fresh tag key."""
        key = seal.KeyGenerator(_context(PRIME)).secret_key()  # data() is a view into it: keep it alive
        with scratch() as file:
            values = words(key.data().dyn_array(), DEGREE, file)
        coefficients = transform(DEGREE, PRIME).inverse(values)
        if np.abs(coefficients).max() > 1:
            raise RuntimeError("SEAL's key is not in the form that this was written for: pin another tenseal")
        return cls(coefficients.astype(np.int8), random(KEY_BYTES))

    @property
    def key_id(self) -> bytes:
        """A public name for this key that says nothing about it: 32 bytes."""
        return digest("ckks key id", self.to_bytes())

    def to_bytes(self) -> bytes:
        """Two bits a coefficient, four to a byte from the lowest, then the tag key: 1056 bytes."""
        pairs = np.remainder(self.coefficients, 3).astype(np.uint8).reshape(-1, 4)
        packed: NDArray[np.uint8] = (pairs << np.array([0, 2, 4, 6], np.uint8)).sum(1, dtype=np.uint8)
        return packed.tobytes() + self.tag_key

    @classmethod
    def from_bytes(cls, data: bytes) -> CKKSKey:
        """Undo ``to_bytes``; raises ``MalformedMessage`` for what is no key, or one that would hide nothing."""
        if len(data) != _PACKED_SECRET_BYTES + KEY_BYTES:
            raise MalformedMessage("a key package of the wrong length")
        packed = np.frombuffer(data, np.uint8, _PACKED_SECRET_BYTES)
        pairs = (packed[:, None] >> np.array([0, 2, 4, 6], np.uint8) & np.uint8(3)).reshape(-1)
        if pairs.max() > 2 or not _FEWEST_NONZERO <= np.count_nonzero(pairs) <= _MOST_NONZERO:
            raise MalformedMessage("a key package whose secret is no ternary draw")
        return cls(np.array([0, 1, -1], np.int8)[pairs], data[_PACKED_SECRET_BYTES:])


@dataclass(frozen=True)
class _Block:
    """What one worker is given: the number of its chunk, and integers to encrypt or a part of a sum to decrypt."""

    chunk: int
    part: Integers | RingVector = field(repr=False)


@dataclass(frozen=True)
class _Task:
    """What all workers are given for one upload or one sum."""

    parameters: CKKSParameters
    masks: tuple[Mask, ...] = field(repr=False)  # that make ``a``
    secret: RingVector = field(repr=False)  # s by its values
    engine: Engine


class CKKS:
    """The encoding, for one key. ``work.map`` shares it out by chunks of 2**19 values; processes then have the key.

    **Guarantee** (assuming RLWE with these parameters): who lacks the key learns nothing from uploads or their sums.
    Any key holder can open any single upload that is not masked. The sum of honest uploads decrypts exactly, so that
    a decryption holds nothing of the noise, which is what gives keys away (Li and Micciancio, EUROCRYPT 2021).
    """

    def __init__(self, parameters: CKKSParameters, key: CKKSKey, work: Work = Work()) -> None:  # noqa: B008
        self.parameters = parameters
        self._transform = transform(parameters.degree, parameters.prime)
        self._secret = self._transform.forward(key.coefficients.astype(np.int64))
        self._work = work

    @property
    def layout(self) -> Layout:
        return self.parameters.layout

    def encode(
        self,
        update: Floats,
        weight: float,
        session: bytes,
        sender: ClientId,
        random: Random,
        noise: Integers | None = None,
    ) -> Encoded:
        checked(update, self.parameters.dimension, noise)
        seed = random(SEED_BYTES)
        coins = toss(len(update), random)
        vector = self.layout.ring.zeros(self.layout.length)
        work = partial(_encrypt, self._task([Upload(session, sender, seed)]))
        blocks = self._integers(update, weight, coins, noise)
        for index, part in enumerate(self._work.map(work, blocks)):
            vector[index * _BLOCK : (index + 1) * _BLOCK] = part
        return Encoded(vector, seed)

    def decode(self, total: RingVector, uploads: Sequence[Upload]) -> NDArray[np.float64]:
        """The sum. Raises ``DecryptionFailed``, always the same, for what is no possible sum of these uploads."""
        p = self.parameters
        if not 0 < len(uploads) <= p.clients or len({upload.seed for upload in uploads}) != len(uploads):
            raise DecryptionFailed("the decrypted sum is out of range")
        values = np.empty(p.dimension)
        work = partial(_decrypt, self._task(uploads))
        blocks = (_Block(index, total[start : start + _BLOCK]) for index, start in enumerate(self._starts))
        possible = True
        for start, part in zip(self._starts, self._work.map(work, blocks), strict=True):
            wholes = _rounded(part, p.spacing)
            possible &= bool(np.abs(wholes).max() <= p.largest) and not wholes[p.dimension - start :].any()
            np.divide(wholes[: p.dimension - start], p.levels, out=values[start : start + _BLOCK])
        if not possible:
            raise DecryptionFailed("the decrypted sum is out of range")
        return values

    def _task(self, uploads: Sequence[Upload]) -> _Task:
        return _Task(self.parameters, tuple(a_masks(self.parameters, uploads)), self._secret, self._work.engine)

    @property
    def _starts(self) -> range:
        return range(0, self.layout.length, _BLOCK)

    def _integers(self, update: Floats, weight: float, coins: RingVector, noise: Integers | None) -> Iterator[_Block]:
        """Block by block, the coefficients to encrypt: whole numbers, spaced, and zeros behind the last."""
        p = self.parameters
        for index, start in enumerate(self._starts):
            part = slice(start, start + _BLOCK)
            wholes = np.zeros(min(_BLOCK, self.layout.length - start), np.int64)
            rounded = stochastic_round(update[part], p.bound, weight * p.levels, coins[part])
            if noise is not None:
                rounded += noise[part]
            np.multiply(rounded, p.spacing, out=wholes[: len(rounded)])
            yield _Block(index, wholes)


def _encrypt(task: _Task, block: _Block) -> RingVector:
    """c0 of every ciphertext of a block: message and noise, less a * s. The noise is that of SEAL's encryption of zero.

    That is SEAL's ciphertext (c0, c1), moved onto the public ``a`` and added to the message: c0 + (c1 - a) s + message.
    Each is moved once, and what it was before is never seen: see rlwe.shift.
    """
    p, ntt = task.parameters, transform(task.parameters.degree, task.parameters.prime)
    a = _sum_of_a(task, block)
    np.subtract(np.uint64(p.prime), a, out=a)
    with scratch() as file:
        source = _Noise(task, file)
        for part in _batches(len(a)):
            message = ntt.forward(block.part[part].view(np.int64))
            for start in range(0, len(message), p.degree):
                message[start : start + p.degree] += source.fresh()
            a[part] = shift(message, a[part], task.secret, p.prime)
    return a


def _decrypt(task: _Task, block: _Block) -> Integers:
    """The coefficients of a block of a sum: messages with their noise, centred."""
    p, ntt = task.parameters, transform(task.parameters.degree, task.parameters.prime)
    coefficients = _sum_of_a(task, block).view(np.int64)
    for part in _batches(len(coefficients)):
        a = coefficients[part].view(np.uint64)
        coefficients[part] = ntt.inverse(shift(block.part[part].view(np.uint64), a, task.secret, p.prime))
    return coefficients


def _batches(length: int) -> Iterator[slice]:
    """Parts of a block that are worked on at a time: what is needed in between stays small."""
    return (slice(start, start + _BATCH) for start in range(0, length, _BATCH))


def _sum_of_a(task: _Task, block: _Block) -> RingVector:
    ring = task.parameters.ring
    return mask_span(ring, task.masks, task.engine, Span(block.chunk, ring.zeros(len(block.part))))


def _rounded(coefficients: Integers, spacing: int) -> Integers:
    """To the nearest multiple of the spacing, a power of two, and divided by it."""
    coefficients += spacing // 2
    coefficients >>= spacing.bit_length() - 1
    return coefficients


class _Noise:
    """SEAL's encryption noise, in evaluation form: what its symmetric encryption of zero decrypts to."""

    def __init__(self, task: _Task, file: Scratch) -> None:
        context = _context(task.parameters.prime)
        key = _secret_key(task, context, file)
        self._degree = task.parameters.degree
        self._file = file
        self._encryptor = seal.Encryptor(context, key)
        self._decryptor = seal.Decryptor(context, key)

    def fresh(self) -> RingVector:
        """(degree,) residues, new at each call. To be used once: two ciphertexts with one noise give the key away."""
        ciphertext, noise = seal.Ciphertext(), seal.Plaintext()
        self._encryptor.encrypt_zero_symmetric(ciphertext)
        self._decryptor.decrypt(ciphertext, noise)
        return words(noise.dyn_array(), self._degree, self._file)


def _secret_key(task: _Task, context: seal.SEALContext, file: Scratch) -> seal.SecretKey:
    file.write(plaintext(task.secret, context.first_parms_id()))
    key = seal.SecretKey()
    key.load(context, file.path)
    return key


def _context(prime: int) -> seal.SEALContext:
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus([seal.Modulus(prime)])
    return seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
