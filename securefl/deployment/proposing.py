"""How a site's owner proposes a run without a server: its client process finds a folder, and shows it to the others."""

from __future__ import annotations

import os

from msgspec.structs import replace

from securefl import draft
from securefl.calibration import calibrated
from securefl.deployment.approvals import Approvals
from securefl.deployment.in_turn_folder import InTurnFolder
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.correspondence import Deadlines
from securefl.errors import BadInput
from securefl.job import Job
from securefl.peers.run import check_job
from securefl.plan import Plan
from securefl.settings import InTurnApart


def propose(home: SiteFolder, job: Job, deadlines: Deadlines) -> tuple[InTurnFolder, Plan]:
    """Make the run; to propose it is this owner's consent.

    Raises ``BadJob`` for a job that cannot be run without a server, ``BadInput`` where it names others than the roster.
    """
    from securefl import vector

    check_job(job)
    own, members = home.site_file().name, home.roster().members
    if strangers := [name for name in job.clients if name not in members]:
        raise BadInput(f"the job names {strangers[0]!r}, who is not on this site's roster: correct data.clients")
    if own not in job.clients:
        raise BadInput(f"the job does not name {own!r}, this site: add it to data.clients, or have another propose it")
    module = vector.build(job.federation().model, job.model.seed)
    # Where the ledgers of whoever wrote the job lie is nobody else's business.
    whole = calibrated(replace(job, privacy=replace(job.privacy, ledger="ledgers")), module)
    plan = draft.of_job(whole).plan(module, sorted(job.clients))
    folder = InTurnFolder(home.runs / os.urandom(16).hex())
    approvals = Approvals(home.plans)
    approvals.ask(plan, own)
    approvals.approve(plan.digest().hex(), own)
    approvals.take(plan, folder.run, own)
    folder.make(whole.to_toml(), plan, InTurnApart(deadlines), proposed=True)
    return folder, plan
