"""How near a guess is to a picture, on pictures for which that is known."""

from __future__ import annotations

import numpy as np
import pytest

from securefl.attacks.pictures import (
    NAMED,
    all_digits,
    identified,
    mean_picture,
    nearest,
    pair,
    pixels,
    private_digits,
    psnr,
    public_digits,
    shown,
    ssim,
)

ORIGINALS = pixels(private_digits())[:5]


def test_an_error_of_a_tenth_everywhere_is_twenty_decibels() -> None:
    assert psnr(ORIGINALS[0], ORIGINALS[0] + 0.1) == pytest.approx(20)
    assert psnr(ORIGINALS, ORIGINALS) == pytest.approx(np.full(5, 200))


def test_a_picture_is_wholly_similar_to_itself_and_not_to_its_negative() -> None:
    assert ssim(ORIGINALS[0], ORIGINALS[0]) == pytest.approx(1)
    assert ssim(ORIGINALS[0], 1 - ORIGINALS[0]) < 0


def test_a_copy_identifies_its_original_whatever_the_order_of_the_guesses() -> None:
    assert identified(ORIGINALS, ORIGINALS[::-1]).all()
    assert (nearest(ORIGINALS, ORIGINALS[::-1]) == ORIGINALS).all()


def test_the_mean_picture_identifies_nobody() -> None:
    everybody = pixels(private_digits())
    assert not identified(everybody, mean_picture()).any()
    assert psnr(everybody, mean_picture()).mean() < NAMED - 5


def test_public_pictures_that_come_near_identify_nobody() -> None:
    everybody, public = pixels(private_digits()), pixels(public_digits())
    assert (psnr(everybody, nearest(everybody, public)) >= NAMED).mean() > 0.2
    assert not identified(everybody, public).any()


def test_a_guess_that_is_nearest_but_no_copy_identifies_nobody() -> None:
    faint = ORIGINALS * 0.5  # nearer to its original than to most, and far from it
    assert not identified(ORIGINALS, faint)[psnr(ORIGINALS, faint) < NAMED].any()
    assert (psnr(ORIGINALS, faint) < NAMED).any()


def test_what_is_shown_are_pixels_whatever_was_guessed() -> None:
    assert shown(np.array([np.nan, np.inf, -np.inf, 0.25])).tolist() == [0.5, 1.0, 0.0, 0.25]


def test_clients_and_public_share_no_row() -> None:
    assert len(private_digits()) + len(public_digits()) == len(all_digits()) == 1797
    private = {row.tobytes() for row in private_digits().features}
    assert sum(row.tobytes() in private for row in public_digits().features) == 0


def test_a_pair_shows_the_original_first() -> None:
    original, guess = pair(ORIGINALS[0], ORIGINALS[1])
    assert (original.caption, guess.caption) == ("original", "reconstructed")
    assert np.allclose(original.rows, ORIGINALS[0].reshape(8, 8), atol=1e-3)
