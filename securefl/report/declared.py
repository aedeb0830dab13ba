"""The hazards that a job file gives away by itself, whatever else is said of a run: how its data was prepared, and that
it ran in one process.

What a loader of an owner's own does to the records nobody knows who has not seen its code: that is the hazard.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from securefl.report.hazards import Hazard, hazard

if TYPE_CHECKING:
    from securefl.job import Job
    from securefl.job.sections import Data


def of_job(job: Job) -> tuple[Hazard, ...]:
    """All of a job. A job file runs in the embedded engine, which is one process."""
    together = "all parties ran in one process on one machine: this was a simulation of the deployment"
    return (*of_data(job.data), hazard("single-process", together))


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
