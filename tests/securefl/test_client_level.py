"""Rounds with client-level privacy: the noise that is left in a sum is at least the noise that was charged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from protocols.aggregation.messages import Envelope
from protocols.aggregation.session import Roster
from protocols.encoding import Encoding, Upload
from protocols.encoding.ckks import CKKS
from protocols.encoding.fixedpoint import FixedPoint
from protocols.wire import decode
from securefl import SGD, Client, Dataset, Ledger, LocalOptimizer, Server, Store, global_state, job, protection
from securefl.account import load_identity
from securefl.announcement import public_tag
from securefl.engines.local import Corruption, LocalEngine, Silence
from securefl.errors import BadJob, Refused, RoundFailed
from securefl.plan import AdaptiveClip, ClientLevel, HeldOut, Plan, PrivacyTerms
from securefl.policy import Policy
from securefl.privacy.ledger import Owner, read
from securefl.privacy.mechanism import Budget, Skellam, Training
from securefl.privacy.noise import Random
from securefl.releases import releases
from securefl.round import enrol
from tests.securefl.federation import CELLS, NAMES, RUN, TEST, direct, final_model, model, records
from tests.securefl.test_plan import plan as plan_with

BUDGET = Budget(100.0, 1e-5)
NOISE, CLIP = 1.0, 0.5
LEVEL = PrivacyTerms(ClientLevel(NOISE, CLIP), unit="client")
EVERY_CELL = pytest.mark.parametrize("cell", CELLS)
# Of five clients four are enough; with masks nobody knows the noise of three of them.
HONEST = {"plain": 1, "secagg": 3, "ckks-unmasked": 1, "ckks": 3}
MINIMUM = 4


def wide() -> nn.Module:
    """22,000 parameters: one round is as good as thousands of one coordinate."""
    return nn.Linear(10, 2000)


DIMENSION = 22_000
# The mean square of n such values is off its expectation by a factor 1 +- 6 sqrt(2 / n) with probability below 1e-8
# (six deviations). Five updates, each a clip long at most, add less than 25 / n clips squared to it.
TOLERANCE = 6 * math.sqrt(2 / DIMENSION) + 25 / DIMENSION
ONE_STEP = SGD(sampling_rate=1.0, steps=1)


def owner_of(name: str, factory: Callable[[], nn.Module], data: Dataset | None, folder: Path | None) -> Client:
    """A client whose ledger's unit is the client; ledger and store are files where a folder is given."""
    store = Store(folder / f"{name}.store") if folder else Store()
    path = folder / f"{name}.ledger" if folder else ":memory:"
    ledger = Ledger(path, load_identity(store), Owner(name, "toy", "client"), BUDGET)
    own = data or records(NAMES.index(name))
    return Client(name, own, factory, budget=BUDGET, test=TEST, ledger=ledger, store=store)


def parties(
    cell: str = "secagg",
    privacy: PrivacyTerms = LEVEL,
    factory: Callable[[], nn.Module] = model,
    mechanism: Training = ONE_STEP,
    data: Mapping[str, Dataset] | None = None,
    folder: Path | None = None,
    rounds: int = 8,
) -> tuple[Server, list[Client]]:
    """Server and clients that have pinned each other, and under CKKS hold the key."""
    optimizer = LocalOptimizer(0.5)
    coordinator = Server(factory, CELLS[cell], mechanism, optimizer, rounds=rounds, privacy=privacy, run=RUN)
    owners = [owner_of(name, factory, (data or {}).get(name), folder) for name in NAMES]
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    return coordinator, owners


def faulty(owners: Sequence[Client], *faults: Silence | Corruption) -> LocalEngine:
    return LocalEngine({owner.name: owner for owner in owners}, faults)


