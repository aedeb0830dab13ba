"""What a client states of its ledger, against itself and against the heads that its peers saw; without the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from securefl.errors import LedgerError
from securefl.privacy.ledger import Witness
from securefl.report.statement import Head, Statement


def contradictions(statements: Sequence[Statement]) -> Iterator[str]:
    """A line for each ledger of which somebody states what cannot be, or that leaves out what the others say it has."""
    for said in statements:
        yield from _incomplete(said)
        yield from _unlike(said, statements)


def witnessed(statements: Sequence[Statement], client: str) -> dict[str, Witness | None]:
    """By peer, the last head of a client's ledger that it saw; None where what it states is no head."""
    shown = {one.client: one.witnessed.get(client) for one in statements}
    return {peer: decoded(head) for peer, head in shown.items() if head is not None}


def decoded(head: str) -> Witness | None:
    """The head in these hexadecimal digits, if there is one."""
    try:
        return Witness.decoded(bytes.fromhex(head))
    except (ValueError, LedgerError):
        return None


def _incomplete(said: Statement) -> Iterator[str]:
    """Heads are left out where there is no ledger, never beside charges."""
    heads = isinstance(said.before, Head) and isinstance(said.after, Head) and len(said.ledger) > len("unknown")
    if said.charges and not heads:
        yield f"{said.client} states charges, and not where its ledger stood"


def _unlike(said: Statement, statements: Sequence[Statement]) -> Iterator[str]:
    for peer, seen in witnessed(statements, said.client).items():
        if seen is None:
            yield f"{peer} states what is no head of the ledger of {said.client}"
        elif seen.ledger.hex() != said.ledger:
            yield f"{said.client} states another ledger than {peer} saw"
        elif any(_other(head, seen) for head in (said.before, said.after)):
            yield f"{said.client} states another charge {seen.head.sequence} than {peer} saw"


def _other(head: Head | str, seen: Witness) -> bool:
    same = isinstance(head, Head) and head.sequence == seen.head.sequence
    return same and isinstance(head, Head) and head.digest != seen.head.digest.hex()
