"""Who can see what under each protection, as a table of sentences. No figure of a run changes it.

Source: the threat model in docs/threat-model.md. "Server" is one that follows the protocol and reads all it gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from securefl.plan import Protection


@dataclass(frozen=True)
class Sight:
    """What one party can read of one client's update, of the sum of all updates, and of the model."""

    update: str
    total: str
    model: str


@dataclass(frozen=True)
class Parties:
    """The three who take part. Whoever holds the final model sees the model, under every protection."""

    server: Sight
    client: Sight
    collusion: Sight


READS: Final = "reads it"
NOTHING: Final = "nothing"
_PEER: Final = Sight("only its own", "as the step from one model to the next", READS)

PARTIES: Final[Mapping[Protection, Parties]] = {
    "plain": Parties(
        server=Sight("reads each one", READS, READS),
        client=_PEER,
        collusion=Sight("reads each one", READS, READS),
    ),
    "secagg": Parties(
        server=Sight(NOTHING, READS, READS),
        client=_PEER,
        collusion=Sight("the sum of all others, no single one", READS, READS),
    ),
    "ckks-unmasked": Parties(
        server=Sight(NOTHING, NOTHING, "its accuracy, as clients report it"),
        client=Sight("only its own", READS, READS),
        collusion=Sight("reads each one: the client's key opens them all", READS, READS),
    ),
    "ckks": Parties(
        server=Sight(NOTHING, NOTHING, "its accuracy, as clients report it"),
        client=Sight("only its own", READS, READS),
        collusion=Sight("the sum of all others, no single one", READS, READS),
    ),
}
