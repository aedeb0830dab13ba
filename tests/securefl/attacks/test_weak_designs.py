"""What attacks on one upload get under weak designs, and under the setting that each falls short of."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from protocols.masking import expand
from protocols.ring import Ring
from securefl.attacks.updates import HINTED, KNOWN
from tests.protocols.attacks.test_masks import as_long_as
from tests.securefl.attacks.weak_designs import ONE_NUMBER, SHARED_KEY, SMALL_SEED, WeakDesign, seed_of


@pytest.mark.parametrize(
    "design",
    [
        pytest.param(SHARED_KEY, marks=pytest.mark.attack("a federation under one shared CKKS key")),
        pytest.param(SMALL_SEED, marks=pytest.mark.attack("a federation whose masks come from small seeds")),
        pytest.param(ONE_NUMBER, marks=pytest.mark.attack("a federation whose masks are one number each")),
    ],
    ids=lambda design: design.name,
)
def test_a_weak_design_gives_the_victims_update_away(design: WeakDesign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of uniform vectors of 650 coordinates the share is above 0.25 with less than 1e-40."""
    with monkeypatch.context() as weak:
        design.weaken(weak)
        assert design.known(design.setting) >= KNOWN
    assert design.known(design.strong) < HINTED


def test_seeds_are_tried_so_fast_that_28_bits_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    """All keys of 16 bits are tried on a mask that none of them made; that 28 bits take hours at most is asserted with
    a hundredfold margin for slow machines.
    """
    key = hashlib.sha256(b"of all bits").digest()[:16]
    tried = seed_of(expand(Ring(1 << 32), key, 64), 1 << 20)
    assert tried.key is None and np.isfinite(tried.rate)
    assert 2**28 / tried.rate < 100 * 3600
    with capsys.disabled():
        print(f"\n{as_long_as(tried.rate)}")
