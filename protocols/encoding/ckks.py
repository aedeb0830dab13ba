"""CKKS through SEAL: the only door to ``tenseal``. Whoever holds a ``CKKSKey`` can encrypt and decrypt.

Encrypted once by SEAL, then moved once onto an ``a`` from a public seed, so that only c0 travels. What comes back is a
sum of c0; the sum of ``a`` is rebuilt here from the contributors' signed seeds and never taken from the server.
Nothing that a peer made reaches SEAL's deserialiser but residues that were checked, in framing that is made here.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from protocols.base import ClientId, Random
from protocols.encoding import Encoded, Floats, Layout, Upload, checked
from protocols.encoding.rlwe import DEGREE, PRIME, SEED_BYTES, CKKSParameters, public_a, shift
from protocols.errors import ConfigurationError, DecryptionFailed, MalformedMessage
from protocols.primitives import KEY_BYTES, digest
from protocols.ring import Ring, RingVector

# SEAL 4.x native framing (serialization.h): magic, header size, version 4.3, no compression, reserved, total size.
_SEAL_HEADER = struct.Struct("<HBBBBHQ")
_SEAL_MAGIC = 0xA15E


@dataclass(frozen=True)
class CKKSKey:
    """The clients' shared secret: s in evaluation form, (degree,) residues, and a separate key for model tags."""

    secret: RingVector = field(repr=False)
    tag_key: bytes = field(repr=False)

    @classmethod
    def generate(cls, random: Random) -> CKKSKey:
        """A fresh ternary s from SEAL's own generator (seeded by the operating system), and a fresh tag key."""
        key = seal.KeyGenerator(_context()).secret_key()  # data() is a view into it: keep it alive
        return cls(np.fromiter(map(key.data().__getitem__, range(DEGREE)), np.uint64, DEGREE), random(KEY_BYTES))

    @property
    def key_id(self) -> bytes:
        """A public name for this key that says nothing about it: 32 bytes."""
        return digest("ckks key id", self.secret.tobytes())

    def to_bytes(self) -> bytes:
        return Ring(PRIME).pack(self.secret) + self.tag_key

    @classmethod
    def from_bytes(cls, data: bytes) -> CKKSKey:
        """Undo ``to_bytes``; raises ``MalformedMessage`` for a wrong length or residues outside the ring."""
        if len(data) < KEY_BYTES:
            raise MalformedMessage("a key package of the wrong length")
        return cls(Ring(PRIME).unpack(data[:-KEY_BYTES], DEGREE).copy(), data[-KEY_BYTES:])


