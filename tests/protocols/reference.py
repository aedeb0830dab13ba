"""A second implementation, naive and slow, written from docs/secagg.md alone: no import of the first one.

It computes; it checks nothing. What it shows is that the document says enough. Section numbers are the document's.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, comb, floor, log2, prod

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.vectors.messagepack import Value, pack, unpack

# ---- section 2


def digest(label: str, *parts: bytes) -> bytes:
    framed = [len(part).to_bytes(8, "big") + part for part in (label.encode(), *parts)]
    return hashlib.sha256(b"".join(framed)).digest()


def derive(secret: bytes, label: str, *context: bytes, length: int = 32) -> bytes:
    return HKDF(SHA256(), length, salt=bytes(32), info=digest(label, *context)).derive(secret)


def commitment(value: bytes) -> bytes:
    return digest("commitment", value)


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    return AESGCM(key).encrypt(bytes(12), plaintext, associated)


def sign(secret: bytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(secret).sign(message)


def public_key(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agree(secret: bytes, peer: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer))


# ---- section 3


def tree(parts: Sequence[bytes]) -> list[list[bytes]]:
    """All levels, leaves first (section 3.2)."""
    return grow([leaf(part) for part in parts or (b"",)])


def leaf(part: bytes) -> bytes:
    size = 524288
    if len(part) <= size:
        return hashlib.sha256(b"\0" + part).digest()
    chunks = [hashlib.sha256(b"\0" + part[start : start + size]).digest() for start in range(0, len(part), size)]
    return hashlib.sha256(b"\2" + len(part).to_bytes(8, "big") + grow(chunks)[-1][0]).digest()


def grow(level: list[bytes]) -> list[list[bytes]]:
    if len(level) == 1:
        return [level]
    pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
    above = [hashlib.sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return [level, *grow(above)]


def path(levels: list[list[bytes]], index: int) -> bytes:
    return b"".join(level[index >> i ^ 1] for i, level in enumerate(levels) if index >> i ^ 1 < len(level))


def envelope(identity: bytes, session: bytes, step: int, name: str, keys: bytes, parts: Sequence[bytes]) -> bytes:
    """A reply without a seed, framed as a message of kind 32."""
    header = pack([session, step, name, keys, b"", tree(parts)[-1][0]])
    signed = [header, sign(identity, digest("envelope", header))]
    return b"SF\x01\x20" + pack([signed, list(parts)])


# ---- sections 4 and 5


def session_id(context: Sequence[Value], layout_digest: bytes, masked: int, rules: Mapping[str, Value]) -> bytes:
    return digest("terms", digest("session", b"\1", pack(context)), layout_digest, bytes([masked]), pack(rules))


def roster_digest(roster: Mapping[str, bytes]) -> bytes:
    return digest("roster", *(part for name in in_order(roster) for part in (name.encode(), roster[name])))


def in_order(names: Sequence[str] | Mapping[str, object]) -> list[str]:
    return sorted(names, key=str.encode)


def key_list_digest(members: Sequence[str], entries: bytes) -> bytes:
    return digest("key list", pack(members), entries)


def entry(header: bytes, signature: bytes) -> bytes:
    return digest("key list entry", header, signature)


def ring(members: Sequence[str], keys: bytes) -> list[str]:
    return sorted(members, key=lambda name: digest("ring", keys, name.encode()))


def neighbours(order: Sequence[str], degree: int, name: str) -> list[str]:
    """Of a client, sorted; on the complete graph whatever the order is."""
    if degree == len(order) - 1:
        return in_order([other for other in order if other != name])
    place = order.index(name)
    steps = [step for step in range(-degree // 2, degree // 2 + 1) if step]
    return in_order([order[(place + step) % len(order)] for step in steps])


def sparse_graph(n: int, colluders: int, corrupt: float, dropout: float, sigma: int, eta: int) -> tuple[int, int]:
    """k and t, by exact integers."""
    corrupted, dropped = (ceil(Fraction(str(fraction)) * n) for fraction in (corrupt, dropout))
    removed = corrupted + dropped
    for k in range(2, n - 1, 2):
        pairs = n * (n - k - 1) // 2
        if k <= removed and pairs * comb(n - k, removed - k) << sigma + 1 > comb(n, removed):
            continue
        c = fewest(n, corrupted, k, n << sigma + 1)
        d = fewest(n, dropped, k, n << eta)
        t = max(2, (k + c + 1) // 2, ceil(Fraction(2 * k + 2 * colluders + 2, 3)), k // 2 + colluders + 2)
        if t <= k - d + 1:
            return k, t
    raise ValueError("no degree is enough")


def fewest(n: int, marked: int, drawn: int, one_in: int) -> int:
    """The smallest count that is reached with a chance of at most one in so many."""
    ways = [comb(marked, x) * comb(n - marked, drawn - x) for x in range(min(marked, drawn) + 1)]
    return next(x for x in range(len(ways) + 1) if sum(ways[x:]) * one_in <= comb(n, drawn))


def marks(members: Sequence[object], chosen: Sequence[object]) -> bytes:
    bits = sum(1 << i for i, name in enumerate(members) if name in chosen)
    return bits.to_bytes((len(members) + 7) // 8, "little")


def chosen(members: Sequence[str], marked: bytes) -> list[str]:
    bits = int.from_bytes(marked, "little")
    return [name for i, name in enumerate(members) if bits >> i & 1]


# ---- section 6

PRIME = 2**257 - 93


def split(secret: bytes, draws: Sequence[bytes], points: Sequence[int]) -> dict[int, bytes]:
    """Shares, from the 33-byte draws for the t - 1 further coefficients."""
    drawn = [int.from_bytes(draw, "big") & (1 << 257) - 1 for draw in draws]
    polynomial = [int.from_bytes(secret, "big"), *(value for value in drawn if value < PRIME)]
    return {x: (sum(a * x**i for i, a in enumerate(polynomial)) % PRIME).to_bytes(33, "big") for x in points}


def join(shares: Mapping[int, bytes]) -> bytes:
    total = 0
    for x, share in shares.items():
        others = [other for other in shares if other != x]
        quotient = prod(others) * pow(prod(other - x for other in others), -1, PRIME)
        total += int.from_bytes(share, "big") * quotient
    return (total % PRIME).to_bytes(32, "big")


# ---- section 7


def elements(key: bytes, modulus: int, length: int) -> list[int]:
    bits = (modulus - 1).bit_length()
    word = {16: 2, 24: 4, 32: 4}[bits] if modulus == 1 << bits else 8
    size = (4 << 20) // word
    return [
        element
        for chunk, start in enumerate(range(0, length, size))
        for element in _chunk(key, modulus, bits, word, chunk, min(size, length - start))
    ]


def _chunk(key: bytes, modulus: int, bits: int, word: int, chunk: int, count: int) -> list[int]:
    candidates = _words(key, chunk, 2, bits, word, count)
    if modulus == 1 << bits:
        return candidates
    rejected = sum(candidate >= modulus for candidate in candidates)
    # Twice as many as are needed on average, and some, in place of an endless stream.
    more = (value for value in _words(key, chunk, 2 + 2**18, bits, word, 4 * rejected + 64) if value < modulus)
    return [candidate if candidate < modulus else next(more) for candidate in candidates]


def _words(key: bytes, chunk: int, block: int, bits: int, word: int, count: int) -> list[int]:
    counter = chunk.to_bytes(12, "big") + block.to_bytes(4, "big")
    stream = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(count * word))
    low = (1 << bits) - 1
    return [value & low for (value,) in struct.iter_unpack({2: "<H", 4: "<I", 8: "<Q"}[word], stream)]


def pair_mask_key(session: bytes, modulus: int, length: int, secret: bytes, me: str, peer: str, key: bytes) -> bytes:
    low, high = in_order([me, peer])
    return _mask_key(agree(secret, key), "pair mask", session, modulus, length, low, high)


def self_mask_key(session: bytes, modulus: int, length: int, seed: bytes, me: str) -> bytes:
    return _mask_key(seed, "self mask", session, modulus, length, me, me)


def _mask_key(secret: bytes, label: str, session: bytes, modulus: int, length: int, low: str, high: str) -> bytes:
    sizes = (modulus.to_bytes(8, "big"), length.to_bytes(8, "big"))
    return derive(secret, label, session, *sizes, low.encode(), high.encode(), length=16)


def plus(left: Sequence[int], sign: int, right: Sequence[int], modulus: int) -> list[int]:
    return [(a + sign * b) % modulus for a, b in zip(left, right, strict=True)]


def packed(vector: Sequence[int], modulus: int) -> bytes:
    size = ((modulus - 1).bit_length() + 7) // 8
    return b"".join(element.to_bytes(size, "little") for element in vector)


def unpacked(data: bytes, modulus: int) -> list[int]:
    size = ((modulus - 1).bit_length() + 7) // 8
    return [int.from_bytes(data[start : start + size], "little") for start in range(0, len(data), size)]


# ---- section 8


def membership_digest(keys: bytes, shared: bytes) -> bytes:
    return digest("members", keys, shared)


def statement(session: bytes, keys: bytes, members: Sequence[str], shared: bytes, survivors: bytes) -> bytes:
    return digest("survivors", session, keys, pack(members), shared, survivors)


def dealt(session: bytes, keys: bytes, secret: bytes, me: str, peer: str, key: bytes, pair: Sequence[bytes]) -> bytes:
    """One part of exchange 1: the pair of shares sealed to a peer, and commitments to both."""
    sealing = derive(agree(secret, key), "share", session, keys, me.encode(), peer.encode())
    return pack([seal(sealing, pack(pair), keys), commitment(pair[0]), commitment(pair[1])])


@dataclass(frozen=True)
class Key:
    """What the exchange 1 request shows of one client."""

    mask: bytes
    share: bytes


@dataclass
class Member:
    """One honest client on the complete graph: its replies, from the requests and its random draws."""

    name: str
    identity: bytes
    witness: bytes
    session: bytes
    points: Mapping[str, int]
    draws: list[bytes]
    keys: bytes = b""
    shared: bytes = b""

    def reply(self, step: int, *parts: bytes) -> bytes:
        named = self.keys if step < 2 else membership_digest(self.keys, self.shared)
        return envelope(self.identity, self.session, step, self.name, named, parts)

    def advertise(self) -> bytes:
        mask, share = map(public_key, self.draws[:2])
        return self.reply(0, pack([mask, share, self.witness]))

    def deal(self, request: bytes, own: bytes) -> bytes:
        members, entries, shown = unpack(request[4:])
        self.members, self.keys = members, key_list_digest(members, entries)
        listed = [unpack(own[4:]), *shown]
        said = {unpack(signed[0])[2]: unpack(parts[0]) for signed, parts in listed}
        self.listed = {name: Key(*keys[:2]) for name, keys in said.items()}
        assert entries == b"".join(entry(*next(s for s, _ in listed if unpack(s[0])[2] == name)) for name in members)
        t = 2 * len(members) // 3 + 1
        points = [self.points[name] for name in members]
        seeds = split(self.draws[2], self.draws[3 : 2 + t], points)
        masks = split(self.draws[0], self.draws[2 + t : 1 + 2 * t], points)
        pairs = {name: [seeds[self.points[name]], masks[self.points[name]]] for name in members}
        near = neighbours(members, len(members) - 1, self.name)
        parts = [
            dealt(self.session, self.keys, self.draws[1], self.name, v, self.listed[v].share, pairs[v]) for v in near
        ]
        self.held = {self.name: pairs[self.name]}
        return self.reply(1, commitment(self.draws[2]), *parts)

    def mask(self, request: bytes, encoded: list[int], modulus: int) -> bytes:
        self.shared, extracts = unpack(request[4:])
        length, vector = len(encoded), encoded
        for signed, part, *_ in extracts:
            peer = unpack(signed[0])[2]
            theirs = self.listed[peer]
            opening = agree(self.draws[1], theirs.share)
            key = derive(opening, "share", self.session, self.keys, peer.encode(), self.name.encode())
            self.held[peer] = unpack(AESGCM(key).decrypt(bytes(12), unpack(part)[0], self.keys))
            stream = pair_mask_key(self.session, modulus, length, self.draws[0], self.name, peer, theirs.mask)
            sign = 1 if self.name.encode() < peer.encode() else -1
            vector = plus(vector, sign, elements(stream, modulus, length), modulus)
        own = elements(self_mask_key(self.session, modulus, length, self.draws[2], self.name), modulus, length)
        return self.reply(2, packed(plus(vector, 1, own, modulus), modulus))

    def consent(self, request: bytes) -> bytes:
        (self.survivors,) = unpack(request[4:])
        return self.reply(3, statement(self.session, self.keys, self.members, self.shared, self.survivors))

    def unmask(self) -> bytes:
        alive = chosen(self.members, self.survivors)
        return self.reply(4, pack([[self.held[v][0 if v in alive else 1] for v in in_order(self.held)]]))


# ---- section 9


def suspects(disputes: Mapping[str, Sequence[str]]) -> set[str]:
    """Whom to leave out, of dealers and those who complain about them."""
    pairs = {(dealer, complainer) for dealer, complainers in disputes.items() for complainer in complainers}
    if not pairs:
        return set()
    count = {name: sum(name in pair for pair in pairs) for pair in pairs for name in pair}
    worst = {name for name in count if count[name] == max(count.values())}
    rest = [pair for pair in pairs if not worst & set(pair)]
    return worst | suspects({dealer: [c for d, c in rest if d == dealer] for dealer, _ in rest})


# ---- section 10


def scale(bits: int, clients: int, bound: float) -> float:
    return 2.0 ** floor(log2(((2 ** (bits - 1) - 1) / clients - 1) / bound))


def fixed_point(update: Sequence[float], weight: float, bits: int, clients: int, bound: float, key: bytes) -> list[int]:
    coins = elements(key, 1 << 32, len(update))
    factor = weight * scale(bits, clients, bound)
    clipped = [min(max(x, -bound), bound) for x in update]
    return [floor(x * factor + coin * 2.0**-32) % (1 << bits) for x, coin in zip(clipped, coins, strict=True)]


def decoded(total: Sequence[int], bits: int, clients: int, bound: float) -> list[float]:
    return [(each - (each >> (bits - 1) << bits)) / scale(bits, clients, bound) for each in total]


def layout_digest(dimension: int, bound: float, clients: int, bits: int, noise: float) -> bytes:
    return digest("fixed point", f"{dimension} {bound!r} {clients} {bits} {noise!r}".encode())


# ---- section 11


def longest_replies(degree: int, vector: int) -> list[int]:
    """In each of exchanges 0 to 5, for a packed vector of so many bytes."""
    more = [0, 1032 * degree, vector + 1030 * degree, 0, 40 * (degree + 1), 0]
    return [4096 + extra for extra in more]
