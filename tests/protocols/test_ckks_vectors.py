"""docs/ckks.md is enough to recompute tests/vectors/ckks.json, and to exchange keys and models with our code.

The other side is tests/protocols/reference_ckks.py, which was written from the document and imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.aggregation.apply import model_tag
from protocols.aggregation.messages import Envelope, Extract
from protocols.delivery.client import give, join, open_model, receive, seal_model
from protocols.delivery.messages import catch_up, key_setup
from protocols.encoding import Upload
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.encoding.rlwe import CKKSParameters, narrowest
from protocols.errors import ConfigurationError, DecryptionFailed, Forged, Inconsistent, MalformedMessage
from protocols.graph import CohortRules
from protocols.primitives import AgreementKey
from protocols.wire import decode, encode
from securefl.announcement import KeyReceived
from tests.protocols import reference
from tests.protocols import reference_ckks as ckks
from tests.protocols.cohort import identity, roster
from tests.vectors import generate
from tests.vectors.messagepack import unpack

KNOWN = json.loads((Path(generate.__file__).parent / "ckks.json").read_text(encoding="utf-8"))
D, P = KNOWN["dimension"], KNOWN["prime"]
KEY, SESSION, LAYOUT = (bytes.fromhex(KNOWN[name]) for name in ("key", "session", "layout digest"))
SECRET = ckks.key_coefficients(KEY)
UPLOADS = KNOWN["uploads"]


def made() -> ckks.Parameters:
    found = ckks.parameters(KNOWN["clients"], KNOWN["bits"], KNOWN["bound"])
    assert found is not None
    return found


def stream(upload: Mapping[str, Any]) -> list[int]:
    key = ckks.a_key(bytes.fromhex(upload["seed"]), SESSION, P, D, upload["sender"], LAYOUT)
    return reference.elements(key, P, ckks.length(D))


def at(vector: list[int], known: Mapping[str, int]) -> dict[str, int]:
    return {place: vector[int(place)] for place in known}


# ---- sections 1 to 3: the vectors


def prime_in(n: int) -> bool:
    """By Miller and Rabin; with these bases no number below 3.3 * 10^24 is misjudged."""
    odd = (n - 1) // ((n - 1) & (1 - n))
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41):
        x, exponent = pow(base, odd, n), odd
        while exponent != n - 1 and x not in (1, n - 1):
            x, exponent = x * x % n, 2 * exponent
        if x != n - 1 and exponent != odd:
            return False
    return True


@pytest.mark.parametrize("bits", ckks.PRIMES)
def test_the_primes_are_the_largest_of_their_bits(bits: int) -> None:
    candidates = range((1 << bits) - 2 * ckks.N + 1, 1 << (bits - 1), -2 * ckks.N)
    assert next(n for n in candidates if prime_in(n)) == ckks.PRIMES[bits]


@pytest.mark.parametrize("case", KNOWN["parameters"], ids=lambda case: f"{case['clients']}-{case['bits']}")
def test_the_document_suffices_for_levels_and_spacing(case: Mapping[str, Any]) -> None:
    found = ckks.parameters(case["clients"], case["bits"], case["bound"])
    if case.get("refused"):
        assert found is None
    else:
        assert found is not None
        assert (found.levels, found.spacing) == (case["levels"], case["spacing"])


def test_the_document_suffices_for_the_layout_digest() -> None:
    found = made()
    assert (found.levels, found.spacing, found.prime) == (KNOWN["levels"], KNOWN["spacing"], P)
    assert ckks.layout_digest(D, found) == LAYOUT


def test_the_document_suffices_for_the_key() -> None:
    assert ckks.no_key(KEY) is None
    assert ckks.key_id(KEY).hex() == KNOWN["key id"]
    assert {place: ckks.value_at(SECRET, int(place), P) for place in KNOWN["secret at"]} == KNOWN["secret at"]


def test_the_fast_transforms_agree_with_the_definition() -> None:
    vector = ckks.values(SECRET, P)
    assert at(vector, KNOWN["secret at"]) == KNOWN["secret at"]
    assert [vector[place] for place in range(5, 4096, 999)] == [
        ckks.value_at(SECRET, place, P) for place in range(5, 4096, 999)
    ]
    assert ckks.coefficients(vector, P) == [coefficient % P for coefficient in SECRET]


def test_the_document_suffices_to_refuse_what_is_no_key_and_to_say_why() -> None:
    why = [ckks.no_key(bytes.fromhex(encoded)) for encoded in KNOWN["no keys"]]
    assert why == ["length"] * 3 + ["bits 11"] + ["weight"] * 2


@pytest.mark.parametrize("upload", UPLOADS, ids=lambda upload: upload["sender"])
def test_the_document_suffices_for_whole_numbers_and_for_a(upload: Mapping[str, Any]) -> None:
    coins, seed = (bytes.fromhex(upload[name]) for name in ("coins key", "seed"))
    wholes = ckks.whole_numbers(upload["update"], 1.0, KNOWN["bound"], KNOWN["levels"], coins)
    assert wholes == upload["wholes"]
    assert ckks.a_key(seed, SESSION, P, D, upload["sender"], LAYOUT).hex() == upload["a key"]
    assert at(stream(upload), upload["a at"]) == upload["a at"]


def test_the_document_suffices_to_decrypt_the_sum() -> None:
    total = reference.unpacked(bytes.fromhex(KNOWN["sum"]), P)
    opened = ckks.decrypted(total, [stream(upload) for upload in UPLOADS], SECRET, made())
    sums = [sum(column) for column in zip(*(upload["wholes"] for upload in UPLOADS), strict=True)]
    assert opened.wholes == sums + [0] * (ckks.N - D)
    assert [whole / KNOWN["levels"] for whole in sums] == KNOWN["decoded"]
    assert max(map(abs, opened.noise)) <= 21 * len(UPLOADS)
    assert not ckks.fails(opened, [upload["seed"] for upload in UPLOADS], D, made())


# Of section 1's table, for bound = 1: log2 of levels and spacing for each width, and the width by default.
TABLE = {
    5: ((19, 8), (27, 8), (28, 15), (28, 21), 48),
    10: ((17, 9), (25, 9), (28, 14), (28, 20), 48),
    50: ((12, 12), (20, 12), (25, 15), (28, 18), 54),
    100: ((10, 13), (18, 13), (23, 16), (28, 17), 54),
    500: (None, (14, 15), (20, 17), (26, 17), 54),
    1000: (None, (12, 16), (19, 17), (25, 17), 54),
}


@pytest.mark.parametrize("clients", TABLE)
def test_the_documents_table_follows_from_its_rules_and_is_what_our_code_has(clients: int) -> None:
    *listed, default = TABLE[clients]
    for bits, pair in zip(ckks.PRIMES, listed, strict=True):
        found = ckks.parameters(clients, bits, 1.0)
        if pair is None:
            assert found is None
            with pytest.raises(ConfigurationError):
                CKKSParameters(5, 1.0, clients, bits)
        else:
            assert found is not None
            assert (found.levels, found.spacing) == (2 ** pair[0], 2 ** pair[1])
            ours = CKKSParameters(5, 1.0, clients, bits)
            assert (ours.levels, ours.spacing, ours.largest) == (found.levels, found.spacing, found.largest)
    assert narrowest(5, 1.0, clients).bits == default


# ---- section 2: against our code


def noise(polynomials: int) -> list[int]:
    """Of a fixed seed, and within what is allowed: 42 coins each."""
    draw = random.Random(2020)  # noqa: S311
    return [(draw.getrandbits(21).bit_count() - draw.getrandbits(21).bit_count()) for _ in range(polynomials * ckks.N)]


@pytest.mark.parametrize("bits", ckks.PRIMES)
def test_our_code_decrypts_what_the_document_encrypts(bits: int) -> None:
    found, ours = ckks.parameters(3, bits, 1.0), CKKSParameters(4099, 1.0, 3, bits)
    assert found is not None
    wholes = [(-1) ** place * place % 127 for place in range(4099)]
    layout = ckks.layout_digest(4099, found)
    assert layout == ours.layout.digest
    upload = Upload(SESSION, "é", bytes(range(32)))
    a = reference.elements(ckks.a_key(upload.seed, SESSION, found.prime, 4099, "é", layout), found.prime, 2 * ckks.N)
    c0 = ckks.encrypted(wholes, noise(2), a, SECRET, found)
    real = CKKS(ours, CKKSKey.from_bytes(KEY)).decode(np.array(c0, np.uint64), [upload])
    assert real.tolist() == [whole / ours.levels for whole in wholes]


def test_the_document_decrypts_what_our_code_encrypts() -> None:
    found, ours = ckks.parameters(3, 40, 1.0), CKKSParameters(4099, 1.0, 3, 40)
    assert found is not None
    update = np.linspace(-1.2, 1.2, 4099)
    made = CKKS(ours, CKKSKey.from_bytes(KEY)).encode(update, 0.5, SESSION, "é", os.urandom)
    key = ckks.a_key(made.seed, SESSION, found.prime, 4099, "é", ckks.layout_digest(4099, found))
    opened = ckks.decrypted(made.vector.tolist(), [reference.elements(key, found.prime, 2 * ckks.N)], SECRET, found)
    assert not ckks.fails(opened, [made.seed], 4099, found)
    exact = np.clip(update, -1, 1) * 0.5 * ours.levels
    assert np.abs(np.array(opened.wholes[:4099]) - exact).max() < 1
    assert max(map(abs, opened.noise)) <= 21


def test_sums_that_are_none_are_refused_alike() -> None:
    """Beyond the largest, behind the last coordinate, equal seeds, too many uploads, none: each alone."""
    found = ckks.parameters(3, 32, 1.0)
    assert found is not None
    ours = CKKS(CKKSParameters(D, 1.0, 3, 32), CKKSKey.from_bytes(KEY))
    layout, top = ckks.layout_digest(D, found), int(found.largest)
    seeds = [bytes([number]) * 32 for number in range(4)]
    for wholes, chosen in (
        ([top, -top], seeds[:3]),
        ([top + 1], seeds[:1]),
        ([-top - 1], seeds[:1]),
        ([0] * D + [1], seeds[:1]),
        ([1], seeds[:1] * 2),
        ([1], seeds),
        ([1], []),
    ):
        uploads = [Upload(SESSION, "a", seed) for seed in chosen]
        keys = [ckks.a_key(seed, SESSION, found.prime, D, "a", layout) for seed in chosen]
        streams = [reference.elements(key, found.prime, ckks.N) for key in keys]
        a = [sum(column) % found.prime for column in zip([0] * ckks.N, *streams, strict=True)]
        c0 = ckks.encrypted(wholes, noise(1), a, SECRET, found)
        if ckks.fails(ckks.decrypted(c0, streams, SECRET, found), chosen, D, found):
            with pytest.raises(DecryptionFailed):
                ours.decode(np.array(c0, np.uint64), uploads)
        else:
            assert chosen == seeds[:3]
            assert ours.decode(np.array(c0, np.uint64), uploads)[:2].tolist() == [
                top / found.levels,
                -top / found.levels,
            ]


def test_a_coefficient_half_way_between_two_whole_numbers_rounds_up_alike() -> None:
    """No honest sum has one, but whoever deviates may send it, and all clients must get the same model."""
    found = ckks.parameters(3, 32, 1.0)
    assert found is not None
    half, seed = found.spacing // 2, bytes(32)
    key = ckks.a_key(seed, SESSION, found.prime, D, "a", ckks.layout_digest(D, found))
    a = reference.elements(key, found.prime, ckks.N)
    c0 = ckks.encrypted([0], [half, -half, half - 1, -half - 1] + [0] * (ckks.N - 4), a, SECRET, found)
    ours = CKKS(CKKSParameters(D, 1.0, 3, 32), CKKSKey.from_bytes(KEY))
    assert ckks.decrypted(c0, [a], SECRET, found).wholes[:4] == [1, 0, 0, -1]
    assert (ours.decode(np.array(c0, np.uint64), [Upload(SESSION, "a", seed)])[:4] * float(found.levels)).tolist() == [
        1,
        0,
        0,
        -1,
    ]


# ---- sections 3 to 5: against our code

ROSTER = roster(4)
RUN, PLAN = "rün", bytes(range(32))


@pytest.mark.parametrize("after", [0, 3])
def test_the_document_suffices_for_the_sessions_of_deliveries(after: int) -> None:
    keys = reference.roster_digest(ROSTER.keys)
    assert ckks.set_up_session(RUN, PLAN, keys, after) == key_setup(RUN, PLAN, ROSTER, after)
    assert ckks.catch_up_session(RUN, PLAN, keys, after) == catch_up(RUN, PLAN, ROSTER, after)


SET_UP, CATCH_UP = key_setup(RUN, PLAN, ROSTER, 0), catch_up(RUN, PLAN, ROSTER, 3)


def framed(step: int, name: str, session: bytes, *parts: bytes) -> bytes:
    """A reply of the document's."""
    secret = identity(name).secret
    return reference.envelope(secret, session, step, name, b"", parts)


