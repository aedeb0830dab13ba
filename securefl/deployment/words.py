"""A plan in words, for the person who has to say yes or no to it."""

from __future__ import annotations

from typing import Final

from securefl.deployment.approvals import COORDINATOR, Waiting
from securefl.protection import KINDS
from securefl.releases import releases

_IN_TURN: Final = "without a server: the clients act as it in turn, each with the part of one"


def described(waiting: Waiting) -> dict[str, str]:
    """Labels and texts."""
    plan = waiting.plan
    weights = "all alike" if len(set(plan.weights)) == 1 else ", ".join(f"{weight:g}" for weight in plan.weights)
    return {
        "plan": waiting.name,
        "proposed by": waiting.by,
        "run": "with a server, the coordinator's" if waiting.by == COORDINATOR else _IN_TURN,
        "job": plan.job,
        "clients": f"{', '.join(plan.clients)}; weights {weights}",
        "rounds": f"{plan.rounds}, of {plan.mechanism.steps} steps each, at rate {plan.mechanism.sampling_rate:g}",
        "who sees": KINDS[plan.protection].visibility,
        "sums": f"of at least {plan.minimum} clients, withstanding {plan.colluders} that work with the server",
        "model": f"{plan.dimension} parameters, architecture {plan.architecture}",
        "releases": "; ".join(map(str, releases(plan))) or "no differential privacy: nothing bounds what is revealed",
        "simulated": "yes: noise may come from seeds, which protects nobody" if plan.privacy.simulated else "no",
    }
