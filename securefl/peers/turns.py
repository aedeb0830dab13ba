"""Whose turn it is to act as the server: a pure function of the round, and of how many before have had theirs in it."""

from __future__ import annotations

from collections.abc import Sequence

from securefl.account import ATTEMPTS


def acting(clients: Sequence[str], round: int, turn: int) -> str:
    """Who acts in a round (from 1) at a turn (from 0): sorted names, rotated by the round; the next is next."""
    names = sorted(clients)
    return names[(round - 1 + turn) % len(names)]


def attempts_before(turn: int) -> int:
    """The attempts of a round that belong to earlier turns: each turn has ``ATTEMPTS``, whether it needs them or not.

    So an attempt's number says whose it is, and nobody can use up those of others.
    """
    return turn * ATTEMPTS


def turn_of(attempt: int) -> int:
    """The turn that an attempt (from 1) belongs to."""
    return (attempt - 1) // ATTEMPTS
