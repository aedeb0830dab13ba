"""What a data owner allows, as a value, and the checks of a plan against it. Nothing here trusts a server.

Every refusal says what was announced, what the owner allows and what to do. It stays with the owner: the server hears
the one word "policy".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, get_args

from msgspec import Struct

from protocols.errors import ConfigurationError
from securefl import protection, releases
from securefl.contribution import Material
from securefl.errors import BadInput, Refused
from securefl.plan import Plan, Protection
from securefl.privacy.mechanism import Budget

_MOST_ROUNDS: Final = 1_000_000  # nobody trains longer
_LONGEST_NAME: Final = 200  # characters of a job's name, as in job files
_LONGEST_VALUE: Final = 80  # a server's text in the owner's log, cut off


SameCohort = Literal["never", "round", "plan"]
"""Within what all sums that an owner helps to open are over the same clients: nothing; one round, and one model
whatever the round; the whole plan."""


class Policy(Struct, frozen=True, kw_only=True):
    """What a data owner takes part in; the defaults allow every plan that is sound in itself.

    ``minimum``: fewest clients whose sum may be formed, at least 3. ``colluders`` (n_C): clients that the plan must
    withstand, should they work with the server. ``members``: fewest clients on the roster. ``protections``: accepted
    kinds. ``architectures``: accepted hashes (:func:`securefl.vector.architecture`); None: any that the owner's
    installed model factory has. ``share``: the most that this owner's update may weigh in the smallest sum that is
    possible, less the colluders' part; 1.0: whatever the plan says. ``private_only``: no job without differential
    privacy (an owner with a budget takes part in private jobs only, whatever is said here). ``exact_metrics``: sums
    over held-out records may go out without noise, which no epsilon covers. ``same_cohort``: two sums over one model
    that differ by a client give its update away (:mod:`securefl.sums`). Each rule has its price: who helped to open a
    sum that came to nothing, because others left just then or one had dealt bad shares, helps with the very same
    clients only, so that with "round" one bad dealer can end a run, and with "plan" whoever leaves.

    Raises ``BadInput`` for a policy that no plan could meet, or that allows sums which hide nobody.
    """

    minimum: int = 3
    colluders: int = 0
    members: int = 3
    protections: tuple[Protection, ...] = get_args(Protection)
    architectures: tuple[str, ...] | None = None
    share: float = 1.0
    private_only: bool = False
    exact_metrics: bool = False
    same_cohort: SameCohort = "never"

    def __post_init__(self) -> None:
        if self.minimum < 3 or self.members < 3 or self.colluders < 0:
            raise BadInput("a policy's minimum and members are at least 3, its colluders at least 0")
        unknown = sorted(set(self.protections) - set(get_args(Protection)))
        if unknown or not self.protections or self.architectures == ():
            raise BadInput(f"a policy accepts at least one known protection and architecture; unknown: {unknown}")
        if self.colluders and not any(protection.KINDS[kind].masked for kind in self.protections):
            raise BadInput("of the protections that this policy accepts, none withstands a colluding client")
        if self.same_cohort not in get_args(SameCohort):
            raise BadInput(f"same_cohort {_short(self.same_cohort)!r}: it is one of {', '.join(get_args(SameCohort))}")
        if not 0 < self.share <= 1:
            raise BadInput(f"a share of {self.share}: it is above 0 and at most 1")

    def check(self, plan: Plan, owner: str, budget: Budget | None) -> None:
        """Raises ``Refused`` for a plan that is unsound, or that this policy or the owner's budget does not allow."""
        _check_sound(plan)
        _check_privacy(plan, budget, self)
        for limit, holds, announced, allowed in self._limits(plan, owner):
            if not holds:
                raise Refused(
                    f"the plan has {_short(announced)}, this owner allows {allowed}: "
                    f"ask whoever runs the server for such a plan, or change {limit!r} in this client's policy"
                )

    def _limits(self, plan: Plan, owner: str) -> Iterator[tuple[str, bool, str, str]]:
        """Of each limit: its name, whether the plan keeps it, what the plan has and what is allowed."""
        kinds, members = self.protections, len(plan.clients)
        yield "protections", plan.protection in kinds, f"protection {plan.protection!r}", " or ".join(map(repr, kinds))
        yield "minimum", plan.minimum >= self.minimum, f"minimum {plan.minimum}", f"{self.minimum} or more"
        yield "colluders", plan.colluders >= self.colluders, f"colluders {plan.colluders}", f"{self.colluders} or more"
        yield "members", members >= self.members, f"{members} clients on its roster", f"{self.members} or more"
        share = largest_share(plan, owner)
        yield "share", share <= self.share, f"this owner's update as {share:.0%} of a sum", f"at most {self.share:.0%}"
        opened = self.same_cohort == "never" or protection.KINDS[plan.protection].masked
        yield "same_cohort", opened, f"protection {plan.protection!r}, without masks", "sums that clients help to open"
        accepted = self.architectures
        if accepted is not None:
            found = plan.architecture in accepted
            yield "architectures", found, f"architecture {plan.architecture!r}", f"{len(accepted)} others"


def largest_share(plan: Plan, owner: str) -> float:
    """What part of a sum the owner's update can be, by weight, once the server took out what it knows.

    The smallest sum has ``plan.minimum`` contributors; ``plan.colluders`` of them are known to the server, and of the
    other owners it may have left the lightest.
    """
    own, *others = _weights(plan, owner)
    honest = max(0, plan.minimum - 1 - plan.colluders)
    return own / (own + sum(sorted(others)[:honest]))


