"""What each audience can learn about one unit of privacy from a run: an epsilon, and why it holds or why there is none.

Record-level noise is a client's own: nobody else knows any of it, so that one epsilon holds towards everyone. Of the
client-level (Skellam) noise on a sum, an audience knows what its own clients added; the rest bounds what it learns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, get_args

from msgspec.structs import replace

from securefl.errors import BadInput
from securefl.plan import Plan
from securefl.privacy import accountant
from securefl.privacy.mechanism import NEIGHBOURS, Budget, Release, Skellam, Unit
from securefl.protection import KINDS
from securefl.releases import releases as released
from securefl.report import arithmetic
from securefl.report.arithmetic import Unanswered
from securefl.report.document import Audience, Claim
from securefl.report.statement import Absent, Epsilon, Statement

AUDIENCES: Final[tuple[Audience, ...]] = get_args(Audience)
_WITHOUT: Final = ("none", "unknown")
_CONDITION: Final = "It assumes that the client sampled and noised as its charges say, which nobody else can check."


def of_client(statement: Statement, plan: Plan) -> tuple[Claim, ...]:
    """Towards each audience, what it learns about one unit in this client's data from all that the run was charged.

    Nothing is claimed where that is not what the plan releases. No statement makes this fail.
    Guarantee: as :func:`securefl.privacy.accountant.epsilon`, for the noises that the audience does not know.
    """
    return tuple(_claim(statement, plan, audience) for audience in AUDIENCES)


def of_federation(statements: Sequence[Statement], plan: Plan) -> tuple[Claim, ...]:
    """Towards each audience, what it learns about one unit wherever in the federation its data is.

    The largest of the clients' epsilons where no unit has data at two clients, as all owners declared or as it cannot
    have (a unit that is a client); else the composition of all releases of all clients, which covers a person in each.
    """
    return tuple(_together(statements, plan, audience) for audience in AUDIENCES) if statements else ()


def unknown_noises(plan: Plan, audience: Audience) -> int:
    """Of how many contributors' client-level noise such an audience knows nothing, in whatever it can read.

    0: nothing is promised. Sums have at least ``plan.minimum`` contributors. Without masks, who sees an update alone
    sees its own noise alone.
    """
    kind = KINDS[plan.protection]
    alone = not kind.masked and (audience == "colluders" or (audience == "server" and not kind.sealed))
    if alone:
        return 1
    if audience == "colluders":
        return plan.minimum - plan.colluders if plan.colluders else 0
    return plan.minimum - (1 if audience == "peer" else 0)


def seen(release: Release, noises: int) -> Release:
    """The release, for who does not know the noise of ``noises`` contributors: all have equal parts of the variance."""
    if not isinstance(release, Skellam):
        return release
    return replace(
        release, noise_multiplier=release.noise_multiplier * math.sqrt(noises / release.honest), honest=noises
    )


def figure(value: float) -> Epsilon:
    """An accountant's figure, where infinity is a word: JSON has none."""
    return "infinite" if math.isinf(value) else value


def as_planned(statement: Statement, plan: Plan) -> bool:
    """Whether each charge is of what a round under the plan releases. Only then is anything computed from it."""
    training, last = released(plan), released(plan, plan.last)
    return all(charge.releases == (last if plan.surveys(charge.round) else training) for charge in statement.charges)


def _claim(statement: Statement, plan: Plan, audience: Audience) -> Claim:
    unit, releases, budget = statement.unit, statement.releases, statement.budget
    if not isinstance(budget, Budget):
        return _none(audience, unit, "No differential privacy: nothing bounds what the updates tell.")
    if not as_planned(statement, plan):
        return _none(audience, unit, "What this client charged is not what the plan releases: nothing is claimed.")
    noises = unknown_noises(plan, audience)
    if noises < 1 and _distributed(releases):
        return _none(audience, unit, _no_promise(plan))
    try:
        known = [seen(one, noises) for one in releases]
    except BadInput as error:
        return _none(audience, unit, f"The charges have no epsilon for this audience: {error}.")
    return _computed(audience, unit, known, budget.delta, _why(releases, noises))