def in_clips(moved: NDArray[np.float32], before: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sum of updates that a round moved the model by."""
    return (moved.astype(np.float64) - before) * len(NAMES) / CLIP


def mean_square(values: NDArray[np.float64]) -> float:
    return float(np.mean(values**2))


@dataclass
class Played:
    """One round. ``uploads``: what someone reads who can decode single uploads; ``charges``: each client's count of
    charges as each of its replies left."""

    plan: Plan
    total: NDArray[np.float64]
    uploads: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    charges: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in NAMES})
    owners: dict[str, Client] = field(default_factory=dict)
    coders: dict[str, Encoding] = field(default_factory=dict)


def play(cell: str) -> Played:
    coordinator, owners = parties(cell, factory=wide)
    found = Played(coordinator.plan, np.zeros(0), owners={owner.name: owner for owner in owners})
    roster = Roster({owner.name: owner.public_key for owner in owners})

    def look(name: str, reply: bytes) -> bytes:
        attempt = found.owners[name]._attempt  # of which nothing is left after the last reply
        if attempt is not None and attempt.session is not None:
            found.coders[name] = attempt.session._encoding
        found.charges[name].append(len(found.owners[name].account.ledger.entries()))
        envelope = decode(reply, Envelope)
        if len(envelope.parts[0]) > DIMENSION and name not in found.uploads:
            header, coder = envelope.signed.authenticate(roster), found.coders[name]
            vector = coder.layout.ring.unpack(envelope.parts[0], coder.layout.length)
            if cell != "ckks":  # there not even a key holder can
                found.uploads[name] = coder.decode(vector, [Upload(header.session, name, header.seed)])
        return reply

    before = final_model(coordinator, owners)
    coordinator.round(direct(owners, look))
    found.total = in_clips(final_model(coordinator, owners), before)
    return found


played = cache(play)


# ---- the noise in a sum


@EVERY_CELL
def test_a_sum_carries_the_noise_of_all_contributors(cell: str) -> None:
    """False alarm: below 1e-8 each, see ``TOLERANCE``."""
    assert protection.honest(played(cell).plan) == HONEST[cell]
    assert mean_square(played(cell).total) == pytest.approx(NOISE**2 * len(NAMES) / HONEST[cell], rel=TOLERANCE)


@EVERY_CELL
def test_what_is_charged_is_the_noise_in_steps_of_the_encoding_that_ran(cell: str) -> None:
    (release,) = releases(played(cell).plan)
    assert isinstance(release, Skellam)
    assert release.variance == (NOISE * release.scale) ** 2
    for name, owner in played(cell).owners.items():
        (entry,) = owner.account.ledger.entries()
        assert entry.releases == (release,)
        coder = played(cell).coders[name]
        assert isinstance(coder, FixedPoint | CKKS)
        assert release.scale == 1 / (coder.parameters.step if isinstance(coder, CKKS) else coder.step)


@pytest.mark.parametrize("cell", ["secagg", "ckks"])
def test_dropouts_down_to_the_minimum_leave_at_least_what_was_charged(cell: str) -> None:
    """False alarm: below 1e-8 each, see ``TOLERANCE``."""
    coordinator, owners = parties(cell, factory=wide)
    before = final_model(coordinator, owners)
    outcome = coordinator.round(faulty(owners, Silence("eve", 2, 1)).exchange(1))
    assert len(outcome.contributors) == MINIMUM
    left = mean_square(in_clips(final_model(coordinator, owners[:1]), before))
    assert left == pytest.approx(NOISE**2 * MINIMUM / HONEST[cell], rel=TOLERANCE)
    assert left > NOISE**2


def test_below_the_minimum_no_sum_is_formed() -> None:
    coordinator, owners = parties()
    with pytest.raises(RoundFailed):
        coordinator.round(faulty(owners, Silence("eve", 2, 1), Silence("dan", 2, 1)).exchange(1))


@pytest.mark.attack("one upload's share of the noise")
@pytest.mark.parametrize("cell", ["plain", "ckks-unmasked"])
def test_without_masks_every_upload_alone_has_the_charged_noise(cell: str) -> None:
    """As if masks hid it, an upload would have a third of it. False alarm: below 1e-8 each, see ``TOLERANCE``."""
    with pytest.MonkeyPatch.context() as weak:
        weak.setattr(protection, "honest", lambda plan: HONEST["secagg"])
        shares = play(cell).uploads
    assert [mean_square(found) for found in shares.values()] == pytest.approx([NOISE**2 / 3] * 5, rel=TOLERANCE)
    alone = played(cell).uploads
    assert [mean_square(found) for found in alone.values()] == pytest.approx([NOISE**2] * 5, rel=TOLERANCE)


def test_a_masked_upload_shows_nothing_of_its_update_or_noise() -> None:
    """Residues look uniform: their mean square is a third of the largest's. False alarm: the deviation of the mean
    square is 0.3 of that / sqrt(n); six of them have a probability below 1e-8."""
    largest = 2.0**31 * protection.parameters(played("secagg").plan).step
    for found in played("secagg").uploads.values():
        assert mean_square(found / largest) == pytest.approx(1 / 3, abs=6 * 0.3 / math.sqrt(DIMENSION))


# ---- the influence of one client


@pytest.mark.attack("an update far beyond the clip")
def test_one_client_moves_the_sum_by_a_clip_at_most() -> None:
    """Seen along the direction of its update, which the adversary knows. False alarm: there the noise of the sum has a
    deviation of sqrt(5 / 3) clips; nine clips are more than six of them."""
    generator = np.random.default_rng(1)
    features = 1e4 * generator.normal(size=(400, 10)).astype(np.float32)
    far = {"ada": Dataset(features, generator.integers(0, 2000, 400))}

    def along() -> float:
        coordinator, owners = parties(data=far, factory=wide)
        start, ada = final_model(coordinator, owners), owners[0]._material
        aim = ada._trained(ada.module(coordinator.plan, start), coordinator.plan, np.random.bytes).astype(np.float64)
        coordinator.round(direct(owners))
        return float(in_clips(final_model(coordinator, owners), start) @ aim / np.linalg.norm(aim))

    with pytest.MonkeyPatch.context() as weak:
        weak.setattr("securefl.contribution.clipped", lambda update, clip: (update.astype(np.float64) / clip, False))
        assert along() > 20
    # The others' updates are a clip long each at most, too.
    assert abs(along()) < 5 + 9


def scaled(size: float) -> Dataset:
    return Dataset((size * np.sign(records(0).features)).astype(np.float32), np.arange(40) % 2)


# Training fails on these, with a few steps: it ends in NaN.
BROKEN = scaled(3e37)
FEW_STEPS = SGD(1.0, 5)
FOLLOWING = PrivacyTerms(ClientLevel(NOISE, CLIP, AdaptiveClip(0.5, 0.2, 5.0)), unit="client")


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6, 3e37])
@pytest.mark.parametrize("terms", [LEVEL, FOLLOWING], ids=["fixed", "adaptive"])
def test_what_a_client_puts_in_is_within_a_clip_whatever_its_records(size: float, terms: PrivacyTerms) -> None:
    coordinator, owners = parties(privacy=terms, mechanism=FEW_STEPS, data={"ada": scaled(size)})
    start = global_state.first(coordinator.plan, final_model(coordinator, owners))
    found = owners[0]._material.update(coordinator.plan, start, np.random.bytes)
    assert found.shape == start.shape
    assert math.sqrt(math.fsum(found[:22].astype(np.float64) ** 2)) <= 1
    assert set(found[22:]) <= {-0.5, 0.5}


def without_care(self: object, module: nn.Module, plan: Plan, random: Random, *_: object) -> NDArray[np.float32]:
    from securefl import training

    return training.train(module, self.data, plan.mechanism, plan.optimizer, random)  # type: ignore[attr-defined]


@pytest.mark.attack("a training that fails")
def test_a_training_that_fails_sends_zeros_rather_than_staying_away() -> None:
    """Who stays away tells that its training failed, and no noise covers that."""

    def contributors() -> tuple[str, ...]:
        coordinator, owners = parties(mechanism=FEW_STEPS, data={"bob": BROKEN})
        return coordinator.round(direct(owners)).contributors

    with pytest.MonkeyPatch.context() as weak:
        weak.setattr("securefl.contribution.Material._trained", without_care)
        assert contributors() == ("ada", "cyd", "dan", "eve")
    assert contributors() == NAMES


def lost_at(clip: float) -> set[str]:
    """Who is gone from a round that a server began by announcing this adaptive clip; one client's update is zero."""
    coordinator, owners = parties("plain", FOLLOWING, mechanism=FEW_STEPS, data={"bob": BROKEN})
    vector = global_state.first(coordinator.plan, final_model(coordinator, owners))
    vector[-1] = clip
    text = vector.astype("<f4").tobytes()
    coordinator._kept.save(model=text, tag=public_tag(text))
    try:
        return set(coordinator.round(direct(owners)).dropped)
    except RoundFailed as failure:
        return set(failure.lost)


@pytest.mark.attack("a clip of nothing")
@pytest.mark.parametrize("clip", [0.0, -1.0])
def test_a_server_that_announces_a_clip_of_nothing_is_not_told_whose_update_is_zero(clip: float) -> None:
    """An adaptive clip is a number in the announced vector. Either all clients refuse it, or all answer."""
    assert lost_at(clip) in (set(), set(NAMES))


# ---- what was charged, and when


@EVERY_CELL
def test_the_charge_is_in_the_ledger_before_an_input_leaves(cell: str) -> None:
    before_input = 2 if cell in ("secagg", "ckks") else 1
    for counted in played(cell).charges.values():
        assert counted[:before_input] == [0] * before_input
        assert set(counted[before_input:]) == {1}


@pytest.mark.parametrize(
    ("fault", "charged"),
    [(Silence("bob", 2, 1), 0), (Corruption("bob", 2, 1), 1), (Silence("bob", 3, 1), 1)],
    ids=["before it was asked", "its input was lost", "after its input"],
)
def test_whatever_becomes_of_an_input_its_attempt_stays_charged(
    fault: Silence | Corruption, charged: int, tmp_path: Path
) -> None:
    coordinator, owners = parties(folder=tmp_path)
    coordinator.round(faulty(owners, fault).exchange(1))
    entries = read(tmp_path / "bob.ledger").entries  # as who comes back after a crash finds it
    assert [(entry.run, entry.round, entry.attempt) for entry in entries] == [(RUN, 1, 1)] * charged


class Killed(BaseException):
    """The process ends here."""


def test_who_is_killed_in_its_training_is_charged(tmp_path: Path) -> None:
    class Fatal(nn.Linear):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            if armed and self.training:
                raise Killed
            return super().forward(features)

    armed: list[bool] = []
    coordinator, owners = parties(factory=lambda: Fatal(10, 2), folder=tmp_path)
    armed.append(True)
    with pytest.raises(Killed):
        coordinator.round(direct(owners))
    assert [len(read(tmp_path / f"{name}.ledger").entries) for name in NAMES] == [1, 0, 0, 0, 0]


def test_every_attempt_is_charged_on_its_own(tmp_path: Path) -> None:
    coordinator, owners = parties(folder=tmp_path)
    with pytest.raises(RoundFailed):
        coordinator.round(faulty(owners, Silence("eve", 3, 1), Silence("dan", 3, 1)).exchange(1))
    coordinator.round(direct(owners))
    entries = read(tmp_path / "ada.ledger").entries
    assert [(entry.round, entry.attempt) for entry in entries] == [(1, 1), (1, 2)]
    spent = [read(tmp_path / f"{name}.ledger").releases for name in NAMES]
    assert len({len(released) for released in spent}) == 1 and len(spent[0]) == 2


# ---- adaptive clipping


def clips(coordinator: Server, owners: Sequence[Client]) -> list[float]:
    """The clip as each party has it that can read it."""
    vectors = [coordinator.vector, *(owner.held(RUN).vector for owner in owners)]
    return [global_state.clip(coordinator.plan, vector) for vector in vectors if vector is not None]


@EVERY_CELL
@pytest.mark.parametrize(("start", "fraction"), [(1e-6, 0.0), (1e6, 1.0)], ids=["too small", "too large"])
def test_an_adaptive_clip_moves_the_same_at_all_who_read_it(cell: str, start: float, fraction: float) -> None:
    """All updates are beyond the first of these clips, and none beyond the second. The noise of the fraction has a
    deviation of 0.2 * 0.5 * sqrt(5) / 5 = 0.045 at most. False alarm: beyond six of them, below 1e-8."""
    terms = PrivacyTerms(ClientLevel(NOISE, start, AdaptiveClip(0.5, 1.0, 0.2)), unit="client")
    coordinator, owners = parties(cell, terms, rounds=3)
    coordinator.round(direct(owners))
    found = clips(coordinator, owners)
    assert len(found) == (5 if "ckks" in cell else 1)
    assert len(set(found)) == 1
    assert math.log(found[0] / start) == pytest.approx(0.5 - fraction, abs=6 * 0.045)
    for owner in owners:
        (entry,) = owner.account.ledger.entries()
        assert [one.released for one in entry.releases if isinstance(one, Skellam)] == ["update", "clipped"]


# ---- plans that are refused


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weights": (1.0, 1.0, 0.5)}, "weighs clients differently"),
        ({"privacy": PrivacyTerms(LEVEL.client_level, HeldOut(5.0), "client")}, "held-out metrics hide records"),
        ({"privacy": PrivacyTerms(LEVEL.client_level, HeldOut(None), "client")}, "held-out metrics hide records"),
        ({"privacy": PrivacyTerms(LEVEL.client_level, unit="record")}, "or the reverse"),
        ({"privacy": PrivacyTerms(LEVEL.client_level, unit="patient")}, "or the reverse"),
        ({"privacy": PrivacyTerms(unit="client")}, "or the reverse"),
    ],
)
def test_a_plan_whose_client_level_guarantee_would_be_none_is_refused(values: dict[str, object], words: str) -> None:
    sound = plan_with(weights=(1.0, 1.0, 1.0), bound=1.0, privacy=LEVEL)
    Policy(exact_metrics=True).check(sound, "a", BUDGET)
    with pytest.raises(Refused, match=words):
        Policy(exact_metrics=True).check(msgspec.structs.replace(sound, **values), "a", BUDGET)


