"""What a job would do, before anything runs: who could see what, what travels, how exact sums are."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from protocols.errors import ConfigurationError
from securefl.errors import BadInput
from securefl.job import Job
from securefl.precision import Facts, facts
from securefl.protection import KINDS

# By how much rounding has to be below the noise of updates to be called lost in it.
_LOST = 1 / 4


class Preview(Struct, frozen=True):
    """A job as its parties would meet it. ``noise``: the least of any weighted update, as a standard deviation of one
    coordinate; None without differential privacy or declared sizes. ``key_rounds``: sums that one CKKS key decrypts.
    """

    job: str
    protection: str
    visibility: str
    clients: int
    rounds: int
    dimension: int
    encoding: Facts
    noise: float | None
    key_rounds: int


def preview(job: Job) -> Preview:
    """Build the job's model, load no records, train nothing. Raises ``BadInput`` for a job that could fail later."""
    from securefl import training, vector

    module = vector.build(job.federation().model, job.model.seed)
    training.check(module)
    dimension, count = len(vector.flatten(module)), len(job.clients)
    try:
        parameters = job.shield.parameters(dimension, count)
    except ConfigurationError as error:
        raise BadInput(str(error)) from error
    kind = KINDS[job.protection.kind]
    rounds = job.shield.key_rounds_of(count)
    return Preview(
        job.name, kind.kind, kind.visibility, count, job.rounds, dimension, facts(parameters), job.noise, rounds
    )


def lines(found: Preview) -> Iterator[tuple[str, str]]:
    """Label and text of each line that a person wants to read."""
    yield "job", f"{found.job}: {found.clients} clients, {found.rounds} rounds, {found.dimension:,} parameters"
    yield "sees", found.visibility
    yield "encoding", str(found.encoding)
    size = found.encoding.bytes_per_parameter * found.dimension
    yield "traffic", f"about {size / 1000:,.1f} kB up for each client and round, beside keys and shares"
    if found.noise is not None:
        part = found.encoding.step / 2 / found.noise
        beside = "lost in it" if part <= _LOST else "close to it: write a finer precision"
        yield "precision", f"updates carry noise of {found.noise:.2g} or more; rounding is {part:.1g} of it: {beside}"
    if found.key_rounds:
        yield "key", f"one CKKS key decrypts at most {found.key_rounds} sums, then clients make another"
