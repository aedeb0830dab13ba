"""Before a run without a server: one peer shows the others its job and the plan that follows, and hears their owners'
word. As with a server, what binds is each owner's own check of every round.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from msgspec import Meta

from protocols.wire import Message
from securefl import draft, proposal
from securefl import job as jobs
from securefl.engines.correspondence import Deadlines
from securefl.errors import Refused
from securefl.job import Job, file
from securefl.plan import Plan
from securefl.proposal import Propose

_LONGEST: Final = 7 * 24 * 3600.0  # seconds
_RunId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]  # it names a folder, too


class ProposeInTurn(Message, frozen=True):
    """Asks whether the owner takes part. The plan is what counts; the job is for reports, and has to give that plan."""

    KIND: ClassVar[int] = 23
    run: _RunId
    plan: Annotated[bytes, Meta(max_length=1 << 24)]
    job: Annotated[str, Meta(max_length=1 << 22)]
    deadlines: Deadlines


def read(asked: ProposeInTurn) -> tuple[Job, Plan]:
    """Job and plan. Raises ``BadJob`` or ``MalformedMessage`` for what is none, ``Refused`` where one is another's."""
    job, plan = jobs.checked(file.parse(asked.job)), proposal.plan_of(Propose(asked.run, asked.plan))
    if draft.of_job(job).shaped(plan.architecture, plan.dimension, sorted(job.clients)) != plan:
        raise Refused("the plan is not the one that the job gives: ask whoever proposed them for both anew")
    if not (0 < asked.deadlines.exchange <= _LONGEST and 0 < asked.deadlines.training <= _LONGEST):
        raise Refused(f"deadlines of {asked.deadlines}: above 0 and at most {_LONGEST:g} seconds")
    return job, plan