def check_roster(plan: Plan, roster: Mapping[str, bytes], owner: str, key: bytes) -> None:
    """Raises ``Refused`` unless the plan is for exactly this roster, which has the owner under its own key."""
    if list(plan.clients) != sorted(roster) or roster.get(owner) != key:
        raise Refused(
            "the plan names other clients than the roster, or the roster has not this client's key: "
            "get both anew from whoever runs the server"
        )


def check_model(plan: Plan, material: Material) -> None:
    """Raises ``Refused`` unless the plan's model is the one that the owner installed; what cannot train it says so."""
    from securefl import training, vector

    module = vector.build(material.model, plan.model_seed)
    training.check(module)
    training.check_labels(module, material.data)
    training.check_apart(module, material.data)
    if plan.privacy.held_out is not None or plan.privacy.survey is not None:
        if material.held_out is None:
            raise Refused("the plan measures on held-out records and this client has none: give it some")
        training.check_labels(module, material.held_out)
    asked = plan.privacy.survey
    if asked is not None and asked.scores is not None and not training.tells_two(module, material.data):
        raise Refused("the survey's scores are of one class against another: ask for none with this model and labels")
    installed = vector.architecture(module), len(vector.flatten(module))
    if (plan.architecture, plan.dimension) != installed:
        raise Refused(
            f"the plan's model ({_short(plan.architecture)}, {plan.dimension} parameters) is not the architecture that "
            f"this owner installed ({installed[0]}, {installed[1]} parameters): install the same model, or ask for it"
        )


def check_round(accepted: Plan, number: int) -> None:
    """Raises ``Refused`` for a round that the plan does not have."""
    if not 1 <= number <= accepted.last:
        raise Refused(f"round {number} of a plan of {accepted.last} rounds: accept a new run if it is to go on")


def check_announced(announced: Plan, accepted: Plan) -> None:
    """Raises ``Refused`` if the server announces anything but the plan that the owner pinned."""
    for name in accepted.__struct_fields__:
        now, pinned = getattr(announced, name), getattr(accepted, name)
        if now != pinned:
            raise Refused(
                f"the announced plan is not the one that this owner accepted: {name} is {_short(repr(now))}, accepted "
                f"was {_short(repr(pinned))}. Ask whoever runs the server why; pin the new plan if it is wanted"
            )


def _check_sound(plan: Plan) -> None:
    """What no owner can want: an unsafe cohort, a sum that could wrap, weights that are none."""
    if not 1 <= plan.rounds <= _MOST_ROUNDS:
        raise Refused(f"the plan is unsafe: {plan.rounds} rounds, of 1 to {_MOST_ROUNDS}. Ask for a corrected one")
    if len(plan.job) > _LONGEST_NAME or not plan.job.isprintable():
        raise Refused(
            f"the plan calls its job {_short(ascii(plan.job))}, which no person could be shown: it is at most "
            f"{_LONGEST_NAME} printable characters. Ask for a corrected plan"
        )
    if plan.cohort.groups > 1 and protection.protection_of(plan).sealed:
        raise Refused("the plan has several sums a round, and a CKKS key decrypts one: ask for one without groups")
    if len(plan.weights) != len(plan.clients) or not all(0 < weight <= 1 for weight in plan.weights):
        raise Refused("the plan's weights are not one number in (0, 1] for each client: ask for a corrected plan")
    try:
        protection.rules(plan).threshold_for(plan.expected)
        protection.parameters(plan)
        if plan.key_rounds != protection.protection_of(plan).key_rounds_of(len(plan.clients)):
            raise BadInput(f"a CKKS key that decrypts {plan.key_rounds} sums")
    except (ConfigurationError, BadInput) as error:
        raise Refused(f"the plan is unsafe: {error}. Ask whoever runs the server for one that is not") from error
    _check_client_level(plan)


def _check_client_level(plan: Plan) -> None:
    """What the guarantee of client-level noise rests on."""
    terms = plan.privacy
    if (terms.unit == "client") != (terms.client_level is not None):
        raise Refused("the plan means to hide clients and has no client-level noise, or the reverse: ask for another")
    if terms.client_level is None:
        return
    if any(weight != 1 for weight in plan.weights):
        raise Refused(
            "the plan weighs clients differently, which client-level noise does not cover: ask for weights of 1"
        )
    if terms.survey is not None and terms.survey.scores is not None:
        raise Refused("scores of a survey hide records, not clients: ask for a client-level plan without them")
    if terms.held_out is not None:
        raise Refused("held-out metrics hide records, not clients: ask for a client-level plan without them")


def _check_privacy(plan: Plan, budget: Budget | None, policy: Policy) -> None:
    private, held_out = releases.private(plan), plan.privacy.held_out
    if held_out is not None and held_out.noise_multiplier is None and not policy.exact_metrics:
        raise Refused(
            "the plan releases exact metrics of held-out records, which no epsilon covers: "
            "ask for noised ones, or set exact_metrics in this client's policy"
        )
    if not private and budget is not None:
        raise Refused(
            "the plan has no differential privacy; this owner set a privacy budget, so it takes part in differentially "
            "private jobs only: ask for one, or give the client no budget"
        )
    if not private and policy.private_only:
        raise Refused(
            "the plan has no differential privacy, and this owner's policy is private_only: ask for a private job"
        )
    if private and budget is None:
        raise Refused("this owner set no privacy budget: give the client one, or run the job without privacy")


def _weights(plan: Plan, owner: str) -> tuple[float, ...]:
    """The owner's weight, then those of the others."""
    weights = dict(zip(plan.clients, plan.weights, strict=True))
    return weights.pop(owner), *weights.values()


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
