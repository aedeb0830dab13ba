"""Faults planted into our own mechanism, one at a time: an audit that misses one of them is worth little.

Each fault replaces a function of ours while it lasts; the audit runs unchanged, through the real protocol.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from unittest import mock

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from securefl import account, contribution
from securefl.account import Account
from securefl.announcement import Announcement
from securefl.audit.result import Audit
from securefl.privacy import accountant, noise
from securefl.privacy.ledger import Ledger
from securefl.privacy.mechanism import DPSGD, Skellam
from securefl.privacy.noise import NoisedSums, Random, Words
from securefl.privacy.simulation import seeded
from securefl.training import private
from securefl.training.private import noises

Floats = NDArray[np.float64]

_WITHOUT_CANARIES: Final = 10
"""Records of a client that is not audited."""


class Mutant(Struct, frozen=True):
    """One fault. ``job``: the kind of job that it shows in: "unsampled", "sampled" or "client"."""

    name: str
    job: str
    planted: Callable[[], contextlib.AbstractContextManager[object]]


def caught_by(found: Audit) -> tuple[str, ...]:
    """What accuses the mechanism: the headline bound, or tests by name."""
    bound = found.found.headline
    refuted = (bound.method,) if bound.refutes(found.asked.claim) else ()
    return refuted + tuple(check.name for check in found.found.checks if check.failed)


def _half_the_noise() -> contextlib.AbstractContextManager[object]:
    def halved(mechanism: DPSGD, dimension: int, words: Words) -> NoisedSums:
        return noises(replace(mechanism, noise_multiplier=mechanism.noise_multiplier / 2), dimension, words)

    return mock.patch.object(private, "noises", halved)


def _no_noise() -> contextlib.AbstractContextManager[object]:
    class Bare(NoisedSums):
        def noised(self, total: Floats) -> Floats:
            return total

    return mock.patch.object(private, "NoisedSums", Bare)


def _a_layer_without_noise() -> contextlib.AbstractContextManager[object]:
    class InPart(NoisedSums):
        def noised(self, total: Floats) -> Floats:
            found = super().noised(total.copy())
            found[:8] = total[:8]  # the model's own weights
            return found

    return mock.patch.object(private, "NoisedSums", InPart)


def _clip_doubled() -> contextlib.AbstractContextManager[object]:
    return mock.patch.object(private, "CLIP_MARGIN", 2.0)


def _same_noise_in_every_step() -> contextlib.AbstractContextManager[object]:
    def repeated(self: Account, announced: Announcement, purpose: str) -> Random:
        return seeded(1, self.name, purpose)

    return mock.patch.object(Account, "random", repeated)


@contextmanager
def _noise_shared_by_clients() -> Iterator[None]:
    def shared(self: Account, announced: Announcement, purpose: str) -> Random:
        return seeded(1, announced.round, announced.attempt, purpose)

    def everybody(count: int, rate: float, words: Words) -> NDArray[np.int64]:
        return np.arange(count)  # no word is read, so that streams do not part where clients have unlike many records

    with mock.patch.object(Account, "random", shared), mock.patch.object(private, "poisson_sample", everybody):
        yield


def _accountant_reset_every_round() -> contextlib.AbstractContextManager[object]:
    def of_the_last(self: Ledger, delta: float | None = None) -> float:
        found = self.entries()[-1]
        at = delta if self.budget is None or delta is not None else self.budget.delta
        return accountant.epsilon(found.releases, at or 1e-5, self.owner.unit)

    return mock.patch.object(Ledger, "epsilon", of_the_last)


@contextmanager
def _shuffled_while_poisson_is_claimed() -> Iterator[None]:
    """Batches of one size, each record once in 1 / rate steps: what a data loader does."""
    left: dict[int, list[int]] = {}

    def shuffled(count: int, rate: float, words: Words) -> NDArray[np.int64]:
        if count <= _WITHOUT_CANARIES:  # the others', of whom the adversary makes a copy
            return noise.poisson_sample(count, rate, words)
        coming = left.setdefault(count, [])
        if not coming:
            coming += np.random.default_rng(int(words.take(1)[0])).permutation(count).tolist()
        size = max(1, round(rate * count))
        taken, left[count] = coming[:size], coming[size:]
        return np.sort(np.array(taken, np.int64))

    with mock.patch.object(private, "poisson_sample", shuffled):
        yield


def _one_client_s_ledger_not_charged() -> contextlib.AbstractContextManager[object]:
    charge = Account.charge

    def all_but_one(self: Account, announced: Announcement) -> None:
        if self.name != "s0":
            charge(self, announced)

    return mock.patch.object(account.Account, "charge", all_but_one)


def _shares_for_more_honest_clients_than_there_are() -> contextlib.AbstractContextManager[object]:
    """Each client's noise as if all others noised, too, whoever is known to the adversary or gone."""

    def smaller(sums: tuple[Skellam, ...], random: Random) -> NDArray[np.int64]:
        return noise.skellam(sums[0].dimension, sums[0].variance / (3 * sums[0].honest), random)

    return mock.patch.object(contribution, "noise_share", smaller)


def _updates_not_clipped() -> contextlib.AbstractContextManager[object]:
    def whole(update: NDArray[np.float32], clip: float) -> tuple[Floats, bool]:
        return np.clip(update.astype(np.float64) / clip, -1.0, 1.0), True

    return mock.patch.object(contribution, "clipped", whole)


MUTANTS: Final = (
    Mutant("half the noise", "unsampled", _half_the_noise),
    Mutant("a layer without noise", "unsampled", _a_layer_without_noise),
    Mutant("clip doubled", "unsampled", _clip_doubled),
    Mutant("no noise", "unsampled", _no_noise),
    Mutant("same noise in every step", "unsampled", _same_noise_in_every_step),
    Mutant("noise shared by clients", "unsampled", _noise_shared_by_clients),
    Mutant("accountant reset every round", "unsampled", _accountant_reset_every_round),
    Mutant("shuffled while Poisson is claimed", "sampled", _shuffled_while_poisson_is_claimed),
    Mutant("half the noise, sampled", "sampled", _half_the_noise),
    Mutant("one client's ledger not charged", "unsampled", _one_client_s_ledger_not_charged),
    Mutant("a third of the client-level noise", "client", _shares_for_more_honest_clients_than_there_are),
    Mutant("client-level updates not clipped", "client", _updates_not_clipped),
)
