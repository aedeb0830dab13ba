"""A run whose clients are at sites: what the coordinator has of them, and how it reaches them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from protocols.base import Exchange
from securefl import proposal
from securefl.deployment.server_folder import ServerFolder
from securefl.engines.correspondence import Correspondence
from securefl.engines.nvflare import certificates, kit
from securefl.engines.nvflare.jobs import Jobs
from securefl.engines.nvflare.line import Line
from securefl.errors import BadInput, Refused
from securefl.parties import Unseen
from securefl.plan import Plan
from securefl.progress import Tell, nobody
from securefl.server import Server
from securefl.settings import Nvflare

if TYPE_CHECKING:
    from securefl.data import Dataset
    from securefl.job import Job
    from securefl.job.federation import Federation

_GREETING: Final = 5.0  # seconds in which a site that is there says so
_ASK_AGAIN: Final = 5.0  # seconds until owners who have not decided are asked again
_LOOK: Final = 1.0  # seconds between looks at who is there


@dataclass(frozen=True)
class Setting:
    """What the job's code gives to the coordinator: the model and the public test set, and nobody's records."""

    federation: Federation
    test: Dataset | None
    engine: Nvflare

    def parties(self, job: Job, folder: Path, begun: bool, tell: Tell = nobody) -> Sites:
        return Sites(job, ServerFolder(Path(self.engine.server)), self.engine, tell)


def load(job: Job, engine: Nvflare) -> Setting:
    """Raises ``BadInput`` where the job names clients that are not on the roster, ``MissingExtra`` without nvflare."""
    certificates.require()
    known = ServerFolder(Path(engine.server)).roster().members
    if unknown := [name for name in job.clients if name not in known]:
        raise BadInput(
            f"the job names {unknown[0]!r}, who is not on the roster of {engine.server}: admit that site, or correct "
            "data.clients"
        )
    federation = job.federation()
    return Setting(federation, federation.test() if federation.test else None, engine)


class Sites(Unseen):
    """Clients at sites, over NVIDIA FLARE. ``tell`` hears how the line fares, for whoever watches."""

    def __init__(self, job: Job, folder: ServerFolder, engine: Nvflare, tell: Tell = nobody) -> None:
        roster = folder.roster().pinned()
        self.roster: Mapping[str, bytes] = {name: roster.public_key(name) for name in job.clients}
        self._engine, self._tell = engine, tell
        admin = kit.admin(folder.admin)
        self._line = Line(folder.kit, Jobs(Path(admin.location), admin.username), job.clients, tell)
        self._letters = Correspondence(self._line.carry, engine.deadlines, folder.identity().sign)

    def enrol(self, server: Server) -> None:
        """Propose the plan to the sites, and wait for those that have to look at it.

        Raises ``Refused`` where so many refuse that no round could be.
        """
        plan = server.enrol(self.roster)
        until = time.monotonic() + self._engine.patience
        while True:
            self._present(plan, until)
            words = proposal.consents(server.run, plan, self.exchange(0))
            accepted = [name for name, word in words.items() if word == "accepted"]
            refusing = sorted(name for name, word in words.items() if word in ("refused", "budget"))
            if len(plan.clients) - len(refusing) < plan.minimum:
                raise Refused(
                    f"{', '.join(refusing)} take no part in this plan ({plan.digest().hex()}), and {plan.minimum} "
                    "clients are needed: their owners' logs say why"
                )
            waiting = sorted(set(plan.clients) - set(accepted) - set(refusing))
            if not waiting or (len(accepted) >= plan.minimum and time.monotonic() > until):
                return
            if time.monotonic() > until:
                raise Refused(
                    f"{', '.join(waiting)} have not approved the plan ({plan.digest().hex()}) yet: start the run again "
                    "once they have; what they approve until then stands"
                )
            self._tell(f"waiting for {', '.join(waiting)} to approve plan {plan.digest().hex()}")
            time.sleep(_ASK_AGAIN)  # each answer stands in the owner's log

    def exchange(self, round: int) -> Exchange:
        return self._letters.exchange

    def present(self, plan: Plan) -> frozenset[str]:
        """Who answers now. Waits for the fewest that a round needs, as long as the engine's patience."""
        return self._present(plan, time.monotonic() + self._engine.patience)

    def _present(self, plan: Plan, until: float) -> frozenset[str]:
        while True:
            self._line.ready(min(_GREETING, self._engine.patience))
            there = frozenset(self._letters.present(plan.clients, _GREETING))
            if len(there) == len(plan.clients):
                return there
            missing = [name for name in plan.clients if name not in there]
            self._line.include(missing)
            if len(there) >= plan.minimum or time.monotonic() > until:
                return there
            self._tell(f"waiting for {', '.join(missing)} to be reached: {plan.minimum} clients are needed")
            time.sleep(_LOOK)

    def close(self) -> None:
        self._line.close()
