from __future__ import annotations

import hashlib
import hmac
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import Forged
from protocols.primitives import (
    AgreementKey,
    Identity,
    Keystream,
    authenticate,
    derive,
    digest,
    equal,
    open_sealed,
    seal,
    verify,
)

# Points of small order on Curve25519 and its twist (Bernstein's list), in canonical and non-canonical form.
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def test_signatures_are_those_of_rfc_8032_section_7_1_test_2() -> None:
    identity = Identity(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert identity.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = identity.sign(bytes.fromhex("72"))
    assert signature.hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    verify(identity.public, signature, b"r", "somebody")


@pytest.mark.parametrize("position", [0, 31, 32, 63])
def test_a_changed_signature_message_or_key_is_forged(position: int) -> None:
    identity = Identity(bytes(range(32)))
    signature = bytearray(identity.sign(b"message"))
    verify(identity.public, bytes(signature), b"message", "somebody")
    with pytest.raises(Forged, match="somebody"):
        verify(identity.public, bytes(signature), b"massage", "somebody")
    with pytest.raises(Forged):
        verify(Identity(bytes(32)).public, bytes(signature), b"message", "somebody")
    signature[position] ^= 1
    with pytest.raises(Forged):
        verify(identity.public, bytes(signature), b"message", "somebody")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_and_signatures_of_any_other_length_are_forged(length: int) -> None:
    identity = Identity(bytes(32))
    with pytest.raises(Forged):
        verify(bytes(length), identity.sign(b""), b"", "somebody")
    with pytest.raises(Forged):
        verify(identity.public, bytes(length), b"", "somebody")
    with pytest.raises(Forged):
        AgreementKey(bytes(32)).agree(bytes(length))


def test_agreement_is_that_of_rfc_7748_section_6_1() -> None:
    alice = AgreementKey(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = AgreementKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.agree(bob.public).hex() == bob.agree(alice.public).hex() == shared


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_public_key_of_low_order_is_forged(point: str) -> None:
    with pytest.raises(Forged, match="low order"):
        AgreementKey.generate(os.urandom).agree(bytes.fromhex(point))


@given(
    st.binary(min_size=1, max_size=64),
    st.text(max_size=9),
    st.lists(st.binary(max_size=9), max_size=3),
    st.integers(1, 99),
)
def test_derivation_is_hkdf_of_rfc_5869_with_the_digest_as_info(
    secret: bytes, label: str, context: list[bytes], length: int
) -> None:
    """The extract and expand steps written out: our ``info`` is a digest, so the RFC's own vectors cannot be put in."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    block, expanded = b"", b""
    for counter in range(1, 5):
        block = hmac.new(extracted, block + digest(label, *context) + bytes([counter]), hashlib.sha256).digest()
        expanded += block
    assert derive(secret, label, *context, length=length) == expanded[:length]


def test_the_written_out_hkdf_is_rfc_5869_test_case_3() -> None:
    """What the test above relies on, checked against the RFC: no salt, no info, 42 bytes."""
    extracted = hmac.new(bytes(32), b"\x0b" * 22, hashlib.sha256).digest()
    assert extracted.hex() == "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"
    first = hmac.new(extracted, b"\x01", hashlib.sha256).digest()
    second = hmac.new(extracted, first + b"\x02", hashlib.sha256).digest()
    assert (first + second)[:42].hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_no_two_lists_of_parts_have_one_digest(left: list[bytes], right: list[bytes]) -> None:
    assert (digest("label", *left) == digest("label", *right)) == (left == right)
    assert (authenticate(b"key", "label", *left) == authenticate(b"key", "label", *right)) == (left == right)


def test_labels_and_keys_separate() -> None:
    assert digest("a", b"x") != digest("b", b"x")
    assert derive(bytes(32), "a", b"x") != derive(bytes(32), "b", b"x")
    assert authenticate(b"a", "label", b"x") != authenticate(b"b", "label", b"x")
    assert digest("ab") != digest("a", b"b")


def test_sealing_is_aes_256_gcm_of_mcgrew_and_viega_test_cases_13_and_14() -> None:
    assert seal(bytes(32), b"", b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    sealed = seal(bytes(32), bytes(16), b"")
    assert sealed.hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"


@given(st.binary(max_size=50), st.binary(max_size=20), st.data())
def test_a_sealed_message_opens_only_unchanged(plaintext: bytes, associated: bytes, data: st.DataObject) -> None:
    key = bytes(range(32))
    sealed = seal(key, plaintext, associated)
    assert open_sealed(key, sealed, associated) == plaintext
    changed = bytearray(sealed)
    changed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for attempt in (
        (key, bytes(changed), associated),
        (key, sealed, associated + b"x"),
        (bytes(32), sealed, associated),
        (key, sealed[:-1], associated),
        (key, b"", associated),
    ):
        with pytest.raises(Forged):
            open_sealed(*attempt)


def test_the_keystream_is_aes_128_ctr_of_nist_sp_800_38a_f_5_1() -> None:
    stream = Keystream(
        bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"), bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    )
    buffer = bytearray(32)
    stream.read_into(memoryview(bytes(32)), memoryview(buffer))
    assert buffer.hex() == "ec8cdf7398607cb0f2d21675ea9ea1e4" + "362b7c3c6773516318a077d7fc5073ae"


def test_reading_a_keystream_in_pieces_gives_the_same_bytes() -> None:
    whole, pieces = bytearray(1000), bytearray(1000)
    Keystream(bytes(16), bytes(16)).read_into(memoryview(bytes(1000)), memoryview(whole))
    stream = Keystream(bytes(16), bytes(16))
    for start, end in ((0, 1), (1, 17), (17, 600), (600, 1000)):
        stream.read_into(memoryview(bytes(end - start)), memoryview(pieces)[start:end])
    assert pieces == whole


def test_comparison_is_what_it_says() -> None:
    assert equal(b"a", b"a") and not equal(b"a", b"b") and not equal(b"a", b"aa")


def test_secret_keys_are_not_printed() -> None:
    secret = bytes(range(1, 33))
    for key in (Identity(secret), AgreementKey(secret)):
        assert repr(secret)[2:-1] not in repr(key)
        assert secret.hex() not in repr(key)
