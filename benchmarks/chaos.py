"""What may die, and what must come of it: faults on a real deployment, each with its outcome stated beforehand.

Four sites, t = 3: the loss of one is recovered, the loss of two ends an attempt. A job or a process that only carries
messages may die without any loss: its work is carried again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from safetensors.torch import load_file

from benchmarks.deployed import Deployment, Part, environment
from protocols.aggregation.messages import (
    ApplyRequest,
    ConsistencyRequest,
    InputRequest,
    KeysRequest,
    SharesRequest,
    UnmaskRequest,
)
from protocols.base import Exchange, Messages, Replies
from protocols.wire import kind
from securefl import job as jobs
from securefl import vector
from securefl.client import Client
from securefl.engines.correspondence import Deadlines
from securefl.engines.local import Silence
from securefl.errors import NotARun, RoundFailed
from securefl.job import Job
from securefl.parties import Parties
from securefl.pilots import breast_cancer
from securefl.privacy.ledger.file import read
from securefl.records import RoundRecord
from securefl.round import federate
from securefl.run import Run
from securefl.run_folder import MODEL
from securefl.server import Server
from securefl.settings import Nvflare

NAMES: Final = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
VICTIM: Final = "hospital-3"
SECOND: Final = "hospital-2"
SEED: Final = 7
SAME: Final = 1e-6
"""How far the numbers of two models may lie apart: updates are rounded at random, to steps of 3e-8."""

_EXCHANGES: Final = {
    request.KIND: number
    for number, request in enumerate(
        (KeysRequest, SharesRequest, InputRequest, ConsistencyRequest, UnmaskRequest, ApplyRequest)
    )
}
_INPUT, _APPLY = 2, 5
_SHORT, _LONG = 10.0, 60.0  # seconds for an exchange: where somebody is lost, and where all come back
_REST: Final = 90.0  # seconds for three rounds and whatever starts again in them, on a machine that is busy too

Charges = frozenset[tuple[int, int]]
"""Rounds and attempts, as a ledger has them of one run."""


@dataclass(frozen=True)
class Case:
    """A fault as the requests of ``exchange`` go out in round 2, and what must come of that round.

    ``victims``: whose part it is. ``contributors``: how many are in the sum. ``attempts``: until there is one. All of
    it within ``seconds`` for one exchange.
    """

    part: Part
    signal: signal.Signals
    exchange: int
    victims: tuple[str, ...]
    contributors: int
    attempts: int
    seconds: float

    @property
    def limit(self) -> float:
        """Seconds that the three rounds may take: one exchange runs into its deadline at most."""
        return self.seconds + _REST

    def charged(self, name: str) -> Charges:
        """What a site's ledger is charged for, and nothing else: each round that it contributed to, and the attempt
        that was abandoned, where its training had begun by then.
        """
        last = 1 + self.attempts
        found = {(1, 1), (3, last + 1)}
        if name not in self.victims or self.contributors == len(NAMES):
            found.add((2, last))
        begun = self.exchange > _INPUT or (self.exchange == _INPUT and name not in self.victims)
        return frozenset(found | ({(2, 2)} if self.attempts > 1 and begun else set()))

    def late(self, name: str) -> Charges:
        """What it may be charged for, too. The fault comes as the letter that asks for its input goes out: it may be
        charged before it dies, or the letter may lie with what is frozen and be answered when nobody waits any more.
        """
        lost = self.exchange == _INPUT and self.contributors < len(NAMES)
        return frozenset({(2, 2)}) if lost and name in self.victims else frozenset()

    def __str__(self) -> str:
        what = {signal.SIGKILL: "killed", signal.SIGSTOP: "frozen"}[self.signal]
        what = "cut" if self.part == "network" else what
        so = "completes" if self.attempts == 1 else "aborts, and completes when repeated,"
        return (
            f"{self.part} of {' and '.join(self.victims)} {what} at exchange {self.exchange}: "
            f"the round {so} with {self.contributors} of 4"
        )


@dataclass
class Found:
    """What came of a case. ``problems`` is empty where all was as stated; ``seconds``: of the three rounds."""

    case: Case
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def cases(protection: str) -> list[Case]:
    """The matrix: every fault at every exchange."""
    return [case for exchange in range(6 if protection == "ckks" else 5) for case in at(exchange)]


def at(exchange: int) -> Iterator[Case]:
    """All faults at one exchange."""
    one, two, server = (VICTIM,), (VICTIM, SECOND), ("server",)
    # Who has sent its masked input is in the sum, whatever becomes of it then.
    lost = 4 if exchange > _INPUT else 3
    # A client that comes back as keys are asked for has left no session.
    back = 4 if exchange == 0 else lost
    yield Case("client", signal.SIGKILL, exchange, one, back, 1, _LONG)
    yield Case("client", signal.SIGSTOP, exchange, one, lost, 1, _SHORT)
    yield Case("worker", signal.SIGSTOP, exchange, one, lost, 1, _SHORT)
    yield Case("site", signal.SIGKILL, exchange, one, lost, 1, _SHORT)
    # What runs beside the line to the server, and is needed to start a job only.
    yield Case("line", signal.SIGSTOP, exchange, one, 4, 1, _LONG)
    yield Case("line", signal.SIGKILL, exchange, one, 4, 1, _LONG)
    # What only carries messages is replaced, and carries them again.
    yield Case("worker", signal.SIGKILL, exchange, one, 4, 1, _LONG)
    yield Case("job", signal.SIGKILL, exchange, server, 4, 1, _LONG)
    yield Case("server", signal.SIGKILL, exchange, server, 4, 1, _LONG)
    if exchange < _APPLY:
        yield Case("client", signal.SIGKILL, exchange, two, 4, 2 if exchange else 1, _LONG)


def cut(exchange: int) -> Case:
    """A site's cable, where sites have one."""
    return Case("network", signal.SIGSTOP, exchange, (VICTIM,), 4 if exchange > _INPUT else 3, 1, _SHORT)