def _computed(audience: Audience, unit: Unit, releases: Sequence[Release], delta: float, why: str) -> Claim:
    found = arithmetic.figures(releases, delta, unit)
    if isinstance(found, Unanswered):
        return _none(audience, unit, f"The charges have no epsilon for this unit: {found.why}.", found.word)
    return Claim(
        audience=audience,
        unit=unit,
        neighbours=NEIGHBOURS[unit],
        epsilon=figure(found.epsilon),
        delta=delta,
        cross_check=figure(found.cross_check),
        accountant=found.accountant,
        why=f"{why} {_CONDITION}",
    )


def _none(audience: Audience, unit: Unit, why: str, word: Absent = "none") -> Claim:
    return Claim(
        audience=audience,
        unit=unit,
        neighbours=NEIGHBOURS[unit],
        epsilon=word,
        delta=word,
        cross_check=word,
        accountant=word,
        why=why,
    )


def _distributed(releases: Sequence[Release]) -> bool:
    return any(isinstance(one, Skellam) for one in releases)


def _no_promise(plan: Plan) -> str:
    if not plan.colluders:
        return "The plan promises nothing about clients that work with the server: its colluders are 0."
    return "No contributor's noise is unknown to so many colluders."


def _why(releases: Sequence[Release], noises: int) -> str:
    if not releases:
        return "Nothing was charged in this run: nothing of this client's data was released."
    own = "The noise is this client's own and nobody else knows it, so that the bound holds whatever else is known."
    if not _distributed(releases):
        return own
    many = f"at least {noises} contributors" if noises > 1 else "one contributor alone"
    shared = f"Whatever this audience reads has the noise of {many}, which it does not know."
    return shared if all(isinstance(one, Skellam) for one in releases) else f"{shared} Of the rest: {own}"


def _together(statements: Sequence[Statement], plan: Plan, audience: Audience) -> Claim:
    every = [_claim(one, plan, audience) for one in statements]
    units = {one.unit for one in statements}
    if len(units) > 1:
        return _none(audience, statements[0].unit, "The clients' data sets hide different units: see each client.")
    unit = statements[0].unit
    if without := [one.client for one, claim in zip(statements, every, strict=True) if claim.epsilon in _WITHOUT]:
        return _none(audience, unit, f"No epsilon is claimed for {', '.join(without)}.")
    if plan.privacy.disjoint or unit == "client":
        return _parallel(every, unit)
    return _composed(statements, plan, audience, max(_deltas(every)))


def _parallel(every: Sequence[Claim], unit: Unit) -> Claim:
    reason = "A unit is one client" if unit == "client" else "The owners declared that nobody's data is at two clients"
    largest = max(every, key=lambda claim: _number(claim.epsilon))
    why = f"{reason}: the federation's epsilon is the largest of the clients', and its delta theirs."
    checks = figure(accountant.parallel(_number(one.cross_check) for one in every))
    return replace(largest, delta=max(_deltas(every)), cross_check=checks, why=why)


def _composed(statements: Sequence[Statement], plan: Plan, audience: Audience, delta: float) -> Claim:
    unit, releases = statements[0].unit, [one for statement in statements for one in statement.releases]
    if _distributed(releases):
        why = "One noise covers all clients' parts of a sum: for a person whose data is at several it is too small."
        return _none(audience, unit, f"{why} Nobody declared that there is no such person.")
    why = "Nobody declared the clients' data disjoint: all releases of all clients are composed, for a person in each."
    return _computed(audience, unit, releases, delta, why)


def _number(value: Epsilon) -> float:
    return value if isinstance(value, float) else math.inf


def _deltas(claims: Sequence[Claim]) -> Iterator[float]:
    return (claim.delta for claim in claims if isinstance(claim.delta, float))
