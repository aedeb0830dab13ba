"""One run in one folder: builds clients and server from a job, checkpoints after every round, closes with a summary.

In this engine all parties share the folder: ``server/`` and ``clients/NAME/`` hold what each keeps for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from securefl import job as jobs
from securefl.client import Client
from securefl.data import Dataset
from securefl.errors import BadInput, NotARun, RunExists
from securefl.export import write_model
from securefl.job import Job
from securefl.job.federation import Federation
from securefl.plan import Plan
from securefl.privacy.ledger import Ledger
from securefl.protection import KINDS
from securefl.records import RoundRecord, ServerView, Summary
from securefl.round import enrol, federate
from securefl.server import Server
from securefl.store import Store
from securefl.transcript import Crossing, Transcript

JOB, PLAN, HISTORY, TRANSCRIPT = "job.toml", "plan.json", "history.jsonl", "transcript.jsonl"
SUMMARY, MODEL, STORE = "summary.json", "model.safetensors", "store.sqlite"

T = TypeVar("T")


@dataclass(frozen=True)
class Material:
    """What a job's code gave: its federation, each client's records, the public test set."""

    federation: Federation
    data: dict[str, Dataset]
    test: Dataset | None


class Run:
    """A run that can be started, stopped at any moment and resumed."""

    def __init__(self, job: Job, folder: Path, material: Material) -> None:
        self.job = job
        self.folder = folder
        self.history = _lines(folder / HISTORY, RoundRecord)
        self._federation, self._data, self._test = material.federation, material.data, material.test
        self._clients = [self._client(name) for name in self._federation.clients]
        self._server = self._coordinator()
        enrol(self._server, self._clients)

    @classmethod
    def create(cls, job: Job, folder: Path) -> Run:
        """A new run. Raises ``RunExists`` if the folder is taken, ``BadInput`` for a job that could fail later."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunExists(f"{folder} exists and is not empty: choose another --out, or securefl resume {folder}")
        material = _material(job)  # first: a loader that fails must not leave the folder taken
        try:
            _private_folder(folder)
        except OSError as error:
            raise BadInput(f"cannot create {folder} ({error.strerror}): choose another --out") from error
        (folder / JOB).write_text(job.to_toml(), encoding="utf-8")
        run = cls(job, folder, material)
        (folder / PLAN).write_bytes(run.plan.encoded())
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run to go on with. Raises ``NotARun`` where there is none, or one of another plan."""
        if not (folder / JOB).is_file():
            raise NotARun(f"{folder} is not the folder of a run: it has no {JOB}")
        job = jobs.load(folder / JOB)
        run = cls(job, folder, _material(job))
        recorded = folder / PLAN
        if not recorded.exists():
            recorded.write_bytes(run.plan.encoded())
        if recorded.read_bytes() != run.plan.encoded():
            raise NotARun(f"{folder} was begun under another plan than its {JOB} now gives: restore the job file")
        return run

    @property
    def plan(self) -> Plan:
        return self._server.plan

    def rounds(self) -> Iterator[RoundRecord]:
        """Run what remains, one record a round. A round that was yielded survives any later crash."""
        for path in (self.folder / TRANSCRIPT, self.folder / HISTORY):
            _mend(path)
        with (self.folder / TRANSCRIPT).open("ab") as transcript, (self.folder / HISTORY).open("ab") as history:
            records = federate(
                self._server,
                self._clients,
                self.job.rounds,
                faults=self.job.silences,
                transcript=Transcript(lambda crossing: _append(transcript, crossing)),
            )
            for record in records:
                transcript.flush()
                _append(history, record)
                history.flush()
                self.history.append(record)
                yield record

    def finish(self) -> Summary:
        """Write model, summary and report. The accuracy is that of the model after the last round.

        The model is written by the server or, where that cannot read it, by every client that holds it, in the
        client's own folder.
        """
        from securefl import evaluation
        from securefl.report import render

        path, model = self._write_model()
        accuracy = evaluation.accuracy_of(self._federation.model, self.plan.model_seed, model, self._test)
        summary = self._summary(path, accuracy)
        (self.folder / SUMMARY).write_bytes(msgspec.json.encode(summary))
        render(self.folder)
        return summary

    def _client(self, name: str) -> Client:
        private = self.folder / "clients" / name
        _private_folder(private)
        ledgers = self.job.ledger_folder(self.folder)
        if self.job.budget is not None:
            _private_folder(ledgers)
        ledger = Ledger(ledgers / f"{name}.sqlite", name, self.job.budget) if self.job.budget else None
        return Client(
            name,
            self._data[name],
            self._federation.model,
            budget=self.job.budget,
            test=self._test,
            ledger=ledger,
            store=Store(private / STORE),
        )

    def _coordinator(self) -> Server:
        _private_folder(self.folder / "server")
        return Server(
            self._federation.model,
            self.job.shield,
            self.job.mechanism,
            self.job.optimizer,
            weights=self.job.weights,
            test=self._test,
            seed=self.job.model.seed,
            job=self.job.name,
            store=Store(self.folder / "server" / STORE),
        )

    def _write_model(self) -> tuple[Path, NDArray[np.float32]]:
        """The global model, and where it was written first."""
        model, path = self._server.model(), self.folder / MODEL
        if model is not None:
            write_model(self._federation.model, self.plan.model_seed, model, path)
            return path, model
        run, last = self._server.run, self._server.round_number
        holders = [client for client in self._clients if client.model_round(run) == last]
        written = [(self.folder / "clients" / client.name / MODEL, client) for client in holders]
        models = [client.write_model(run, target) for target, client in written]
        if not written:
            raise NotARun("no client holds the model of the last round: securefl resume continues until one does")
        return written[0][0], models[0]

    def _twin(self) -> float | None:
        """What plain training on all rows in one place would give: possible here because one process holds them all."""
        from securefl import evaluation
        from securefl.pilots import Recipe

        if self._test is None:
            return None
        recipe = self._federation.twin or Recipe(self.job.mechanism, self.job.optimizer, self.job.rounds)
        data: list[Dataset] = list(self._data.values())
        return evaluation.centralised_accuracy(self._federation.model, self.plan.model_seed, data, self._test, recipe)

    def _summary(self, model: Path, accuracy: float | None) -> Summary:
        crossings = _lines(self.folder / TRANSCRIPT, Crossing)
        spent = {client.name: value for client in self._clients if (value := client.epsilon()) is not None}
        per_client_round = len(self._clients) * max(len(self.history), 1)
        budget = self.job.budget
        return Summary(
            accuracy=accuracy,
            accuracy_centralised=self._twin(),
            epsilon=max(spent.values()) if spent else None,
            epsilon_by_client=spent,
            budget_epsilon=budget.epsilon if budget else None,
            delta=budget.delta if budget else None,
            rounds=self._server.round_number,
            protection=self.plan.protection,
            dropouts_recovered=sum(len(record.recovered) for record in self.history),
            upload_bytes=sum(sum(record.upload_bytes.values()) for record in self.history) // per_client_round,
            download_bytes=sum(sum(record.download_bytes.values()) for record in self.history) // per_client_round,
            server_view=self._server_view(crossings),
            hazards=hazards(self.job, self._federation),
            seconds=sum(record.seconds for record in self.history),
            run=str(self.folder),
            model=str(model),
            report=str(self.folder / "report.html"),
        )

    def _server_view(self, crossings: list[Crossing]) -> ServerView:
        kind = KINDS[self.plan.protection]
        received = [crossing for crossing in crossings if crossing.direction == "up"]
        inputs = sum(crossing.kind == "masked-input" for crossing in received)
        readable = 0 if kind.sealed else self._server.round_number
        return ServerView(
            messages=len(received),
            bytes=sum(crossing.bytes for crossing in received),
            updates_received=inputs,
            updates_readable=0 if kind.masked or kind.sealed else inputs,
            sums_readable=readable,
            models_readable=readable,
        )


def hazards(job: Job, federation: Federation) -> tuple[str, ...]:
    """Everything that is released without being accounted for, or that weakens what the run claims."""
    kind = KINDS[job.protection.kind]
    found = list(federation.hazards)
    found.append("all parties ran in one process on one machine: this was a simulation of the deployment")
    if job.budget is None:
        found.append("no differential privacy: nothing bounds what the model reveals about one record")
    if kind.sealed and federation.test is not None:
        found.append("clients tell the server the accuracy of a model that it cannot read")
    if not kind.masked:
        found.append(kind.visibility)
    return tuple(found)


def _material(job: Job) -> Material:
    federation = job.federation()
    test = federation.test() if federation.test else None
    return Material(federation, {name: federation.load(name) for name in federation.clients}, test)


def _lines(path: Path, record: type[T]) -> list[T]:
    if not path.exists():
        return []
    # A crash can cut the last line short.
    whole = path.read_bytes().rpartition(b"\n")[0]
    try:
        return [msgspec.json.decode(line, type=record) for line in whole.splitlines() if line]
    except msgspec.DecodeError as error:
        raise NotARun(f"{path} is damaged ({error}): restore it from a backup") from error


def _mend(path: Path) -> None:
    """Cut off a last line that a crash left without its end, so that nothing is written behind it."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _append(file: BinaryIO, record: Crossing | RoundRecord) -> None:
    file.write(msgspec.json.encode(record) + b"\n")


def _private_folder(folder: Path) -> None:
    """A folder, with its parents, that only its owner may enter if it is made here."""
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
