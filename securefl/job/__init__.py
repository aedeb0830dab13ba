"""A job: everything that a person decides about a run, read from a TOML file and checked before anything starts.

What a pilot recommends fills the keys that the file leaves out. Errors are ``BadJob``: key, problem, remedy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import replace

from protocols.graph import two_thirds
from securefl.engines.local import Silence
from securefl.errors import BadInput, BadJob
from securefl.job import checks, file, sections
from securefl.job.completion import completed
from securefl.job.completion import known_pilot as known_pilot
from securefl.job.completion import slug as slug
from securefl.job.file import Table, remedy
from securefl.job.learning import strategy_of
from securefl.job.sections import About, Data, Metrics, Model, Privacy, Shield, Simulation, Stopping, Training
from securefl.learning import Cohort, Schedule, Strategy
from securefl.plan import AdaptiveClip, ClientLevel, HeldOut, LocalOptimizer, PrivacyTerms, Survey
from securefl.precision import update_noise, well_below
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.privacy.mechanism import Training as LocalTraining
from securefl.protection import KINDS, Protection

if TYPE_CHECKING:
    from securefl.job.federation import Federation

MASKED: Final = ("secagg", "ckks")
_LARGEST: Final = 4_000_000  # bytes; of 20,000 clients with their sizes and weights, a job file has one
_SILENCE = re.compile(r"(?P<client>[^@]+)@(?P<exchange>[0-5])(:(?P<round>[1-9][0-9]{0,5}))?")


class Job(Struct, frozen=True, forbid_unknown_fields=True):
    """A checked job, every key filled in."""

    job: About
    data: Data
    training: Training
    privacy: Privacy
    model: Model = Model()
    protection: Shield = Shield()
    weights: dict[str, float] = field(default_factory=dict)
    metrics: Metrics | None = None
    survey: sections.Survey | None = None
    strategy: sections.Strategy = sections.Strategy()
    cohort: sections.Cohort = sections.Cohort()
    stopping: Stopping | None = None
    simulation: Simulation = Simulation()

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def rounds(self) -> int:
        return self.job.rounds

    @property
    def clients(self) -> tuple[str, ...]:
        return self.data.clients

    @property
    def masked(self) -> bool:
        """Whether updates travel under pairwise masks."""
        return self.protection.kind in MASKED

    @property
    def threshold(self) -> int | None:
        """How many clients can open what is shared among all; None under ``plain``, which shares nothing."""
        if self.protection.kind == "plain":
            return None
        return self.protection.threshold or two_thirds(len(self.clients))

    @property
    def minimum(self) -> int:
        """The fewest clients whose sum may be formed."""
        return self.shield.minimum_of(self.asked.expected(len(self.clients)))

    @property
    def shield(self) -> Protection:
        """The protection, as clients and server use it."""
        section = self.protection
        assumed = {key: value for key in ("corrupt", "dropout") if (value := getattr(section, key)) is not None}
        return KINDS[section.kind](
            bound=section.bound,
            minimum=section.minimum,
            threshold=section.threshold,
            colluders=section.colluders,
            bits=section.bits,
            precision=self._precision,
            key_rounds=section.key_rounds,
            **assumed,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The clients' declared numbers of records; empty unless all are declared before the data is loaded."""
        known = self.data.sizes
        if self.data.pilot is not None:
            pilot = known_pilot(self.data.pilot)
            known = dict(zip(pilot.clients, pilot.rows, strict=True))
        return tuple(known[client] for client in self.clients) if known.keys() >= set(self.clients) else ()

    @property
    def noise(self) -> float | None:
        """The least noise of a weighted update, where there is noise and all declared how many records they have."""
        if not self.calibrated:
            return None
        return update_noise(self.mechanism, self.optimizer, self.sizes, self.client_weights)

    @property
    def _precision(self) -> float | None:
        if self.protection.profile == "standard" or self.protection.precision is not None or self.noise is None:
            return self.protection.precision
        return well_below(self.noise)

    @property
    def calibrated(self) -> bool:
        """Whether the noise is known: written down, or solved for (:mod:`securefl.calibration`)."""
        return not self.privacy.enabled or self.privacy.noise_multiplier is not None

    @property
    def client_level(self) -> bool:
        """Whether noise hides whole clients."""
        return self.privacy.enabled and self.privacy.unit == "client"

    @property
    def steps(self) -> int:
        """Steps of local training in a round."""
        section = self.training
        return section.steps or math.ceil((section.epochs or 1.0) / section.sampling_rate)

    @property
    def mechanism(self) -> LocalTraining:
        """What one round of local training releases."""
        rate = self.training.sampling_rate
        if not self.privacy.enabled or self.client_level:
            return SGD(rate, self.steps)
        return DPSGD(self._noise_multiplier, rate, self.steps, self.privacy.clip)

    @property
    def terms(self) -> PrivacyTerms:
        """What is released beside local training, and what the owners declare."""
        section = self.metrics
        held_out = None if section is None else HeldOut(section.noise_multiplier, section.loss_bound)
        level = self._client_level if self.client_level else None
        unit = self.privacy.unit if self.privacy.enabled else "record"
        asked = self.survey
        survey = None if asked is None else Survey(asked.noise_multiplier, asked.bins, asked.scores)
        return PrivacyTerms(level, held_out, unit, self.data.disjoint, self.simulation.enabled, survey)

    @property
    def _client_level(self) -> ClientLevel:
        noise, quantile = self._noise_multiplier, self.privacy.adaptive_quantile
        # Five times the update's noise multiplier adds a twenty-fifth to what a round costs in Renyi terms.
        adaptive = None if quantile is None else AdaptiveClip(quantile, self.privacy.adaptive_rate, 5 * noise)
        return ClientLevel(noise, self.privacy.clip, adaptive)

    @property
    def _noise_multiplier(self) -> float:
        return _given("noise_multiplier", self.privacy.noise_multiplier)

    @property
    def optimizer(self) -> LocalOptimizer:
        section = self.training
        schedule = Schedule(section.schedule, 1.0 if section.decay is None else section.decay, section.warmup)
        return LocalOptimizer(section.learning_rate, section.momentum, section.proximal, schedule)

    @property
    def server_step(self) -> Strategy:
        """What is done with the mean of a round."""
        return strategy_of(self.strategy)

    @property
    def asked(self) -> Cohort:
        """Who is asked in a round."""
        section = self.cohort
        return Cohort(section.sampling, section.size, section.extra, section.participations, section.groups)

    @property
    def declared_weights(self) -> dict[str, float]:
        """The weights that count; none where all weigh the same."""
        return {} if self.strategy.mean == "simple" else self.weights

    @property
    def budget(self) -> Budget | None:
        """What each data owner allows; None without differential privacy."""
        if not self.privacy.enabled:
            return None
        return Budget(_given("epsilon", self.privacy.epsilon), _given("delta", self.privacy.delta))

    @property
    def client_weights(self) -> tuple[float, ...]:
        """One declared weight a client, in the order of ``clients``."""
        return tuple(self.declared_weights.get(client, 1.0) for client in self.clients)

    @property
    def silences(self) -> tuple[Silence, ...]:
        """Who goes silent when; without a round, it is the second (or the last)."""
        return tuple(_silence(text, min(2, self.rounds)) for text in self.simulation.drop)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the person should know before it starts, though nothing is wrong."""
        lines: tuple[str, ...] = ()
        if self.masked and self.threshold == len(self.clients):
            lines += (f"all {len(self.clients)} clients are needed: no dropout is tolerated, one ends the round",)
        if not self.privacy.enabled:
            lines += ("differential privacy is off: nothing bounds what the model reveals about one record",)
        return lines

    @property
    def has_held_out(self) -> bool:
        """Whether there are records to measure with that are not trained on."""
        pilot = self.data.pilot
        return self.data.held_out is not None or (pilot is not None and known_pilot(pilot).held_out is not None)

    def ledger_folder(self, run: Path) -> Path:
        """Where the clients' ledgers are, given the run's folder."""
        return run / self.privacy.ledger

    def federation(self) -> Federation:
        """Data, model and test set, ready to call. Raises ``BadJob`` where named code cannot be imported."""
        from securefl import pilots
        from securefl.job import federation

        if self.data.pilot is not None:
            return federation.of_pilot(pilots.pilot(self.data.pilot), self.clients, self.model.factory)
        loader, factory = self.data.loader, self.model.factory
        if loader is None or factory is None:
            raise BadJob("data.loader", "neither a pilot nor a loader with a model", remedy("data"))
        return federation.of_code(loader, self.data.test, factory, self.data)

    def to_toml(self) -> str:
        """The job with every key filled in; ``load`` gives it back."""
        return file.text(self)


def load(path: Path) -> Job:
    """The checked job in a TOML file. Its ledgers lie beside the file, so that no later run forgets what was spent."""
    job = checked(file.parse(_text(path)))
    ledger = path.absolute().parent / job.privacy.ledger
    return replace(job, privacy=replace(job.privacy, ledger=str(ledger)))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
        if len(content) <= _LARGEST:
            return content.decode()
        reason = "more than 4 MB"
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError:  # also of a null byte in the path
        reason = "not UTF-8 text"
    raise BadInput(f"cannot read the job file {path} ({reason}): check the path, or try securefl demo")


def from_pilot(
    name: str,
    protection: str = "secagg",
    rounds: int | None = None,
    private: bool = True,
    drop: Iterable[str] = (),
) -> Job:
    """A pilot as its authors recommend it; its ledgers lie in the run's folder, so that every trial starts fresh."""
    about = {} if rounds is None else {"rounds": rounds}
    tables: Table = {
        "job": about,
        "data": {"pilot": name},
        "privacy": {"enabled": private, "ledger": "ledgers"},
        "protection": {"kind": protection},
        "simulation": {"drop": list(drop)},
    }
    return checked(tables)


def checked(tables: Mapping[str, object]) -> Job:
    """The job that these tables describe, defaults filled in; ``BadJob`` for anything that could fail later."""
    job = file.typed(completed(tables), Job)
    checks.check(job)
    return job


def _given(key: str, value: float | None) -> float:
    if value is None:
        raise BadJob(f"privacy.{key}", "missing, although differential privacy is on", remedy(f"privacy.{key}"))
    return value


def _silence(text: str, default_round: int) -> Silence:
    found = _SILENCE.fullmatch(text)
    if found is None:
        problem = f"{file.quoted(text)} is not CLIENT@EXCHANGE or CLIENT@EXCHANGE:ROUND"
        raise BadJob("simulation.drop", problem, remedy("simulation.drop"))
    return Silence(found["client"], int(found["exchange"]), int(found["round"] or default_round))
