"""What a cheat can do to a finished run folder with its ledgers inside: edit its files, sign with the keys in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec.structs import replace

from protocols.primitives import Identity
from securefl import job as jobs
from securefl import report as reports
from securefl.account import load_identity
from securefl.job import Job, file
from securefl.privacy import accountant
from securefl.privacy.ledger import Ledger, read
from securefl.privacy.mechanism import Budget, NoisedSum, Release
from securefl.records import RoundRecord, Summary
from securefl.report.canonical import many
from securefl.report.document import Report
from securefl.report.endorsements import endorse
from securefl.report.statement import Charge, Head, SignedStatement, Statement, sign
from securefl.run_folder import HISTORY, JOB, STATEMENTS, SUMMARY, lines
from securefl.store import Store

Statements = Sequence[SignedStatement]


def first(folder: Path) -> Statement:
    """What the first client states: it is the one that lies, or is lied about."""
    return reports.read(folder).statements[0].statement


def text(path: Path, before: str, after: str) -> None:
    """Put ``after`` for every ``before``. Raises ``ValueError`` where there is none."""
    found = path.read_text(encoding="utf-8")
    if before not in found:
        raise ValueError(f"{path} does not say {before!r}")
    path.write_text(found.replace(before, after), encoding="utf-8")


def report(folder: Path, change: Callable[[Report], Report]) -> None:
    """Change the report, and the page with it."""
    reports.write(folder, change(reports.read(folder)))
    reports.render(folder)


def statements(folder: Path, change: Callable[[Statements], Statements]) -> None:
    """Change statements, in their file and in the report; nobody signs that."""
    found = tuple(change(reports.read(folder).statements))
    (folder / STATEMENTS).write_bytes(many(found))
    report(folder, lambda made: replace(made, statements=found))


def history(folder: Path, change: Callable[[list[RoundRecord]], list[RoundRecord]]) -> None:
    """Change the server's record of the rounds."""
    changed = change(lines(folder / HISTORY, RoundRecord))
    (folder / HISTORY).write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in changed))


def summary(folder: Path, change: Callable[[Summary], Summary]) -> None:
    """Change the summary."""
    found = msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
    (folder / SUMMARY).write_bytes(msgspec.json.encode(change(found)))


def job(folder: Path, change: Callable[[Job], Job]) -> None:
    """Change the job file."""
    found = jobs.checked(file.parse((folder / JOB).read_text(encoding="utf-8")))
    (folder / JOB).write_text(change(found).to_toml(), encoding="utf-8")


def ledger_path(folder: Path, client: str) -> Path:
    """The file of a client's ledger."""
    return jobs.load(folder / JOB).ledger_folder(folder) / f"{client}.sqlite"


def edit_ledger(folder: Path, client: str, statement: str, *values: object) -> None:
    """What a database tool does to a ledger, once the triggers are dropped; they are put back."""
    with closing(sqlite3.connect(ledger_path(folder, client))) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        if connection.execute(statement, values).rowcount < 1:
            raise ValueError(f"nothing in the ledger of {client} was changed by: {statement}")
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()


def new_ledger(folder: Path, said: Statement, charges: Sequence[Charge]) -> None:
    """Another ledger of the same owner, under its key, that holds these charges alone."""
    path = ledger_path(folder, said.client)
    owner, key = read(path).header.owner, identity(folder, said.client)
    path.unlink()
    with closing(Ledger(path, key, owner, said.budget if isinstance(said.budget, Budget) else None)) as made:
        for one in charges:
            fingerprint = bytes.fromhex(said.fingerprints[0])
            made.charge(said.run, one.round, one.attempt, one.releases, fingerprint, simulated=said.simulated)


def noisier(releases: Sequence[Release]) -> tuple[Release, ...]:
    """The same releases with twice the noise; a sum of metrics as it is."""
    return tuple(
        one if isinstance(one, NoisedSum) else replace(one, noise_multiplier=2 * one.noise_multiplier)
        for one in releases
    )


def restated(folder: Path, said: Statement, charges: Sequence[Charge]) -> Statement:
    """What a client would state if these were its charges: with its ledger's heads and epsilon as they are now."""
    chain, budget = read(ledger_path(folder, said.client)), said.budget
    own = [entry for entry in chain.entries if entry.run == said.run]
    epsilon = said.epsilon_after
    if isinstance(budget, Budget):
        epsilon = accountant.epsilon(chain.releases, budget.delta, said.unit)
    return replace(
        said,
        ledger=chain.id.hex(),
        before=Head(own[0].sequence - 1, own[0].previous.hex()),
        after=Head(own[-1].sequence, own[-1].digest.hex()),
        charges=tuple(charges),
        epsilon_after=epsilon,
    )


def sign_again(folder: Path, said: Statement) -> None:
    """A client signs another statement, and all clients the report that holds it."""
    own = sign(said, identity(folder, said.client))

    def exchanged(found: Statements) -> Statements:
        return [own if one.statement.client == said.client else one for one in found]

    statements(folder, exchanged)
    assemble_again(folder, reports.read(folder).run.clients)


def assemble_again(folder: Path, signers: Collection[str], keys: Mapping[str, Identity] | None = None) -> None:
    """The report that the folder now gives, under the word that it had, signed by those of ``signers`` who have a
    statement in it. ``keys``: what some of them sign with, if not their own.
    """
    status, made = reports.read(folder).status, reports.assembled(folder)
    if made.status.word != status.word:
        made = replace(made, status=status)
    keys = {name: identity(folder, name) for name in signers} | dict(keys or {})
    own = [one for one in made.statements if one.statement.client in keys]
    signatures = tuple(endorse(made, one, keys[one.statement.client]) for one in own)
    reports.write(folder, replace(made, signatures=signatures))
    reports.render(folder)


def identity(folder: Path, client: str) -> Identity:
    """A client's key, which lies beside its ledger."""
    path = ledger_path(folder, client)
    with closing(Store(path.with_name(f"{client}.keep.sqlite"))) as store:
        return load_identity(store)
