from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks import ckks, encrypted
from benchmarks.__main__ import SUBJECTS
from benchmarks.client_apart import client_peaks
from benchmarks.encrypted import (
    Costs,
    Mean,
    Ours,
    SharedOut,
    Side,
    checked_error,
    costs,
    masked_round,
    ours,
    shared_out,
)
from benchmarks.nvflare_recipe import CNN, Apart, Recipe, tensor_sizes, theirs
from benchmarks.round import CLIENTS, Decryption, KeyHolder, Measured, Play, play, update, updates
from benchmarks.rows import Row
from protocols.aggregation.messages import ApplyRequest, DecryptRequest
from protocols.encoding import Upload
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.masking import Work
from protocols.ring import RingVector

SMALL = 5000
GOALS = {
    "encrypt_vs_nvflare": 3.0,
    "server_sum_vs_nvflare": 15.0,
    "decrypt_vs_nvflare": 1.0,
    "round_vs_nvflare": 4.0,
    "encrypt_only_vs_nvflare": None,
    "load_and_decrypt_vs_nvflare": None,
    "encrypt_vs_nvflare_two_processes": None,
    "ckks_client_encrypt_seconds": None,
    "upload_vs_nvflare": None,
    "mean_error_vs_nvflare": None,
}


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedOut]:
    with shared_out() as found:
        yield found


@pytest.fixture(scope="module")
def peer() -> Iterator[Apart]:
    with Apart() as found:
        yield found


class _Same:
    """A peer that costs as much as we do."""

    costs = Costs(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1e-9)

    def begin(self, dimension: int) -> None:
        self.turns = 0

    def turn(self) -> None:
        self.turns += 1


def by_name(rows: Iterator[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def test_it_is_a_subject_of_the_one_command() -> None:
    assert "ckks" in SUBJECTS


def test_the_ratios_have_the_goals_that_were_set(peer: Apart, shared: SharedOut) -> None:
    rows = by_name(ckks.million_rows(SMALL, ckks.Turns(peer, shared, 1), quick=True))
    assert {name: row.goal for name, row in rows.items()} == GOALS
    assert all(row.ratio is not None for name, row in rows.items() if "nvflare" in name)
    assert rows["encrypt_vs_nvflare"].value > rows["encrypt_only_vs_nvflare"].value
    assert rows["load_and_decrypt_vs_nvflare"].value > rows["decrypt_vs_nvflare"].value
    assert rows["mean_error_vs_nvflare"].value < 1e-8 < (rows["mean_error_vs_nvflare"].peer_value or 0) < 1e-5


def test_at_other_sizes_the_same_ratios_have_a_suffix_and_no_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ckks, "ours", lambda dimension, turn: _Same.costs)
    rows = by_name(ckks.size_rows(100_000, ckks.Turns(_Same(), None, 2), quick=True))
    assert list(rows) == [f"{figure.name}_d1e5" for figure in ckks.HEADLINE]
    assert {(row.goal, row.met, row.ratio) for row in rows.values()} == {(None, None, 1.0)}


def test_bytes_errors_and_steps_are_reported_of_both_profiles() -> None:
    rows = by_name(ckks.byte_rows(SMALL, quick=True))
    goals = {"upload_bytes_per_parameter": 7.1, "upload_bytes_per_parameter_compact": 5.1, "mean_error": 1e-8}
    assert {name: row.goal for name, row in rows.items() if row.goal} == goals
    assert rows["mean_error"].met
    for suffix in ("", "_compact"):
        assert rows[f"mean_error{suffix}"].value < rows[f"grid_step{suffix}"].value
        # Every client is sent the sum, once, and what little the exchanges need.
        assert rows[f"download_bytes_per_parameter{suffix}"].value > 8192 / SMALL * (4 if suffix else 6)


def test_noise_before_rounding_is_above_nothing_and_below_half_a_step() -> None:
    (row,) = ckks.error_rows(SMALL, quick=True)
    assert row.name == "mean_error_before_rounding"
    assert 0 < row.value < encrypted.standard(SMALL).step / 2 / CLIENTS


def test_a_clients_memory_grows_with_its_vector_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ckks, "client_peaks", lambda dimension: [0, 50_000_000 + 40 * dimension])
    (row,) = ckks.memory_rows(1_000_000, quick=True)
    assert (row.name, row.goal, row.met) == ("client_memory_vectors", 12.0, True)
    assert row.value == pytest.approx(9.99)


def test_a_client_apart_plays_a_whole_round() -> None:
    peaks = client_peaks(1000)  # raises where it decrypts another sum than the rest
    assert len(peaks) == 7  # five exchanges, the sum that is handed down, and its decryption
    assert peaks == sorted(peaks) and peaks[0] > 10_000_000


