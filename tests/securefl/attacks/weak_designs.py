"""Three weak designs as columns beside the settings: the real federation with one thing about its masks or keys worse.

Each is whole: its sums are right and nobody in it would notice. Not a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import pytest

from protocols import masking
from protocols.aggregation.messages import InputRequest
from protocols.aggregation.recovery import Recovery, Shares
from protocols.aggregation.secrets import pair_mask
from protocols.base import Messages
from protocols.encoding.fixedpoint import FixedPoint
from protocols.masking import Mask, apply_masks
from protocols.primitives import AgreementKey, Keystream
from protocols.ring import RingVector
from protocols.wire import kind
from securefl import protection, vector
from securefl.attacks.collusion import COLLUDER
from securefl.attacks.scene import VICTIM, Scene, Vector, View
from securefl.attacks.settings import Setting, setting
from securefl.attacks.updates import RATE, linear, odd_one_out, recovered, true_update
from tests.protocols.attacks.test_masks import COUNTER, Folded, OneNumber, all_keys

BITS = 16
"""Of the seeds that are tried out here; 28 take 2**12 times as long."""

_LOOKED_AT = 64  # of the victim's coordinates: a wrong key leaves all of them within the bound once in 2**84


@dataclass(frozen=True)
class WeakDesign:
    """One column. ``strong`` is the setting that it falls short of, ``setting`` what it runs on; ``weaken`` makes it
    worse; ``steal`` is what the adversary makes of a round's uploads.
    """

    name: str
    setting: Setting
    strong: Setting
    weaken: Callable[[pytest.MonkeyPatch], None]
    steal: Callable[[Scene], Vector | None]

    def known(self, on: Setting) -> float:
        """The share of the victim's update that the adversary has."""
        scene = Scene(on, linear, odd_one_out(), mechanism=on.mechanism(), learning_rate=RATE)
        truth = true_update(linear, vector.flatten(scene.module()), odd_one_out()[VICTIM])
        return recovered(self.steal(scene), truth)


def as_it_is(patch: pytest.MonkeyPatch) -> None:
    """No weaker than the setting."""


def opened_by_a_colluder(scene: Scene) -> Vector | None:
    """One key opens every upload, if nothing else is on it."""
    return scene.round().update_of(VICTIM, scene.key_of(COLLUDER))


# ---- one number for all coordinates


def one_number(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(masking, "Keystream", OneNumber)


def less_a_dead_pixel(scene: Scene) -> Vector | None:
    """All differences between coordinates are the update's own; the corner of a digit is always empty, so that the
    weight of the first pixel does not move.
    """
    upload = uploaded(scene, scene.round())
    return decoded(scene, upload - upload[0])


# ---- seeds that can be tried out


def small_seeds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(masking, "Keystream", Folded)


def tried_out(scene: Scene) -> Vector | None:
    """Say that the victim's upload came too late, take its pairwise masks off with the mask key that the others then
    open, and try all seeds for the one mask that is left.
    """
    upload, recovery, key = called_late(scene)
    own = AgreementKey(key)
    theirs = {name: keys.mask_key for name, keys in recovery.advertised.items() if name != VICTIM}
    added = [pair_mask(recovery.terms, own, VICTIM, name, public) for name, public in theirs.items()]
    apply_masks(upload, recovery.terms.layout.ring, [Mask(mask.key, -1 if mask.sign == 1 else 1) for mask in added])
    found = seed_of(upload, largest_step(scene)).key
    if found is None:
        return None
    apply_masks(upload, recovery.terms.layout.ring, [Mask(found, -1)])
    return decoded(scene, upload)


@dataclass(frozen=True)
class Found:
    """The key that left a possible update, if one did; ``rate``: keys tried a second."""

    key: bytes | None
    rate: float


def seed_of(left: RingVector, largest: int) -> Found:
    """Try all seeds of 16 bits on what one mask hides."""
    words, zeros = np.empty(_LOOKED_AT, np.uint32), memoryview(bytes(4 * _LOOKED_AT))
    started, target = perf_counter(), left[:_LOOKED_AT]
    for tried, key in enumerate(all_keys(BITS), 1):
        Keystream(key, COUNTER).read_into(zeros, words.view(np.uint8).data)
        if (target - words + np.uint32(largest) <= 2 * largest).all():
            return Found(key, tried / (perf_counter() - started))
    return Found(None, (1 << BITS) / (perf_counter() - started))


def called_late(scene: Scene) -> tuple[RingVector, Recovery, bytes]:
    """The victim's upload, what the server knew at the end of the round, and the mask key that was opened to it."""
    secrets: list[tuple[Recovery, bytes]] = []
    exchange, remove = scene._exchange, Recovery.remove

    def without_the_victims_input(requests: Messages) -> Iterator[tuple[str, bytes]]:
        for name, reply in exchange(requests):
            if (name, kind(requests[name])) != (VICTIM, InputRequest.KIND):
                yield name, reply

    def noting(recovery: Recovery, total: RingVector, shares: Shares) -> None:
        secrets.append((recovery, recovery._secrets(shares)[VICTIM]))
        remove(recovery, total, shares)

    scene._exchange = without_the_victims_input
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recovery, "remove", noting)  # the server's own memory, which is the adversary's
        view = scene.round()
    assert VICTIM in view.outcome.recovered
    return uploaded(scene, view), *secrets[0]


# ---- what both share


def uploaded(scene: Scene, view: View) -> RingVector:
    """The victim's vector as it came."""
    upload, _ = view.uploads[VICTIM]
    return upload.copy()


def decoded(scene: Scene, values: RingVector) -> Vector:
    coder = protection.parameters(scene.plan)
    assert isinstance(coder, FixedPoint)
    return coder.decode(values, [])


def largest_step(scene: Scene) -> int:
    coder = protection.parameters(scene.plan)
    assert isinstance(coder, FixedPoint)
    return round(coder.bound / coder.step)


SHARED_KEY = WeakDesign(
    "one shared CKKS key", setting("ckks-unmasked"), setting("ckks"), as_it_is, opened_by_a_colluder
)
SMALL_SEED = WeakDesign("masks from a 28-bit seed", setting("secagg"), setting("secagg"), small_seeds, tried_out)
ONE_NUMBER = WeakDesign(
    "one number for all coordinates", setting("secagg"), setting("secagg"), one_number, less_a_dead_pixel
)
COLUMNS = (SHARED_KEY, SMALL_SEED, ONE_NUMBER)
