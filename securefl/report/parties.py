"""Who can see what under each protection, and against whom that holds; no figure of a run changes it.

Source: the threat model in docs/threat-model.md. "Server" in a sight is one that follows the protocol and reads all it
gets; the threat model says what a server that deviates gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from securefl.plan import Plan, Protection
from securefl.protection import KINDS
from securefl.report.document import Sight

READS: Final = "reads it"
NOTHING: Final = "nothing"


@dataclass(frozen=True)
class Views:
    """What one party can read of one client's update, of the sum of all updates, and of the model."""

    update: str
    total: str
    model: str


@dataclass(frozen=True)
class Parties:
    """The three who take part. Whoever holds the final model sees the model, under every protection."""

    server: Views
    client: Views
    collusion: Views


_PEER: Final = Views("only its own", "as the step from one model to the next", READS)
_BUT_THEIRS: Final = "the sum of all others, no single one"

PARTIES: Final[Mapping[Protection, Parties]] = {
    "plain": Parties(
        server=Views("reads each one", READS, READS),
        client=_PEER,
        collusion=Views("reads each one", READS, READS),
    ),
    "secagg": Parties(
        server=Views(NOTHING, READS, READS),
        client=_PEER,
        collusion=Views(_BUT_THEIRS, READS, READS),
    ),
    "ckks-unmasked": Parties(
        server=Views(NOTHING, NOTHING, NOTHING),
        client=Views("only its own", READS, READS),
        collusion=Views("reads each one: the client's key opens them all", READS, READS),
    ),
    "ckks": Parties(
        server=Views(NOTHING, NOTHING, NOTHING),
        client=Views("only its own", READS, READS),
        collusion=Views(_BUT_THEIRS, READS, READS),
    ),
}

_MASKS: Final = (
    "X25519, HKDF-SHA256, AES-128 in counter mode, AES-GCM, Ed25519 and SHA-256 are as hard to break as is believed; "
    "the roster of the clients' keys reached each of them unchanged."
)
_RING: Final = "Ring-LWE of the stated degree and modulus is hard."


def sights(plan: Plan, tested: bool, in_turn: bool = False) -> tuple[Sight, ...]:
    """What each party of a run can read. ``tested``: whether there is a public test set; ``in_turn``: there is no
    server, and whoever acts as one is a client.
    """
    found = PARTIES[plan.protection]
    if in_turn:
        return _without_a_server(plan, found)
    told = ", and the accuracy that clients report" if tested and KINDS[plan.protection].sealed else ""
    asked = plan.privacy.survey is not None and KINDS[plan.protection].sealed
    counted = ", and the survey's noised counts that clients report" if asked else ""
    return (
        _sight("the server", found.server, f"who took part, when, and the size of messages{told}{counted}"),
        _sight("another client", found.client, "who took part, and how many charges each ledger has"),
        _sight(_colluders(plan), found.collusion, "what these clients contributed, and the keys that they hold"),
        _sight("whoever has the final model", Views(NOTHING, NOTHING, READS), "this report"),
    )


def _without_a_server(plan: Plan, found: Parties) -> tuple[Sight, ...]:
    alone = "the client that acts as the server"
    more = plan.colluders - 1
    together = f"it and {'one more client' if more == 1 else f'{more} more clients'}"
    return (
        _sight(alone, found.collusion, "who took part, when, and the size of messages"),
        _sight("another client", found.client, "who took part, and how many charges each ledger has"),
        *((_sight(together, found.collusion, "what these clients contributed"),) if more else ()),
        _sight("whoever has the final model", Views(NOTHING, NOTHING, READS), "this report"),
    )


def threat_model(plan: Plan, in_turn: bool = False) -> str:
    """Against whom the protocol keeps what the sights say, in a sentence or two."""
    if KINDS[plan.protection].masked:
        whom, others = "a server that deviates from the protocol", plan.colluders
        if in_turn:
            whom, others = "a client that deviates as it acts as the server", plan.colluders - 1
        return (
            f"Holds against {whom}, {_working_with_it(others)}. It gets one sum of at "
            f"least {plan.minimum} updates for each key list. With more colluders, nothing is promised."
        )
    if KINDS[plan.protection].sealed:
        return "Holds against the server alone. With the key of any one client it reads every update."
    return "None: the server is trusted with every update. Clients see the model only."


def assumptions(plan: Plan) -> str:
    """What the protocol's secrecy rests on."""
    kind = KINDS[plan.protection]
    needed = [*([_MASKS] if kind.masked else []), *([_RING] if kind.sealed else [])]
    return " ".join(needed) or "Nothing is hidden from the server, and nothing assumed."


def _sight(party: str, views: Views, besides: str) -> Sight:
    return Sight(party, views.update, views.total, views.model, besides)


def _colluders(plan: Plan) -> str:
    return "the server and one client together" if plan.colluders < 2 else f"the server and {plan.colluders} clients"


def _working_with_it(colluders: int) -> str:
    match colluders:
        case 0:
            return "alone: no client works with it"
        case 1:
            return "and one client that works with it"
        case several:
            return f"and {several} clients that work with it"
