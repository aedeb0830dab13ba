"""Small jobs to be audited: those of the benchmark, with other sections."""

from __future__ import annotations

from msgspec.structs import replace

from benchmarks.audited import client_level, small
from securefl.job import Job

UNBOUNDED = 1e9
"""An epsilon that no audit here uses up."""


def records(kind: str = "plain", rounds: int = 2, noise: float = 1.0, rate: float = 1.0, **training: float) -> Job:
    """Record-level noise."""
    job = small(rate, noise, rounds)
    return _with(replace(job, training=replace(job.training, **training)), kind)


def clients(kind: str = "plain", rounds: int = 2, noise: float = 0.5, **privacy: float) -> Job:
    """Client-level noise."""
    job = client_level()
    job = replace(job, job=replace(job.job, rounds=rounds))
    return _with(replace(job, privacy=replace(job.privacy, noise_multiplier=noise, **privacy)), kind)


def _with(job: Job, kind: str) -> Job:
    return replace(job, protection=replace(job.protection, kind=kind), privacy=replace(job.privacy, epsilon=UNBOUNDED))
