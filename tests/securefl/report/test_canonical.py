"""Canonical form: one encoding for each value, by RFC 8785's rules, and nothing else read back."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from securefl.errors import BadInput, NotARun
from securefl.report.canonical import canonical, digest, many, read, read_many


class Value(Struct, frozen=True, forbid_unknown_fields=True):
    LABEL: ClassVar[str] = "a value"

    number: float
    count: int
    text: str
    more: dict[str, float]


class Twin(Struct, frozen=True):
    LABEL: ClassVar[str] = "another value"

    number: float
    count: int
    text: str
    more: dict[str, float]


VALUE = Value(1.0, 2, "é", {"b": 1e-5, "a": 1e21})

# RFC 8785, section 3.2.2.3 and appendix B: numbers as ECMAScript prints them.
NUMBERS = {
    0.0: "0",
    5e-324: "5e-324",
    1.7976931348623157e308: "1.7976931348623157e+308",
    9007199254740992.0: "9007199254740992",
    295147905179352830000.0: "295147905179352830000",
    1e21: "1e+21",
    1e-5: "0.00001",
    1e-7: "1e-7",
    333333333.33333325: "333333333.33333325",
}


@pytest.mark.parametrize(("value", "written"), NUMBERS.items())
def test_numbers_are_written_as_ecmascript_writes_them(value: float, written: str) -> None:
    assert canonical(Value(value, 0, "", {})) == f'{{"count":0,"more":{{}},"number":{written},"text":""}}'.encode()


def test_keys_are_sorted_and_nothing_is_left_between_them() -> None:
    assert canonical(VALUE) == '{"count":2,"more":{"a":1e+21,"b":0.00001},"number":1,"text":"é"}'.encode()


@given(
    st.builds(
        Value,
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(-(2**53) + 1, 2**53 - 1),
        st.text(),
        st.dictionaries(st.text(), st.floats(0, 1), max_size=3),
    )
)
def test_what_is_read_back_is_what_was_written(value: Value) -> None:
    assert read(canonical(value), Value, "here") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_does_not_have_is_refused(value: float) -> None:
    with pytest.raises(BadInput, match="no canonical JSON"):
        canonical(Value(value, 0, "", {}))


def test_a_whole_number_that_javascript_would_round_is_refused() -> None:
    with pytest.raises(BadInput, match="no canonical JSON"):
        canonical(Value(0.0, 2**53, "", {}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"count":2}',
        canonical(VALUE) + b"\n",
        msgspec.json.encode(VALUE),
        canonical(VALUE).replace(b"0.00001", b"1e-5"),
        canonical(VALUE).replace(b'"number":1', b'"number":1,"number":1'),
        canonical(VALUE).replace(b'"number":1', b'"new":3,"number":1'),
    ],
)
def test_anything_but_the_canonical_form_is_refused(data: bytes) -> None:
    with pytest.raises(NotARun, match="the file is damaged"):
        read(data, Value, "the file")


@given(st.binary(max_size=64))
def test_no_bytes_lead_to_another_error(data: bytes) -> None:
    with pytest.raises(NotARun):
        read(data, Value, "the file")


def test_equal_fields_under_another_label_have_another_digest() -> None:
    twin = Twin(VALUE.number, VALUE.count, VALUE.text, VALUE.more)
    assert canonical(twin) == canonical(VALUE)
    assert digest(twin) != digest(VALUE)


def test_many_values_are_read_back_in_order() -> None:
    values = (VALUE, Value(0.5, 1, "", {}))
    assert read_many(many(values), Value, "the file") == values
    assert read_many(many(()), Value, "the file") == ()


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"[{}]", b'[{"count": 2}]'])
def test_a_list_of_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(NotARun, match="the file is damaged"):
        read_many(data, Value, "the file")
