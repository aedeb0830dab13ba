"""The quotient of a linear layer's gradients: one record's, and sums of them."""

from __future__ import annotations

import numpy as np
import pytest

from securefl.attacks import inversion
from securefl.attacks.inversion import MARGIN, attacked, verdict
from securefl.attacks.settings import SETTINGS, setting


@pytest.mark.attack("analytic inversion of a linear layer")
@pytest.mark.parametrize("clients", [5, 20])
def test_one_record_is_exact_without_protection_and_a_blend_under_masks(clients: int) -> None:
    assert attacked(setting("plain"), clients, 1).psnr >= 60
    masked = attacked(setting("secagg"), clients, 1)
    assert masked.psnr <= masked.baseline + MARGIN


@pytest.mark.parametrize("name", ["record-dp", "client-dp", "ckks"])
def test_noise_and_encryption_leave_no_more_than_the_mean_picture(name: str) -> None:
    found = attacked(setting(name), 5, 1)
    assert found.psnr <= found.baseline + MARGIN


def test_a_server_that_reads_nothing_guesses_the_mean_picture() -> None:
    found = attacked(setting("ckks-unmasked"), 5, 1)
    assert found.psnr == found.baseline


def test_draws_have_other_records() -> None:
    found = attacked(setting("plain"), 3, 2)
    assert len(np.unique(found.originals, axis=0)) == 6
    assert found.psnr >= 60


def test_an_update_that_moved_nothing_is_grey() -> None:
    assert (inversion.inverted(np.zeros(3000)) == 0.5).all()


def test_the_verdict_is_of_the_first_figure() -> None:
    assert [verdict(dB, 11.0) for dB in (20.0, 19.9, 13.1, 13.0, 5.0)] == ["red", "amber", "amber", "green", "green"]


@pytest.mark.slow
def test_every_setting_has_a_cell_with_both_pictures() -> None:
    cells = {cell.setting: cell for cell in inversion.cells("quick")}
    assert list(cells) == [each.name for each in SETTINGS]
    assert {name for name, cell in cells.items() if cell.verdict != "green"} == {"plain"}
    assert all(len(cell.pictures) == 2 and cell.why for cell in cells.values())
    assert cells["plain"].remedy and cells["plain"].figures[0].value >= 60
