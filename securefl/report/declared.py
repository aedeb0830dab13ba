"""The hazards that job file and engine give away by themselves, whatever else is said of a run: how its data was
prepared, and where its clients ran.

What a loader of an owner's own does to the records nobody knows who has not seen its code: that is the hazard.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from securefl.report.hazards import Hazard, hazard

if TYPE_CHECKING:
    from securefl.job import Job
    from securefl.job.sections import Data
    from securefl.settings import Engine


def of_run(job: Job, engine: Engine) -> tuple[Hazard, ...]:
    """All of a run of this job on this engine."""
    return (*of_data(job.data), of_engine(engine))


def of_engine(engine: Engine) -> Hazard:
    """What follows from where the clients were."""
    from securefl.settings import InTurnApart, Nvflare, Ray

    match engine:
        case Nvflare() | InTurnApart():
            times = (
                "how long each client took in each round, above all to train, which grows with its number of records"
            )
            who = "the server" if isinstance(engine, Nvflare) else "whoever acted as the server"
            return hazard("timing", f"{who} saw {times}; the sizes of messages follow from the plan")
        case Ray():
            where = "in the processes of one cluster, whose owner could read all of it"
        case _:
            where = "in one process on one machine"
    return hazard("single-process", f"all parties ran {where}: this was a simulation of the deployment")


def of_data(data: Data) -> tuple[Hazard, ...]:
    """What a pilot declares of its records; of a loader of your own, what is not known of it."""
    from securefl.job.completion import known_pilot

    return tuple(_of_code(data)) if data.pilot is None else known_pilot(data.pilot).hazards


def _of_code(data: Data) -> Iterator[Hazard]:
    unchecked = f"how {data.loader} scales the features is not checked"
    yield hazard("preprocessing", f"{unchecked}: use public constants, not statistics of the records")
    if undeclared := [client for client in data.clients if client not in data.sizes]:
        counts = f"the row counts of {', '.join(undeclared)} are divisors and thereby public: declare data.sizes"
        yield hazard("sample-counts", counts)
    if data.test is not None:
        yield hazard(
            "public-test",
            f"the records of {data.test} were declared public; accuracies on them are released exactly",
        )