def test_the_document_opens_the_packages_that_our_code_seals() -> None:
    secrets = {name: bytes([number]) * 32 for number, name in enumerate(ROSTER.keys, 1)}
    joined = [framed(6, name, SET_UP, reference.public_key(secret)) for name, secret in secrets.items()]
    asked = [decode(each, Envelope) for each in joined]
    given = give("c0", identity("c0"), SET_UP, ROSTER, asked, ckks.key_id(KEY), KEY, os.urandom)
    signed, parts = unpack(encode(given)[4:])
    assert unpack(signed[0]) == [SET_UP, 7, "c0", b"", b"", reference.tree(parts)[-1][0]]
    assert [unpack(part)[0] for part in parts] == list(secrets)
    for secret, part in zip(secrets.values(), parts, strict=True):
        assert unpack(part)[3] == ckks.key_id(KEY)
        assert ckks.unpackaged(SET_UP, "c0", secret, part) == KEY


def test_our_code_opens_the_packages_that_the_document_seals() -> None:
    keys = {name: AgreementKey.generate(os.urandom) for name in ROSTER.keys}
    joined = {name: join(name, identity(name), SET_UP, key) for name, key in keys.items()}
    parts = [
        ckks.package(SET_UP, "c1", name, each.parts[0], bytes([number]) * 32, KEY)
        for number, (name, each) in enumerate(joined.items(), 1)
    ]
    given = decode(framed(7, "c1", SET_UP, *parts), Envelope)
    levels = reference.tree(parts)
    for index, (name, key) in enumerate(keys.items()):
        extract = Extract(given.signed, parts[index], index, len(parts), reference.path(levels, index))
        package, secret = receive(name, SET_UP, ROSTER, key, extract)
        assert (package.about, secret) == (ckks.key_id(KEY), KEY)
        assert CKKSKey.from_bytes(secret).to_bytes() == KEY
        # What a package is bound to: nothing but its own session, giver, receiver and one-use key opens it.
        with pytest.raises(Inconsistent):
            receive(name, SET_UP, ROSTER, AgreementKey.generate(os.urandom), extract)
        swapped = decode(framed(7, "c2", SET_UP, parts[index]), Envelope)
        with pytest.raises(Forged):
            receive(name, SET_UP, ROSTER, key, Extract(swapped.signed, parts[index], 0, 1, b""))


