"""A fault to be made on purpose where the clients act in turn: whoever acts dies, and the next one goes on."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct

Place = Literal[
    "turn", "keys", "shares", "masked-input", "consistency", "unmask", "sum", "apply", "vote", "lock", "take"
]
"""The exchanges of a round in order; those of the protocol, "keys" to "apply", as the transcript calls them."""

PLACES: Final[tuple[Place, ...]] = get_args(Place)


class Death(Struct, frozen=True, forbid_unknown_fields=True):
    """The peer that acts dies in ``round``, at ``place``, when ``sent`` messages of that exchange are on their way.

    It is back, with what it has on disk, once the round is settled.
    """

    place: Place
    round: Annotated[int, Meta(ge=1)]
    sent: Annotated[int, Meta(ge=0)] = 0
