"""What a run releases without accounting for it, or assumes without checking it, and what that does to its status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, get_args

from msgspec import Struct

from securefl.plan import Plan
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.protection import KINDS

Kind = Literal[
    "no-dp",
    "simulation",
    "exact-metrics",
    "preprocessing",
    "tuning",
    "sample-counts",
    "public-test",
    "reported-accuracy",
    "unmasked",
    "single-process",
    "timing",
    "floating-point",
    "other",
]

Weight = Literal["voids", "uncovered", "assumed"]
"""Of a hazard. "voids": the run is not called private. "uncovered": something was released that no epsilon of the
report covers; the epsilons hold for what they name. "assumed": nothing more was released, if the assumption holds."""

Source = Literal["the plan", "the job file", "the engine's settings", "the server's summary"]

EFFECTS: Final[dict[Kind, tuple[Weight, str]]] = {
    "no-dp": ("voids", "No epsilon is claimed: the status is 'not private'."),
    "simulation": (
        "voids",
        "Whoever knows the seed can take the noise off: the status is 'simulation', and every epsilon is hypothetical.",
    ),
    "exact-metrics": (
        "voids",
        "The records that were measured have no guarantee: the status is 'not private', whatever the epsilons say of "
        "the records that were trained on.",
    ),
    "preprocessing": (
        "uncovered",
        "The epsilons do not cover what these constants tell about the records that they came from; the status stands.",
    ),
    "tuning": (
        "uncovered",
        "The epsilons do not cover what the choice tells about the records that it was made on; the status stands.",
    ),
    "sample-counts": (
        "uncovered",
        "The epsilons hold with these counts public, and do not hide how many records a client has; the status stands.",
    ),
    "public-test": (
        "uncovered",
        "The records of the test set have no guarantee, since they were declared public; the status stands.",
    ),
    "reported-accuracy": (
        "assumed",
        "It is computed from the model alone, so that the model's epsilon covers it; the status stands.",
    ),
    "unmasked": (
        "assumed",
        "Privacy rests on each client's own noise alone, as the epsilon towards that party says; the status stands.",
    ),
    "single-process": (
        "assumed",
        "Who sees what is said of the deployment that was simulated: here one owner saw all of it. The epsilons hold "
        "for whatever leaves its machines; the status stands.",
    ),
    "timing": (
        "uncovered",
        "The epsilons do not cover what a client's time tells of how many records it has; the status stands.",
    ),
    "floating-point": (
        "assumed",
        "A server that chooses parameters which blow rounding up could see more than the epsilons say, where kernels "
        "round a row by the others; batches are padded against it, without proof. The status stands.",
    ),
    "other": ("uncovered", "The epsilons do not cover it; the status stands."),
}


class Hazard(Struct, frozen=True, forbid_unknown_fields=True):
    """One hazard: ``text`` says what it is in this run, ``effect`` what it does to the claims and the status."""

    kind: Kind
    text: str
    weight: Weight
    effect: str

    def __str__(self) -> str:
        return self.text


class Listed(Hazard, frozen=True, forbid_unknown_fields=True):
    """A hazard in a report. ``source``: what it is known from. The plan is what all clients signed; the job file is the
    server's copy, which has to agree with the plan; of its engine's settings and its summary nobody else vouches.
    """

    source: Source


def hazard(kind: Kind, text: str) -> Hazard:
    """A hazard of a known kind, with the weight and effect that all of its kind have."""
    return Hazard(kind, text, *EFFECTS[kind])


def of(found: Hazard | str) -> Hazard:
    """What a run listed, as a hazard; plain text is of the kind "other". Weight and effect are those of the kind."""
    return hazard(found.kind, found.text) if isinstance(found, Hazard) else hazard("other", found)


def of_plan(plan: Plan, tested: bool) -> Iterator[Hazard]:
    """The hazards that follow from the plan alone; ``tested``: whether there is a public test set."""
    kind, terms = KINDS[plan.protection], plan.privacy
    if isinstance(plan.mechanism, SGD) and terms.client_level is None:
        yield hazard("no-dp", "no differential privacy: nothing bounds what the model reveals about one record")
    if isinstance(plan.mechanism, DPSGD):
        alone = "a record's gradient is taken to depend on that record alone, although float32 rounds by batch size"
        yield hazard("floating-point", alone)
    if terms.simulated:
        yield hazard("simulation", "the plan allows noise and samples from a seed")
    if terms.held_out is not None and terms.held_out.noise_multiplier is None:
        yield hazard("exact-metrics", "accuracy and loss on the clients' own held-out records, exact, in every round")
    if tested:
        yield hazard("public-test", "the records of the test set were declared public; accuracies on them are exact")
    if kind.sealed and tested:
        yield hazard("reported-accuracy", "clients tell the server the accuracy of a model that it cannot read")
    if not kind.masked:
        yield hazard("unmasked", kind.visibility)


def merged(
    plan: Iterable[Hazard], job: Iterable[Hazard], engine: Iterable[Hazard], summary: Iterable[Hazard]
) -> tuple[Listed, ...]:
    """What the plan implies, in its own words; what job file and engine imply besides; what else the server listed. The
    gravest first.
    """
    implied, declared, run_on = tuple(plan), tuple(job), tuple(engine)
    named = {one.kind for one in implied}
    besides = (of(one) for one in summary)
    told = (one for one in besides if one.kind not in named and one not in (*declared, *run_on))
    every = (
        *(_listed(one, "the job file") for one in declared if one.kind not in named),
        *(_listed(one, "the engine's settings") for one in run_on),
        *(_listed(one, "the server's summary") for one in told),
        *(_listed(one, "the plan") for one in implied),
    )
    return tuple(sorted(every, key=lambda one: get_args(Weight).index(one.weight)))


def _listed(one: Hazard, source: Source) -> Listed:
    return Listed(one.kind, one.text, one.weight, one.effect, source)
