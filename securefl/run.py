"""One run in one folder, as its coordinator sees it: checkpoints after every round, closes with a summary and report.

``server/`` holds what the server keeps. In the embedded engine ``clients/NAME/`` is there too, and what each client
keeps for itself in it; elsewhere clients are where their owners run them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import msgspec
from msgspec.structs import replace

from securefl import closing, global_state, settings, stopping, survey
from securefl import job as jobs
from securefl.calibration import calibrated
from securefl.errors import BadInput, NotARun, RunExists
from securefl.export import model_file, save_adapters
from securefl.job import Job
from securefl.parties import Carried, Held, Setting
from securefl.plan import Plan
from securefl.progress import Watcher
from securefl.protection import KINDS
from securefl.records import RoundRecord, Summary, participation
from securefl.report import declared, facts, surveyed
from securefl.report.canonical import many
from securefl.report.statement import SignedStatement
from securefl.report.view import server_view
from securefl.round import conduct, last_record
from securefl.run_folder import (
    AUDIT,
    HISTORY,
    JOB,
    MODEL,
    PLAN,
    STATEMENTS,
    STORE,
    SUMMARY,
    TRANSCRIPT,
    append,
    append_durably,
    lines,
    mend,
    private_folder,
    write,
)
from securefl.run_lock import Lock, lock
from securefl.server import Server
from securefl.settings import EMBEDDED, Engine
from securefl.store import Store
from securefl.transcript import Crossing, Transcript


class Run:
    """A run that can be started, stopped at any moment and resumed."""

    def __init__(
        self, job: Job, folder: Path, setting: Setting, held: Lock, watcher: Watcher, begun: bytes | None = None
    ) -> None:
        """``held``: what keeps other processes from running in the folder, as long as this lives. ``begun``: the plan
        that it was begun under; ``NotARun`` if the job gives another.
        """
        self._lock = held
        self._watcher = watcher
        self.job = job
        self.folder = folder
        self.history = lines(folder / HISTORY, RoundRecord)
        self._federation, self._test = setting.federation, setting.test
        self._parties = setting.parties(job, folder, (folder / HISTORY).exists(), watcher.tell)
        try:
            self._server = self._coordinator()
            plan = self._server.enrol(self._parties.roster)
            if begun not in (None, plan.encoded()):
                raise NotARun(f"{folder} was begun under another plan than its {JOB} now gives: restore the job file")
            self._parties.enrol(self._server)
        except BaseException:
            self._parties.close()
            raise

    @classmethod
    def create(
        cls,
        job: Job,
        folder: Path,
        audit: Path | None = None,
        engine: Engine = EMBEDDED,
        watcher: Watcher = Watcher(),  # noqa: B008
    ) -> Run:
        """A new run. ``audit``: the result of one of the same noise and protection, for its report. ``watcher`` hears
        what goes on.

        Raises ``RunExists`` if the folder is taken, ``BadInput`` for a job that could fail later, or another's audit.
        """
        from securefl import vector

        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunExists(f"{folder} exists and is not empty: choose another --out, or securefl resume {folder}")
        setting = settings.of(engine, job)  # first: a loader that fails must not leave the folder taken
        job = calibrated(job, vector.build(setting.federation.model, job.model.seed))
        private_folder(folder)
        held = lock(folder)  # before the claim: whoever resumes now must not find half a run
        try:
            with (folder / JOB).open("x", encoding="utf-8") as file:  # the claim: of two at once, one has it
                file.write(job.to_toml())
        except FileExistsError as error:
            raise RunExists(f"{folder} was just taken by another run: choose another --out") from error
        try:
            settings.write(engine, folder)
            run = cls(job, folder, setting, held, watcher)
            try:
                run._take(audit)
            except BaseException:
                run.close()
                raise
        except BaseException:  # nothing has run yet, and the name is free again
            shutil.rmtree(folder)
            raise
        write(folder / PLAN, run.plan.encoded())
        return run

    @classmethod
    def open(cls, folder: Path, watcher: Watcher = Watcher()) -> Run:  # noqa: B008
        """A run to go on with. Raises ``NotARun`` where there is none, or one of another plan."""
        if not (folder / JOB).is_file():
            raise NotARun(f"{folder} is not the folder of a run: it has no {JOB}")
        held = lock(folder)
        job = jobs.load(folder / JOB)
        recorded = folder / PLAN
        setting = settings.of(settings.read(folder), job)
        run = cls(job, folder, setting, held, watcher, recorded.read_bytes() if recorded.exists() else None)
        if not recorded.exists():
            write(recorded, run.plan.encoded())
        return run

    def _take(self, audit: Path | None) -> None:
        from securefl.audit import result

        if audit is None:
            return
        budget = self.job.budget
        if not result.read(audit).about(self.plan, budget.delta if budget else None):
            raise BadInput(
                f"{audit} audits another plan than this job's (rounds, noise, training, protection or delta differ): "
                "audit this job, as it is"
            )
        write(self.folder / AUDIT, audit.read_bytes())

    @property
    def plan(self) -> Plan:
        return self._server.plan

    @property
    def visibility(self) -> str:
        """Who can see what, in a sentence."""
        return KINDS[self.job.protection.kind].visibility

    @property
    def id(self) -> str:
        """The run's id, as ledgers have it."""
        return self._server.run

    def carried_over(self) -> dict[str, Carried]:
        """What earlier runs left of each owner's budget; of owners without a budget, nothing."""
        return self._parties.carried_over(self._server.run, self.plan)

    def rounds(self) -> Iterator[RoundRecord]:
        """Run what remains, one record a round. A round that was yielded survives any later crash."""
        for path in (self.folder / TRANSCRIPT, self.folder / HISTORY):
            mend(path)
        # Without a buffer: what crossed before a crash is counted when the run goes on.
        with (
            (self.folder / TRANSCRIPT).open("ab", buffering=0) as crossings,
            (self.folder / HISTORY).open("ab") as history,
        ):
            transcript = Transcript(lambda crossing: append(crossings, crossing), self._watcher)
            remaining = conduct(self._server, self._parties, None, transcript, self._enough)
            for record in chain(self._unrecorded(), remaining):
                append_durably(history, record)
                self.history.append(record)
                self._watcher.completed(record)
                yield record

    def _enough(self) -> bool:
        """Whether the job's rule for stopping early says so."""
        return self.job.stopping is not None and stopping.plateaued(self.history, self.job.stopping)

    def _unrecorded(self) -> Iterator[RoundRecord]:
        """The last round, where a crash came between its commit and its line in the history."""
        committed = self._server.round_number
        if [record.round for record in self.history] not in ([*range(1, committed)], [*range(1, committed + 1)]):
            raise NotARun(
                f"{self.folder / HISTORY} has {len(self.history)} rounds and the server has committed {committed}: "
                "restore both from one backup"
            )
        if len(self.history) < committed:
            transcript = Transcript()
            crossings = lines(self.folder / TRANSCRIPT, Crossing)
            transcript.count(crossing for crossing in crossings if crossing.round == committed)
            record = last_record(self._server, self._parties, transcript)
            yield from () if record is None else (record,)

    def finish(self) -> Summary:
        """Write model, summary and report; the clients sign what they state, then the report that is made of it.

        The accuracy is that of the model after the last round. The model is written by the server or, where that cannot
        read it, by every client that holds it, in the client's own folder.
        """
        from securefl import report as reports

        exchange = self._parties.exchange(self._server.round_number)
        roster = self._parties.roster
        stated = closing.statements(self._server.run, roster, exchange)
        summary = self._summary(stated)
        write(self.folder / SUMMARY, msgspec.json.encode(summary))
        write(self.folder / STATEMENTS, many(stated))
        report = reports.assembled(self.folder, datetime.now(UTC).isoformat(timespec="seconds"))
        contributors = {name for record in self.history for name in record.contributors}
        signatures = closing.endorsements(report, self._server.run, roster, exchange, contributors)
        reports.write(self.folder, replace(report, signatures=signatures))
        reports.render(self.folder)
        return summary

    def close(self) -> None:
        """Let go of the clients. Nothing is lost: the run can be opened again."""
        self._parties.close()

    def _coordinator(self) -> Server:
        private_folder(self.folder / "server")
        store = Store(self.folder / "server" / STORE)
        return Server.of_job(self.job, self._federation.model, self._test, store)

    def _model(self) -> Held | None:
        """The global model, written down; None where only clients elsewhere can read it."""
        model, path = self._server.model(), self.folder / MODEL
        if model is not None:
            file = model_file(self._federation.model, self.plan.model_seed, model)
            write(path, file)
            return Held(path, file, model)
        return next(iter(self._parties.models(self._server.run, self._server.round_number)), None)

    def _twin(self) -> float | None:
        """What plain training on all rows in one place would give: possible here because one process holds them all."""
        from securefl import evaluation
        from securefl.pilots import Recipe

        data = self._parties.records()
        if self._test is None or not data:
            return None
        recipe = self._federation.twin or Recipe(self.job.mechanism, self.job.optimizer, self.job.rounds)
        return evaluation.centralised_accuracy(self._federation.model, self.plan.model_seed, data, self._test, recipe)

    def _survey(self, stated: Sequence[SignedStatement]) -> survey.Found | None:
        """What the last round asked, where it was one that asked; as clients stated it where only they can read it."""
        if not self.history or not self.plan.surveys(self.history[-1].round) or self.history[-1].void:
            return None
        vector, last = self._server.vector, self.history[-1]
        counts = surveyed.told(self.plan, stated) if vector is None else global_state.surveyed(self.plan, vector)
        return survey.found(self.plan, counts, len(last.contributors)) if counts else None

    def _accuracy(self, held: Held | None) -> float | None:
        """On the public test set; where only clients elsewhere can read the model, as they measured it last."""
        from securefl import evaluation

        if held is None:
            return self.history[-1].accuracy if self.history else None
        return evaluation.accuracy_of(self._federation.model, self.plan.model_seed, held.parameters, self._test)

    def _metrics(self, held: Held | None) -> dict[str, float]:
        """The same model's other figures; none where it can be read only by clients elsewhere."""
        from securefl import evaluation

        if held is None:
            return {}
        scale, seed = self._federation.scale, self.plan.model_seed
        size = 1.0 if scale is None else scale.size
        return evaluation.metrics_of(self._federation.model, seed, held.parameters, self._test, size)

    def _summary(self, stated: Sequence[SignedStatement]) -> Summary:
        held = self._model()
        if held is not None:
            save_adapters(self._federation.model, self.plan.model_seed, held.parameters, held.path.parent)
        hashes = Counter(one.statement.model for one in stated if one.statement.model != "unknown")
        if held is None and not hashes:
            raise NotARun("no client holds the model of the last round: securefl resume continues until one does")
        told = {one.statement.client: one.statement.epsilon_after for one in stated}
        spent = {name: value for name, value in told.items() if isinstance(value, float)} | self._parties.epsilon(
            self._server
        )
        per_client_round = len(self.plan.clients) * max(len(self.history), 1)
        engine = settings.read(self.folder)
        budget = None if settings.apart(engine) else self.job.budget
        return Summary(
            accuracy=self._accuracy(held),
            accuracy_centralised=self._twin(),
            epsilon=max(spent.values()) if spent else None,
            epsilon_by_client=spent,
            budget_epsilon=budget.epsilon if budget else None,
            delta=budget.delta if budget else None,
            rounds=min(self._server.round_number, self.plan.rounds),
            protection=self.plan.protection,
            dropouts_recovered=sum(len(record.recovered) for record in self.history),
            upload_bytes=sum(sum(record.upload_bytes.values()) for record in self.history) // per_client_round,
            download_bytes=sum(sum(record.download_bytes.values()) for record in self.history) // per_client_round,
            server_view=server_view(self.plan, self._server.round_number, facts.traffic(self.folder), engine),
            hazards=declared.of_run(self.job, engine),
            seconds=sum(record.seconds for record in self.history),
            run=str(self.folder),
            model="at the clients" if held is None else str(held.path),
            report=str(self.folder / "report.html"),
            id=self._server.run,
            model_sha256=hashes.most_common(1)[0][0] if held is None else hashlib.sha256(held.file).hexdigest(),
            survey=self._survey(stated),
            participation=participation(self.plan, self.history),
            metrics=self._metrics(held),
            metrics_unit="" if self._federation.scale is None else self._federation.scale.unit,
        )
