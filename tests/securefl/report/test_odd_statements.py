"""Whatever one client signs, the others have their report, and it is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from securefl import report
from securefl.privacy.mechanism import DPSGD, Budget, Release, Skellam
from securefl.report import page
from securefl.report.document import Report
from securefl.report.statement import Head, Statement
from tests.securefl.report.runs import Scene


def assembled(scene: Scene, folder: Path) -> Report:
    return report.assembled(scene.write(folder / "run"))


# What one client may state of its charges, and sign.
ODD: dict[str, tuple[Release, ...]] = {
    "no noise": (DPSGD(1e-300, 0.5, 3),),
    "endless": (DPSGD(4.0, 0.5, 10**9), DPSGD(4.0, 1e-9, 10**9)),
    "of all kinds": tuple(DPSGD(1 + n / 1000, 0.123, 7) for n in range(300)),
    "of client level": (Skellam("update", 1e-300, 1e-300, 2**53 - 1, 2**53 - 1),),
    "nothing": (),
}


@pytest.mark.parametrize("name", ODD)
def test_one_clients_odd_charges_are_named_and_leave_the_others_their_report(tmp_path: Path, name: str) -> None:
    def odd(statement: Statement) -> Statement:
        charges = tuple(replace(charge, releases=ODD[name]) for charge in statement.charges)
        return replace(statement, charges=charges) if statement.client == "hospital-2" else statement

    made = assembled(Scene(change=odd), tmp_path)
    assert made.status.reasons == ("hospital-2 charged something else than the plan releases",)
    owners = {owner.client: {claim.epsilon for claim in owner.claims} for owner in made.owners}
    assert owners.pop("hospital-2") == {"none"}
    assert all(isinstance(epsilon, float) for found in owners.values() for epsilon in found)
    assert {claim.why for claim in made.federation} == {"No epsilon is claimed for hospital-2."}
    assert "hospital-2 charged something else" in page.html(made)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: replace(said, budget=Budget(5e-324, 1e-12), epsilon_after=1.7e308),
        lambda said: replace(said, budget=Budget(2.0**62, 0.999999), epsilon_before=1.7e308),
        lambda said: replace(said, before=Head(2**53 - 1, "none"), after=Head(0, "none"), refused=2**53 - 1),
        lambda said: replace(said, unit="client", charges=said.charges * 500),
    ],
)
def test_whatever_one_client_states_there_is_a_report_and_a_page(
    tmp_path: Path, change: Callable[[Statement], Statement]
) -> None:
    made = assembled(Scene(change=lambda said: change(said) if said.client == "hospital-2" else said), tmp_path)
    assert made.status.word == "violated"
    assert all("hospital-2" in reason for reason in made.status.reasons)
    assert "<strong>violated</strong>" in page.html(made)