def test_a_client_level_plan_needs_a_budget() -> None:
    with pytest.raises(Refused, match="no privacy budget"):
        Policy().check(plan_with(weights=(1.0, 1.0, 1.0), bound=1.0, privacy=LEVEL), "a", None)


TABLES: dict[str, dict[str, object]] = {
    "data": {"loader": "own_data:load", "clients": list(NAMES)},
    "model": {"factory": "own_data:model"},
    "job": {"name": "t", "rounds": 2},
    "training": {"learning_rate": 0.5, "sampling_rate": 1.0, "steps": 2},
    "privacy": {"unit": "client", "noise_multiplier": 4.0, "epsilon": 50.0, "delta": 1e-5},
}


def test_a_client_level_job_trains_without_record_level_noise() -> None:
    found = job.checked(TABLES)
    assert found.mechanism == SGD(1.0, 2)
    assert found.terms == PrivacyTerms(ClientLevel(4.0, 1.0), unit="client")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"weights": {"ada": 0.5}}, "all weigh the same"),
        ({"metrics": {"noise_multiplier": 5.0}, "data": {"held_out": "own_data:more"}}, "their noise hides records"),
        ({"metrics": {"exact": True}, "data": {"held_out": "own_data:more"}}, "this job is to hide clients"),
    ],
)
def test_a_job_whose_client_level_guarantee_would_be_none_is_refused(
    section: dict[str, dict[str, object]], words: str
) -> None:
    tables = {name: TABLES.get(name, {}) | section.get(name, {}) for name in {**TABLES, **section}}
    with pytest.raises(BadJob) as caught:
        job.checked(tables)
    assert words in str(caught.value)
