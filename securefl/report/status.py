"""The one word for a run, by the first rung that applies: violated, unfinished, not private, simulation, private."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from securefl.plan import Plan
from securefl.report.document import Claim, Owner, Status, Word
from securefl.report.facts import Facts
from securefl.report.hazards import Hazard

_SHOWN = {
    "server": "the server",
    "peer": "another client",
    "colluders": "colluding clients",
    "holder": "a model's holder",
}


def of(facts: Facts, owners: Sequence[Owner], hazards: Sequence[Hazard], violations: Sequence[str]) -> Status:
    """The status. "private" means: every client's claim towards every audience of the plan's threat model is accounted
    for, none is infinite, no hazard voids it and nothing contradicts it. ``violations``: what did.
    """
    rungs: tuple[tuple[Word, Iterator[str]], ...] = (
        ("violated", iter(violations)),
        ("unfinished", _missing(facts)),
        ("not private", _unprotected(facts.plan, owners, hazards)),
        ("simulation", _simulated(owners, hazards)),
    )
    for word, reasons in rungs:
        if listed := tuple(reasons):
            return Status(word, listed)
    return Status("private", tuple(_accounted(owners, hazards)))


def _missing(facts: Facts) -> Iterator[str]:
    if facts.summary is None:
        done = min(len(facts.history), facts.job.rounds)  # a survey comes after them
        yield f"{done} of {facts.job.rounds} rounds are complete, and there is no final evaluation yet."
    stated = {signed.statement.client for signed in facts.statements}
    if facts.summary is not None and (silent := [name for name in facts.plan.clients if name not in stated]):
        yield f"No signed statement of {', '.join(silent)}: what they charged is not known."


def _unprotected(plan: Plan, owners: Sequence[Owner], hazards: Sequence[Hazard]) -> Iterator[str]:
    voiding = [one for one in hazards if one.weight == "voids" and one.kind != "simulation"]
    yield from (f"{one.text[0].upper()}{one.text[1:]}." for one in voiding)
    for owner in owners if not any(one.kind == "no-dp" for one in voiding) else ():
        if open_to := [
            _SHOWN[claim.audience] for claim in owner.claims if _promised(claim, plan) and not _bounded(claim)
        ]:
            yield f"{owner.client}: no epsilon towards {', '.join(open_to)}."


def _promised(claim: Claim, plan: Plan) -> bool:
    """Nothing is promised about colluders that the plan does not name; a claim that happens to hold is shown anyway."""
    return claim.audience != "colluders" or plan.colluders > 0


def _bounded(claim: Claim) -> bool:
    return isinstance(claim.epsilon, float)


def _simulated(owners: Sequence[Owner], hazards: Sequence[Hazard]) -> Iterator[str]:
    if seeded := [owner.client for owner in owners if owner.simulated is True]:
        yield f"Noise or samples came from a seed at {', '.join(seeded)}: whoever knows it can take the noise off."
    elif any(one.kind == "simulation" for one in hazards):
        yield "The plan is a simulation: noise and samples may have come from a seed."


def _accounted(owners: Sequence[Owner], hazards: Sequence[Hazard]) -> Iterator[str]:
    yield f"The releases of all {len(owners)} clients are accounted for, towards everyone in the threat model."
    if besides := sum(one.weight == "uncovered" for one in hazards):
        few = "1 hazard is" if besides == 1 else f"{besides} hazards are"
        yield f"{few} listed that no epsilon covers."
