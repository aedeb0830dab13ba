"""The only door to ``cryptography``: identities, key agreement, derivation, sealing, keystreams.

Every derived key has a label; every key of ``seal`` encrypts one message. Nothing here keeps state between calls.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocols.base import Random
from protocols.errors import Forged

KEY_BYTES = 32


@dataclass(frozen=True)
class Identity:
    """A long-lived Ed25519 signing key (RFC 8032). The secret is never printed."""

    secret: bytes = field(repr=False)
    _key: Ed25519PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_key", Ed25519PrivateKey.from_private_bytes(self.secret))

    @classmethod
    def generate(cls, random: Random) -> Identity:
        return cls(random(KEY_BYTES))

    @property
    def public(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def verify(public: bytes, signature: bytes, message: bytes, signer: str) -> None:
    """Raise ``Forged`` unless ``signature`` is ``signer``'s over ``message``."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Forged(f"the signature of {signer} does not verify") from error


@dataclass(frozen=True)
class AgreementKey:
    """An X25519 key pair (RFC 7748) that serves one session."""

    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls, random: Random) -> AgreementKey:
        return cls(random(KEY_BYTES))

    @cached_property
    def _private(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.secret)

    @cached_property
    def public(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    def agree(self, peer: bytes) -> bytes:
        """The shared secret. Raises ``Forged`` for a key of low order, whose secret would be known to all."""
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise Forged("a peer's X25519 key is invalid or of low order") from error


def digest(label: str, *parts: bytes) -> bytes:
    """SHA-256 over a label and parts, each framed by its length, so that no two inputs collide by concatenation."""
    state = hashlib.sha256()
    for part in (label.encode(), *parts):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def derive(secret: bytes, label: str, *context: bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869) with the label and context as framed ``info``."""
    return HKDF(SHA256(), length, salt=None, info=digest(label, *context)).derive(secret)


def authenticate(key: bytes, label: str, *parts: bytes) -> bytes:
    """HMAC-SHA256 over the framed parts: a tag that says nothing to who lacks the key."""
    return hmac.new(key, digest(label, *parts), hashlib.sha256).digest()


def equal(left: bytes, right: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(left, right)


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """AES-256-GCM. The nonce may be fixed because every key is derived for one message in one direction."""
    return AESGCM(key).encrypt(bytes(12), plaintext, associated)


def open_sealed(key: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """Undo ``seal``. Raises ``Forged`` if key, ciphertext or associated data differ."""
    try:
        return AESGCM(key).decrypt(bytes(12), ciphertext, associated)
    except (InvalidTag, ValueError) as error:
        raise Forged("a sealed message does not open") from error


class Engine(Enum):
    """Which of the library's AES modes makes a keystream: the same bits, at a speed that depends on the machine."""

    CTR = auto()
    GCM = auto()


class Keystream:
    """AES-128-CTR of zeros from a given 16-byte counter block. Never finalised; one key serves one stream.

    AES-GCM with a 96-bit IV encrypts from counter block IV || 2 (NIST SP 800-38D, section 7.1), so that its engine,
    which many builds of OpenSSL vectorise, gives the same bits where a stream starts there; elsewhere CTR is used.
    ``read_into(zeros, buffer)`` fills ``buffer`` with the next bytes; ``zeros`` is as long and all zero.
    """

    def __init__(self, key: bytes, counter: bytes, engine: Engine = Engine.CTR) -> None:
        gcm = engine is Engine.GCM and counter[12:] == b"\0\0\0\2"
        mode = modes.GCM(counter[:12]) if gcm else modes.CTR(counter)
        context: CipherContext = Cipher(algorithms.AES(key), mode).encryptor()
        # The library's own method, not one of ours around it: it is called once for every block.
        self.read_into: Callable[[memoryview, memoryview], int] = context.update_into