class Striking:
    """The parties of a run, struck once at one exchange of one round."""

    def __init__(self, parties: Parties, round: int, exchange: int, strike: Callable[[], None]) -> None:
        self._parties, self._at, self._strike = parties, (round, exchange), strike
        self._struck = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._parties, name)

    def exchange(self, round: int) -> Exchange:
        carried = self._parties.exchange(round)

        def struck(requests: Messages) -> Replies:
            first = next(iter(requests), None)
            number = -1 if first is None else _EXCHANGES.get(kind(requests[first]), -1)
            if not self._struck and (round, number) == self._at:
                self._struck = True
                self._strike()
            return carried(requests)

        return struck


def job(protection: str, rounds: int = 3) -> Job:
    """Four hospitals whose training is seeded, so that runs can be compared."""
    found = jobs.checked(
        {
            "job": {"name": "chaos", "rounds": rounds},
            "data": {"pilot": "breast-cancer", "clients": list(NAMES)},
            "protection": {"kind": protection},
            "simulation": {"enabled": True, "seed": SEED},
        }
    )
    return found


def play(deployment: Deployment, case: Case, job: Job, folder: Path) -> Found:
    """Run the job, struck in its second round, and compare with what was stated."""
    found = Found(case)
    deadlines = Deadlines(case.seconds, case.seconds)
    run = Run.create(job, folder, engine=Nvflare(str(deployment.server.path), deadlines, patience=60.0))
    try:
        parties = Striking(run._parties, 2, case.exchange, lambda: strike(deployment, case))
        run._parties = parties  # type: ignore[assignment]
        started = time.monotonic()
        for record in run.rounds():
            if record.round == 2:
                thaw(deployment, case)
                deployment.wait(lambda: len(parties.present(run.plan)) == len(NAMES))
        found.seconds = time.monotonic() - started
        run.finish()
        found.problems += judged(deployment, run, case)
        if found.seconds > case.limit:
            found.problems.append(f"it took {found.seconds:.0f} s, and was to take {case.limit:.0f} at most")
    except (RoundFailed, NotARun) as error:
        found.problems.append(f"the run failed: {error}")
    finally:
        thaw(deployment, case)
        run.close()
    deployment.wait(lambda: all(deployment.serves(name) for name in deployment.names))
    return found


def strike(deployment: Deployment, case: Case) -> None:
    for victim in case.victims:
        deployment.strike(case.part, case.signal, victim)


def thaw(deployment: Deployment, case: Case) -> None:
    """Let what was frozen go on; and start a site whose keeper was killed, as its administrator would."""
    for victim in case.victims:
        if case.signal == signal.SIGSTOP:
            deployment.strike(case.part, signal.SIGCONT, victim)
        elif case.part == "site" and not deployment.kept(victim):
            deployment.keep(victim)


