"""Hashes, keys and signatures in reports are what their schema says, in Python as in ECMAScript."""

from __future__ import annotations

import msgspec
import pytest

from securefl.report.statement import Hash, Key, Signature


@pytest.mark.parametrize(
    ("kind", "text"), [(Hash, "0f" * 32), (Hash, "none"), (Hash, "unknown"), (Key, "0f" * 32), (Signature, "0f" * 64)]
)
def test_no_text_with_anything_behind_it_is_taken(kind: type[str], text: str) -> None:
    """Two that differ by a newline would be one to a person and two to a program."""
    assert msgspec.convert(text, kind) == text
    for more in ("\n", "\r\n", " ", "\0", "0"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(text + more, kind)
