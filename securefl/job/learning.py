"""What a job says of learning, as values: the strategy, and what must hold between it, schedules and cohorts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, get_args

from msgspec.structs import replace

from securefl.errors import BadJob
from securefl.job import sections
from securefl.job.file import closest, quoted, remedy
from securefl.learning import PLAIN, Kind, Schedule, Strategy

if TYPE_CHECKING:
    from securefl.job import Job

# Reddi et al., ICLR 2021, appendix D: beta_1 = 0.9, beta_2 = 0.99, tau = 1e-3 and rates about 0.1 do well throughout.
_ADAPTIVE: Final = Strategy("fedadam", 0.1, 0.9, 0.99, 1e-3)
_USUAL: Final[Mapping[str, Strategy]] = {
    "fedavgm": Strategy("fedavgm", 1.0, 0.9),
    "fedadam": _ADAPTIVE,
    "fedyogi": replace(_ADAPTIVE, kind="fedyogi"),
    "fedadagrad": Strategy("fedadagrad", 0.1, 0.9, 0.0, 1e-3),
}
_NOT_ON_SUMS: Final = ("krum", "multi-krum", "multikrum", "bulyan", "median", "trimmed-mean", "trimmed_mean", "fltrust")


def check_learning(job: Job) -> None:
    """The strategy, the schedules, who is asked and when to stop."""
    strategy_of(job.strategy)
    for key, section in (("training", job.training), ("strategy", job.strategy)):
        if (section.schedule == "exponential") != (section.decay is not None):
            raise BadJob(
                f"{key}.decay", "it is what an exponential schedule needs, and no other", remedy(f"{key}.decay")
            )
    if job.strategy.kind == "scaffold" and (job.training.momentum or job.training.proximal):
        problem = "scaffold corrects plain descent: its control variates assume no momentum and no proximal term"
        raise BadJob("training.momentum", problem, "Leave training.momentum and training.proximal out")
    _check_asked(job)
    if job.stopping is not None and job.stopping.on == "held-out" and job.metrics is None:
        raise BadJob("stopping.on", "nothing is measured on held-out records", "Add a section [metrics]")


def _check_asked(job: Job) -> None:
    section = job.cohort
    if (section.sampling == "all") == (section.size is not None):
        raise BadJob(
            "cohort.size", "a sampled cohort has a size, and one of all clients has none", remedy("cohort.size")
        )
    if section.sampling == "all" and section.extra:
        raise BadJob("cohort.extra", "all are asked already", "Leave the key out, or write a sampling")
    if section.groups == 2 or (section.groups > 1 and job.protection.kind.startswith("ckks")):
        problem = (
            "the median of two means is their mean" if section.groups == 2 else "a CKKS key decrypts one sum a round"
        )
        raise BadJob("cohort.groups", problem, 'Write 3 or more under "secagg", or leave the key out')
    if section.size is not None and section.size > len(job.clients):
        raise BadJob("cohort.size", f"{section.size} of {len(job.clients)} clients", remedy("cohort.size"))
    most, asked = section.participations, len(job.clients) if section.size is None else section.size + section.extra
    if most is not None and job.rounds * asked > most * len(job.clients):
        problem = f"{job.rounds} rounds of {asked} of {len(job.clients)} clients, each in {most} of them at most"
        raise BadJob("cohort.participations", problem, "Allow more, ask for fewer rounds, or for a smaller cohort")


def strategy_of(section: sections.Strategy) -> Strategy:
    """The strategy that a section describes. Raises ``BadJob`` for one that sums do not allow, or is not known."""
    kind = section.kind.lower()
    if kind in _NOT_ON_SUMS:
        raise BadJob(
            "strategy.kind",
            f"{section.kind!r} compares single updates, and the server sees nothing but their sum",
            'Bound what one client can do: protection.bound, a clip with [privacy] unit = "client", or [cohort] '
            "groups, of whose means the median is taken",
        )
    if kind not in get_args(Kind):
        raise BadJob("strategy.kind", f"unknown value {quoted(section.kind)}", closest(kind, get_args(Kind)))
    usual = _USUAL.get(kind, PLAIN)
    given = {name: getattr(section, name) for name in ("learning_rate", "momentum", "second", "adaptivity")}
    for name, value in given.items():
        if value is not None and name != "learning_rate" and not getattr(usual, name):
            raise BadJob(f"strategy.{name}", f"{kind!r} has none", "Leave the key out")
    schedule = Schedule(section.schedule, 1.0 if section.decay is None else section.decay, section.warmup)
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(usual, kind=kind, schedule=schedule, **chosen)
