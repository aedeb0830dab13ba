"""Names and fingerprints, as people write them."""

from __future__ import annotations

import pytest

from securefl.deployment.names import grouped, require_name, ungrouped
from securefl.errors import BadInput

DIGITS = "0123456789abcdef" * 4


@pytest.mark.parametrize("typed", [DIGITS, grouped(DIGITS), DIGITS.upper(), "SHA256:" + DIGITS, f" {DIGITS}\n"])
def test_a_hash_is_understood_however_it_was_copied(typed: str) -> None:
    assert ungrouped(typed) == DIGITS


@pytest.mark.parametrize("typed", ["", DIGITS[:-1], DIGITS + "0", "g" + DIGITS[1:], "hello"])
def test_a_hash_that_is_cut_off_is_refused(typed: str) -> None:
    with pytest.raises(BadInput, match="copy all of it"):
        ungrouped(typed)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "-a", "ä", "a\n", "SERVER", "a.b", "x" * 65])
def test_a_name_that_is_no_file_or_no_site_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        require_name(name)
