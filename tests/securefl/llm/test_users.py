from __future__ import annotations

import os

import numpy as np
import pytest

from securefl.errors import BadInput
from securefl.llm.users import grouped, repeatable
from securefl.objective import IGNORED
from securefl.privacy.fingerprint import fingerprint

TOKENS = np.arange(12).reshape(6, 2)
PEOPLE = ("ann", "ben", "ann", "ann", "cid", "ann")


def test_each_person_is_one_row_of_at_most_so_many_sequences() -> None:
    found = grouped(TOKENS, TOKENS, PEOPLE, 3, 99, os.urandom)
    assert found.data.features.shape == (3, 3, 2)
    assert found.data.labels.shape == (3, 6)
    assert found.left_out == 1
    assert found.data.features[1].tolist() == [[2, 3], [99, 99], [99, 99]]
    assert found.data.labels[1].tolist() == [2, 3, *4 * [IGNORED]]
    assert {tuple(row) for row in found.data.features[0].tolist()} <= {tuple(TOKENS[row]) for row in (0, 2, 3, 5)}


def test_which_sequences_are_kept_is_drawn_anew() -> None:
    """False alarm: 4 sets of three are equally likely, so that 60 draws miss one with chance 4 * (3/4)^60 < 2e-7."""
    kept = {tuple(grouped(TOKENS, TOKENS, PEOPLE, 3, 99, os.urandom).data.features[0, :, 0]) for _ in range(60)}
    assert len(kept) == 4


def test_a_kept_secret_makes_the_same_records_each_time_and_another_one_others() -> None:
    """False alarm: 60 secrets all keep the same three of four sequences with chance 4 * 4^-60."""

    def made(secret: bytes) -> bytes:
        data = grouped(TOKENS, TOKENS, PEOPLE, 3, 99, repeatable(secret)).data
        return fingerprint(bytes(32), data.features, data.labels)

    secret = os.urandom(32)
    assert made(secret) == made(secret)
    assert len({made(os.urandom(32)) for _ in range(60)}) > 1
    with pytest.raises(BadInput, match="draw 32 once"):
        repeatable(secret[:31])


def test_the_declared_size_is_of_people() -> None:
    assert grouped(TOKENS, TOKENS, PEOPLE, 1, 99, os.urandom, size=7).data.declared_size == 7


@pytest.mark.parametrize("most", [0, -1])
def test_what_cannot_be_grouped_is_refused(most: int) -> None:
    with pytest.raises(BadInput, match="one person a sequence"):
        grouped(TOKENS, TOKENS, PEOPLE, most, 99, os.urandom)
    with pytest.raises(BadInput, match="one person a sequence"):
        grouped(TOKENS, TOKENS, PEOPLE[1:], 1, 99, os.urandom)