class _Counted(CKKS):
    """Counts what it decrypts."""

    decoded = 0

    def decode(self, total: RingVector, uploads: Sequence[Upload]) -> Mean:
        self.decoded += 1
        return super().decode(total, uploads)


def test_every_client_is_handed_the_sum_once_and_one_decrypts_it_for_all() -> None:
    parameters, given = encrypted.standard(SMALL), updates(SMALL)
    encoding = _Counted(parameters, CKKSKey.generate(os.urandom))
    measured = play(Play(encoding, masked=True), given, Work())
    assert encoding.decoded == 1
    checked_error(measured.total / CLIENTS, given, parameters.step)
    packed = parameters.layout.length * parameters.ring.item_bytes
    for name in given:
        assert packed < measured.up[name] < 1.5 * packed  # the upload, and no sum
        assert packed < measured.down[name] < 2 * packed


class _Astray(Decryption):
    """Goes on from another sum."""

    def tag(self, handed: ApplyRequest, asked: bytes, request: DecryptRequest) -> bytes:
        return super().tag(handed, asked, request)[::-1]


def test_a_round_in_which_a_client_decrypts_another_sum_has_no_times() -> None:
    session = Play(CKKS(encrypted.standard(SMALL), CKKSKey.generate(os.urandom)), masked=True)
    client = session.client("client-0", lambda: update(0, SMALL), Work())
    with pytest.raises(AssertionError, match="client-0 decrypted another sum"):
        play(session, updates(SMALL), Work(), {"client-0": KeyHolder("client-0", client, _Astray(session))})


def test_the_tensors_are_those_of_the_cnn_in_proportion() -> None:
    assert tensor_sizes(sum(CNN)) == list(CNN)
    for dimension in (1000, 100_000, 1_000_000):
        assert sum(tensor_sizes(dimension)) == dimension
        assert min(tensor_sizes(dimension)) >= 1


def test_both_sides_end_with_the_mean_of_all_updates() -> None:
    for side in (ours(SMALL), theirs(SMALL)):  # raise where they do not
        assert min(side.encrypt, side.pack, side.add, side.unpack, side.decrypt) > 0
        assert side.round > side.encrypt + side.decrypt
        assert side.upload > 6 * SMALL


def test_each_client_of_ours_waits_for_one_of_the_peers() -> None:
    same = _Same()
    same.begin(SMALL)
    costs(Ours(encrypted.standard(SMALL)), updates(SMALL), same.turn)
    assert same.turns == CLIENTS + 1


def test_a_peer_that_ends_is_said_to_have_ended(capfd: pytest.CaptureFixture[str]) -> None:
    with Apart() as failing:
        failing.begin(0)
        with pytest.raises(AssertionError, match="ended"):
            failing.turn()  # there is nothing to encrypt
    assert "Error" in capfd.readouterr().err


def test_the_peers_warnings_reach_no_terminal(peer: Apart, capfd: pytest.CaptureFixture[str]) -> None:
    theirs(20_000)  # more than one ciphertext
    assert "WARNING" in capfd.readouterr().out
    peer.begin(20_000)
    for _ in range(CLIENTS + 1):
        peer.turn()
    assert peer.costs.error < 1e-5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("wrong", [0.9, np.nan])
def test_a_wrong_mean_raises(wrong: float) -> None:
    given = updates(100)
    exact = np.mean([one.astype(np.float64) for one in given.values()], axis=0)
    assert checked_error(exact, given, 1e-12) < 1e-12
    with pytest.raises(AssertionError, match="mean nothing"):
        checked_error(exact * wrong, given, 1e-5)


class _Forgetful(Ours):
    """Leaves the first upload out of the sum."""

    def __init__(self) -> None:
        super().__init__(encrypted.standard(SMALL))
        self._added = 0

    def add(self, packed: Sequence[bytes]) -> None:
        self._added += 1
        if self._added > 1:
            super().add(packed)

    def decrypt(self, cipher: RingVector) -> Mean:
        del self._uploads[0]
        return super().decrypt(cipher)


class _Heavy(Recipe):
    """Divides by another weight."""

    def finish(self) -> Sequence[bytes]:
        self._weight += 1
        return super().finish()


@pytest.mark.parametrize("make", [_Forgetful, lambda: _Heavy(SMALL)], ids=["ours", "theirs"])
def test_a_side_whose_sum_is_wrong_has_no_times(make: Callable[[], Side[Any]]) -> None:
    with pytest.raises(AssertionError, match="mean nothing"):
        costs(make(), updates(SMALL))


def test_a_masked_round_whose_sum_is_wrong_has_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encrypted, "play", lambda session, given, work: Measured(total=np.zeros(SMALL)))
    with pytest.raises(AssertionError, match="mean nothing"):
        masked_round(encrypted.standard(SMALL), updates(SMALL))