class CKKS:
    """The encoding, for one key. Values are packed degree to a ciphertext: half as real, half as imaginary parts.

    **Guarantee** (assuming RLWE with these parameters): who lacks the key learns nothing from uploads or their sums.
    Any key holder can open any single upload that is not masked.
    """

    def __init__(self, parameters: CKKSParameters, key: CKKSKey) -> None:
        if (parameters.degree, parameters.prime) != (DEGREE, PRIME):
            raise ConfigurationError(
                f"keys are made for degree {DEGREE}, prime {PRIME}, not {parameters.degree}, {parameters.prime}"
            )
        self.parameters = parameters
        self._key = key
        self._seal = _context()
        self._encoder = seal.CKKSEncoder(self._seal)
        self._encryptor = seal.Encryptor(self._seal, self._secret_key())

    @property
    def layout(self) -> Layout:
        return self.parameters.layout

    def encode(self, update: Floats, weight: float, session: bytes, sender: ClientId, random: Random) -> Encoded:
        bound = self.parameters.bound
        bounded = np.clip(checked(update, self.parameters.dimension).astype(np.float64), -bound, bound)
        upload = Upload(session, sender, random(SEED_BYTES))
        a = public_a(self.parameters, upload)
        vector = self.layout.ring.zeros(self.layout.length)
        for index, values in enumerate(self._blocks(bounded * weight)):
            part = slice(index * DEGREE, (index + 1) * DEGREE)
            vector[part] = self._encrypt_onto(values, a[part])
        return Encoded(vector, upload.seed)

    def decode(self, total: RingVector, uploads: Sequence[Upload]) -> NDArray[np.float64]:
        """The sum, rounded to the grid. Raises ``DecryptionFailed``, always the same, if it cannot be such a sum."""
        p = self.parameters
        values = self._decrypt(total, self._sum_of_a(uploads))[: p.dimension]
        # The margin is far beyond the noise of any honest sum.
        if not (np.abs(values) <= len(uploads) * p.bound + p.grid).all():
            raise DecryptionFailed("the decrypted sum is out of range")
        return np.rint(values / p.grid) * p.grid

    def _sum_of_a(self, uploads: Sequence[Upload]) -> RingVector:
        if len(uploads) > self.parameters.clients or len({upload.seed for upload in uploads}) != len(uploads):
            raise DecryptionFailed("the decrypted sum is out of range")
        total = self.layout.ring.zeros(self.layout.length)
        for upload in uploads:
            total += public_a(self.parameters, upload)
            self.layout.ring.reduce(total)
        return total

    def _blocks(self, values: NDArray[np.float64]) -> Iterator[list[complex]]:
        for start in range(0, len(values), DEGREE):
            block = np.zeros(DEGREE)
            block[: len(values) - start] = values[start : start + DEGREE]
            yield (block[: DEGREE // 2] + 1j * block[DEGREE // 2 :]).tolist()

    def _encrypt_onto(self, values: list[complex], a: RingVector) -> RingVector:
        # One encryption, one move, and the original goes out of scope unseen: see rlwe.shift.
        plaintext, ciphertext = seal.Plaintext(), seal.Ciphertext()
        self._encoder.encode(values, self.parameters.scale, plaintext)
        self._encryptor.encrypt_symmetric(plaintext, ciphertext)
        words = np.fromiter(map(ciphertext.__getitem__, range(2 * DEGREE)), np.uint64, 2 * DEGREE)
        difference = np.remainder(words[DEGREE:] + (np.uint64(PRIME) - a), np.uint64(PRIME))
        return shift(words[:DEGREE], difference, self._key.secret, PRIME)

    def _decrypt(self, c0: RingVector, a: RingVector) -> NDArray[np.float64]:
        message = shift(c0, a, self._key.secret, PRIME)
        blocks = [self._decode_block(message[i : i + DEGREE]) for i in range(0, len(message), DEGREE)]
        return np.concatenate(blocks)

    def _decode_block(self, residues: RingVector) -> NDArray[np.float64]:
        plaintext = seal.Plaintext()
        with _in_memory(_plaintext_bytes(residues, self.parameters.scale, self._seal)) as path:
            plaintext.load(self._seal, path)
        slots = np.array(self._encoder.decode_complex(plaintext))
        return np.concatenate([slots.real, slots.imag])

    def _secret_key(self) -> seal.SecretKey:
        secret = seal.SecretKey()
        with _in_memory(_plaintext_bytes(self._key.secret, 1.0, self._seal)) as path:
            secret.load(self._seal, path)
        return secret


def _context() -> seal.SEALContext:
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus([seal.Modulus(PRIME)])
    return seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)


def _plaintext_bytes(residues: RingVector, scale: float, context: seal.SEALContext) -> bytes:
    count = struct.pack("<Q", len(residues))
    array = _framed(count + residues.astype("<u8", copy=False).tobytes())
    return _framed(struct.pack("<4Q", *context.first_parms_id()) + count + struct.pack("<d", scale) + array)


def _framed(body: bytes) -> bytes:
    return _SEAL_HEADER.pack(_SEAL_MAGIC, 16, 4, 3, 0, 0, 16 + len(body)) + body


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path that SEAL can read ``data`` from: kept off the disk where the system allows, else a 0600 file."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("securefl"), "wb", buffering=0) as memory:
            memory.write(data)
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name
