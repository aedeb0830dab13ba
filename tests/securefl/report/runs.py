"""A run folder with real charges and signatures, written by hand, for what reads and renders reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import msgspec

from protocols.primitives import Identity
from securefl import job, survey
from securefl.job import file
from securefl.plan import Plan
from securefl.privacy import accountant
from securefl.privacy.mechanism import NEIGHBOURS, Budget
from securefl.records import RoundRecord, ServerView, Summary
from securefl.releases import releases
from securefl.report.canonical import many
from securefl.report.hazards import Hazard, hazard
from securefl.report.statement import Charge, Head, SignedStatement, Statement, sign
from securefl.survey import Found

CLIENTS = tuple(f"hospital-{i}" for i in range(1, 6))
RUN, MODEL = "0123456789abcdef" * 2, "cd" * 32
# What each client saw of each other ledger: its ninth charge.
SEEN = "1d" * 32 + f"{9:016x}" + "09" * 32
IDENTITIES = {name: Identity(sha256(name.encode()).digest()) for name in CLIENTS}
JOB = """
[job]
name = "five hospitals"
rounds = 10
[data]
name = "diagnoses"
loader = "own_data:load"
clients = ["hospital-1", "hospital-2", "hospital-3", "hospital-4", "hospital-5"]
disjoint = true
[model]
factory = "own_data:model"
[training]
learning_rate = 0.5
sampling_rate = 0.5
steps = 3
[privacy]
noise_multiplier = 4.0
epsilon = 9.0
delta = 1e-5
ledger = "ledgers"
"""
CLIENT_LEVEL = JOB.replace("[privacy]", '[privacy]\nunit = "client"').replace("epsilon = 9.0", "epsilon = 90.0")
SURVEYED = JOB.replace("disjoint", 'held_out = "own_data:held_out"\ndisjoint').replace(
    "epsilon = 9.0", "epsilon = 900.0"
)
SURVEYED += "[survey]\nnoise_multiplier = 0.25\nbins = 4\nscores = 5.0\n"
# Of five clients, in quarters of accuracy, with noise.
COUNTS = {
    "federated": (0.2, -0.4, 1.1, 4.3),
    "local": (4.8, 0.1, -0.2, 0.5),
    "personalised": (-0.3, 0.6, 0.4, 4.1),
}
NOT_PRIVATE = JOB.replace("[privacy]", "[privacy]\nenabled = false")
EXCHANGES = {"keys": (180, 900), "shares": (1400, 1500), "masked-input": (310, 420), "consistency": (96, 520)}


@dataclass(frozen=True)
class Scene:
    """What a run folder is to hold; ``rounds`` below ten leave it unfinished. ``change``: of each statement, before it
    is signed. ``silent``: clients without a statement. ``found``: by a survey, if the job has one and anybody told.
    """

    toml: str = JOB
    rounds: int = 10
    hazards: tuple[Hazard, ...] = (hazard("preprocessing", "scaling constants computed from these records"),)
    silent: frozenset[str] = frozenset()
    change: Callable[[Statement], Statement] = field(default=lambda statement: statement)
    found: Found | None = None

    @property
    def job(self) -> job.Job:
        return job.checked(file.parse(self.toml))

    @property
    def plan(self) -> Plan:
        return plan_of(self.job)

    @property
    def statements(self) -> tuple[SignedStatement, ...]:
        made = (statement(self.plan, self.job.budget, client) for client in CLIENTS if client not in self.silent)
        return tuple(sign(self.change(one), IDENTITIES[one.client]) for one in made)

    def write(self, folder: Path) -> Path:
        folder.mkdir()
        done = self.rounds if self.rounds < self.job.rounds else self.plan.last
        (folder / "job.toml").write_text(self.toml, encoding="utf-8")
        (folder / "plan.json").write_bytes(self.plan.encoded())
        lines(folder / "history.jsonl", [record(number, self.job.budget) for number in range(1, done + 1)])
        lines(folder / "transcript.jsonl", transcript(done))
        if self.rounds == self.job.rounds:
            (folder / "summary.json").write_bytes(msgspec.json.encode(summary(folder, self.hazards, self.found)))
            (folder / "statements.json").write_bytes(many(self.statements))
        return folder


def plan_of(checked: job.Job) -> Plan:
    return Plan(
        job=checked.name,
        protection=checked.protection.kind,
        clients=checked.clients,
        weights=checked.client_weights,
        bound=1.0 if checked.terms.client_level else checked.protection.bound,
        minimum=checked.minimum,
        threshold=checked.threshold,
        rounds=checked.rounds,
        mechanism=checked.mechanism,
        optimizer=checked.optimizer,
        architecture="0b" * 32,
        dimension=62,
        model_seed=checked.model.seed,
        colluders=checked.protection.colluders,
        bits=48 if checked.protection.kind.startswith("ckks") else 32,
        privacy=checked.terms,
    )


def statement(plan: Plan, budget: Budget | None, client: str) -> Statement:
    """What a client states that was asked in all ten rounds, and in a survey where there is one; hospital-3 was silent
    in the third, after its charge.
    """
    asked = range(1, plan.last + 1) if releases(plan) else ()
    charges = tuple(Charge(number, 1, releases(plan, number)) for number in asked)
    everything = [release for charge in charges for release in charge.releases]
    unit = plan.privacy.unit
    return Statement(
        run=RUN,
        client=client,
        plan=plan.digest().hex(),
        model=MODEL,
        data="diagnoses",
        fingerprints=("5e" * 32,),
        unit=unit,
        neighbours=NEIGHBOURS[unit],
        ledger="1d" * 32,
        before=Head(0, "00" * 32),
        after=Head(len(charges), "0a" * 32),
        charges=charges,
        budget=budget or "none",
        epsilon_before=0.0 if budget else "none",
        epsilon_after=accountant.epsilon(everything, budget.delta, unit) if budget else "none",
        refused=0,
        simulated=plan.privacy.simulated,
        witnessed={name: SEEN for name in CLIENTS if name != client},
        doubts=(),
        software={"securefl": "0.1.0"},
    )


def record(number: int, budget: Budget | None) -> RoundRecord:
    silent = number == 3
    return RoundRecord(
        round=number,
        attempt=1,
        contributors=tuple(name for name in CLIENTS if not (silent and name == "hospital-3")),
        dropped={"hospital-3": "exchange 2"} if silent else {},
        recovered=("hospital-3",) if silent else (),
        accuracy=0.6 + 0.36 * (1 - 0.7**number),
        epsilon=dict.fromkeys(CLIENTS, 0.93 * number**0.5) if budget else {},
        upload_bytes=dict.fromkeys(CLIENTS, 1986),
        download_bytes=dict.fromkeys(CLIENTS, 3340),
        seconds=0.41,
    )


def found() -> Found:
    """What a survey of the five clients found under ``SURVEYED``."""
    noise = survey.deviation(Scene(SURVEYED).plan, len(CLIENTS))
    spread = {name: survey.spread(counts, len(CLIENTS), noise) for name, counts in COUNTS.items()}
    return Found(len(CLIENTS), spread, auc=0.912, calibration=0.034)


def summary(folder: Path, hazards: tuple[Hazard, ...], found: Found | None = None) -> Summary:
    return Summary(
        accuracy=0.947,
        accuracy_centralised=0.974,
        epsilon=2.93,
        epsilon_by_client=dict.fromkeys(CLIENTS, 2.93),
        budget_epsilon=9.0,
        delta=1e-5,
        rounds=10,
        protection="secagg",
        dropouts_recovered=1,
        upload_bytes=1986,
        download_bytes=3340,
        server_view=ServerView(196, 104_000, 49, 0, 10, 10),
        hazards=hazards,
        seconds=4.1,
        id=RUN,
        model_sha256=MODEL,
        run=str(folder),
        model=str(folder / "model.safetensors"),
        report=str(folder / "report.html"),
        survey=found,
    )


def transcript(rounds: int) -> list[dict[str, object]]:
    return [
        {"round": r, "kind": kind, "direction": way, "client": client, "bytes": count, "sha256": "00"}
        for r in range(1, rounds + 1)
        for kind, sizes in EXCHANGES.items()
        for way, count in zip(("up", "down"), sizes, strict=True)
        for client in CLIENTS
    ]


def lines(path: Path, values: Iterable[object]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))
