"""Falsifications of a finished run with the keys of all clients: they sign whatever the server puts together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from benchmarks import forgery
from benchmarks.forgery import first
from protocols.primitives import Identity
from securefl import report as reports
from securefl.report.statement import sign

STRANGER: Final = Identity(bytes(range(32)))
LITTLE: Final = 0.01
LAST: Final = "DELETE FROM entry WHERE sequence = (SELECT MAX(sequence) FROM entry)"


def impersonate(folder: Path) -> None:
    """A stranger signs the first client's statement."""
    forgery.statements(folder, lambda found: [sign(found[0].statement, STRANGER), *found[1:]])


def together_a_charge_is_forgotten(folder: Path) -> None:
    """By one client, in ledger and statement; the heads that its peers saw were all before it."""
    said = first(folder)
    forgery.edit_ledger(folder, said.client, LAST)
    forgery.sign_again(folder, forgery.restated(folder, said, said.charges[:-1]))


def together_charges_have_more_noise(folder: Path) -> None:
    """One client's, in a new ledger and its statement."""
    said = first(folder)
    charges = [replace(one, releases=forgery.noisier(one.releases)) for one in said.charges]
    forgery.new_ledger(folder, said, charges)
    forgery.sign_again(folder, forgery.restated(folder, said, charges))


def together_the_past_is_forgotten(folder: Path) -> None:
    """By one client: a new ledger has all charges of this run, and would have none of earlier ones."""
    said = first(folder)
    forgery.new_ledger(folder, said, said.charges)
    forgery.sign_again(folder, forgery.restated(folder, said, said.charges))


def together_the_past_is_forgotten_and_the_ledger_lost(folder: Path) -> None:
    """The same, and the new ledger is not there to be checked."""
    together_the_past_is_forgotten(folder)
    forgery.ledger_path(folder, first(folder).client).unlink()


def together_heads_are_left_out(folder: Path) -> None:
    """One client does not say where its ledger stood, and states an epsilon that does not follow from it."""
    said = replace(first(folder), before="unknown", after="unknown", epsilon_after=LITTLE)
    forgery.sign_again(folder, said)


def together_epsilon_is_understated(folder: Path) -> None:
    """By one client, of all that was ever charged."""
    forgery.sign_again(folder, replace(first(folder), epsilon_after=LITTLE))


def together_epsilon_is_infinite(folder: Path) -> None:
    """One client states that it bounds nothing, so that there is no figure to be compared with its budget."""
    forgery.sign_again(folder, replace(first(folder), epsilon_after="infinite"))


def together_a_client_is_left_out(folder: Path) -> None:
    """All others have a stranger sign in its name."""
    client = first(folder).client
    impersonate(folder)
    forgery.assemble_again(folder, reports.read(folder).run.clients, {client: STRANGER})


TOGETHER: Final[tuple[Callable[[Path], None], ...]] = (
    together_a_charge_is_forgotten,
    together_charges_have_more_noise,
    together_the_past_is_forgotten,
    together_the_past_is_forgotten_and_the_ledger_lost,
    together_heads_are_left_out,
    together_epsilon_is_understated,
    together_epsilon_is_infinite,
    together_a_client_is_left_out,
)