def test_our_code_reads_what_the_document_says_on_receiving_a_key() -> None:
    word = ckks.key_received(ckks.key_id(KEY), 7, bytes(range(32)))
    assert KeyReceived(ckks.key_id(KEY), 7, bytes(range(32))).encoded() == word
    assert KeyReceived.decoded(word).key_id == ckks.key_id(KEY)


@pytest.mark.parametrize("encoded", KNOWN["no keys"], ids=[0, 1, 2, 3, 4, 5])
def test_our_code_takes_no_keys_for_none(encoded: str) -> None:
    with pytest.raises(MalformedMessage):
        CKKSKey.from_bytes(bytes.fromhex(encoded))


MODEL = b"".join(struct.pack("<f", number / 7) for number in range(50))


@pytest.mark.parametrize("after", [0, 3, 2**40])
def test_the_document_suffices_for_model_tags(after: int) -> None:
    mine = ckks.model_tag(ckks.tag_key(KEY), RUN, after, MODEL)
    assert mine == model_tag(CKKSKey.from_bytes(KEY).tag_key, RUN, after, MODEL)


def test_the_document_opens_the_models_that_our_code_seals_and_the_other_way_round() -> None:
    key = ckks.tag_key(KEY)
    tag = ckks.model_tag(key, RUN, 3, MODEL)
    ours = seal_model("c2", identity("c2"), CATCH_UP, key, tag, MODEL, os.urandom)
    signed, parts = unpack(encode(ours)[4:])
    assert unpack(signed[0]) == [CATCH_UP, 9, "c2", b"", b"", reference.tree(parts)[-1][0]]
    assert (len(parts), unpack(parts[0])[0], len(unpack(parts[0])[1])) == (1, tag, 32)
    assert ckks.model_of(key, CATCH_UP, "c2", parts[0]) == MODEL
    mine = framed(9, "c3", CATCH_UP, ckks.checkpoint(key, CATCH_UP, "c3", tag, bytes(range(32)), MODEL))
    assert open_model(CATCH_UP, ROSTER, key, decode(mine, Envelope)) == MODEL
    with pytest.raises(Forged):
        open_model(CATCH_UP, ROSTER, bytes(32), decode(mine, Envelope))


@pytest.mark.parametrize("members", [3, 4, 5, 10, 11])
@pytest.mark.parametrize("colluders", [0, 1])
def test_the_document_suffices_for_how_many_equal_tags_are_binding(members: int, colluders: int) -> None:
    if members <= 3 * colluders:
        return
    rules = CohortRules(minimum=max(3, 3 * colluders + 1), colluders=colluders)
    quorum = 2 * members // 3 + 1
    assert ckks.binding(quorum, members, colluders) == rules.binding(members, members)
