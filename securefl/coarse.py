"""Durations in few classes: how long a client trains hints at how many records it has."""

from __future__ import annotations

from typing import Final, Literal, get_args

Duration = Literal["under 1 s", "under 10 s", "under 1 min", "under 10 min", "under 1 h", "longer"]
_ENDS: Final = (1.0, 10.0, 60.0, 600.0, 3600.0)


def coarse(seconds: float) -> Duration:
    """The class of a duration; each is some ten times the one before."""
    names: tuple[Duration, ...] = get_args(Duration)
    return names[sum(seconds >= end for end in _ENDS)]