def judged(deployment: Deployment, run: Run, case: Case) -> Iterator[str]:
    """What is not as stated: the round, the model, the ledgers."""
    struck = run.history[1]
    if (len(struck.contributors), struck.attempt) != (case.contributors, 1 + case.attempts):
        yield f"{len(struck.contributors)} contributed in attempt {struck.attempt}; dropped: {struck.dropped}"
    if [len(record.contributors) for record in run.history[::2]] != [4, 4]:
        yield f"the other rounds lost somebody: {[record.dropped for record in run.history]}"
    yield from unlike(deployment, run)
    for name in deployment.names:
        yield from miscounted(name, charges(deployment, run, name), case.charged(name), case.late(name))


def unlike(deployment: Deployment, run: Run) -> Iterator[str]:
    """In what a run differs from an undisturbed one with the same contributors."""
    apart = float(np.abs(model(deployment, run) - undisturbed(run.job, run.history)).max())
    if not apart <= SAME:
        yield f"the model is {apart:.2g} from that of an undisturbed run with the same contributors"


def charges(deployment: Deployment, run: Run, name: str) -> list[tuple[int, int]]:
    """What a site's ledger was charged for in a run."""
    entries = read(deployment.sites[name].ledgers / "breast-cancer" / f"{name}.sqlite").entries
    return [(entry.round, entry.attempt) for entry in entries if entry.run == run.id]


def miscounted(name: str, charged: Sequence[tuple[int, int]], stated: Charges, late: Charges) -> Iterator[str]:
    """In what a ledger differs from what was stated, either way."""
    if set(charged) - late != stated - late or len(set(charged)) < len(charged):
        yield f"{name} was charged for {sorted(charged)}, and not as stated for {sorted(stated)} (round, attempt)"


def model(deployment: Deployment, run: Run) -> NDArray[np.float32]:
    """The final model, from wherever it can be read."""
    path = run.folder / MODEL
    if not path.exists():
        path = deployment.sites[NAMES[0]].runs / run.id / MODEL
    tensors = load_file(path)
    module = breast_cancer.PILOT.model()
    module.load_state_dict(tensors)
    return vector.flatten(module)


def undisturbed(job: Job, history: Sequence[RoundRecord]) -> NDArray[np.float32]:
    """The model of a run in one process in which the same contributed, in the same attempts."""
    clients = [
        Client(name, breast_cancer.load(name), breast_cancer.model, budget=job.budget, seed=SEED) for name in NAMES
    ]
    server = Server(
        breast_cancer.model,
        replace(job, protection=replace(job.protection, kind="secagg")).shield,
        job.mechanism,
        job.optimizer,
        rounds=job.rounds,
        weights=job.weights,
        seed=job.model.seed,
        job=job.name,
        privacy=job.terms,
    )
    for record in history:
        server._kept.save(attempt=record.attempt - 1)
        absent = [Silence(name, 2, record.round) for name in NAMES if name not in record.contributors]
        list(federate(server, clients, record.round, faults=absent))
    found = server.model()
    assert found is not None  # noqa: S101 secagg
    return found


COORDINATOR = """
import os, signal, sys
from pathlib import Path
from benchmarks import chaos
from securefl.engines.correspondence import Deadlines
from securefl.run import Run
from securefl.settings import Nvflare

server, folder, exchange, protection = sys.argv[1:]
run = Run.create(chaos.job(protection), Path(folder), engine=Nvflare(server, Deadlines(60.0, 60.0), 60.0))
run._parties = chaos.Striking(run._parties, 2, int(exchange), lambda: os.kill(os.getpid(), signal.SIGKILL))
list(run.rounds())
"""


def resumed(deployment: Deployment, folder: Path, exchange: int = 4, protection: str = "secagg") -> float:
    """Kill the coordinator in its second round, and resume as a person would: seconds until the run is finished.

    Raises ``RuntimeError`` where the resumed run is not as an undisturbed one.
    """
    arguments = [str(deployment.server.path), str(folder), str(exchange), protection]
    killed = subprocess.run([sys.executable, "-c", COORDINATOR, *arguments], env=environment(), check=False)  # noqa: S603
    if killed.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the coordinator ended with {killed.returncode} before it was killed")
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "securefl", "resume", str(folder)], env=environment(), check=True)  # noqa: S603
    taken = time.monotonic() - began
    run = Run.open(folder)
    try:
        problems = list(unlike(deployment, run))
        for name in deployment.names:
            stated = frozenset((record.round, record.attempt) for record in run.history if name in record.contributors)
            if exchange > _INPUT:  # the attempt whose coordinator died
                stated |= {(2, 2)}
            problems += miscounted(name, charges(deployment, run, name), stated, frozenset())
    finally:
        run.close()
    if problems:
        raise RuntimeError("; ".join(problems))
    return taken
