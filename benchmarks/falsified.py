"""Finished run folders, falsified as cheats would: what ``securefl verify`` has to notice, by name.

All cheats have the folder with the ledgers in it, some a client's key, some the keys of all clients that go along.
Missing here is what no folder can show: that a client trained, sampled or noised otherwise than it charged; that it has
another ledger, which it showed to nobody; a stranger in the place of a client in everything (keys are printed, to be
compared with their owners'); a run that never was, signed by all; and what no client states and all sign nevertheless:
an accuracy, a contribution that is left out, a hazard that neither plan nor job implies, the model where the server
alone has it. Nothing is claimed of what the parties store, nor of the hashes in the transcript.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from benchmarks import forgery
from benchmarks.colluding import LAST, LITTLE, STRANGER, TOGETHER, impersonate
from benchmarks.forgery import Statements, first
from securefl import report as reports
from securefl.errors import SecureFLError
from securefl.plan import Plan
from securefl.records import RoundRecord
from securefl.report import words
from securefl.report.document import Report, Status
from securefl.report.endorsements import endorse
from securefl.report.statement import Head
from securefl.run_folder import MODEL, PLAN, TRANSCRIPT
from securefl.verification import verified

_ONE_PROCESS: Final = "single-process"


def missed(folder: Path) -> list[str]:
    """The falsifications of this run that are not noticed, by name.

    The run has differential privacy, at least two rounds and its ledgers inside. Raises ``ValueError`` for one that is
    not in order as it is.
    """
    if problems := verified(folder).problems:
        raise ValueError(f"{folder} is not in order to begin with: {'; '.join(problems)}")
    return [name for name in FALSIFICATIONS if not noticed(folder, name)]


def noticed(folder: Path, name: str) -> tuple[str, ...]:
    """What is found wrong, a line each, with a copy of the run that was falsified so."""
    with tempfile.TemporaryDirectory(prefix="securefl-falsified-") as place:
        copy = Path(shutil.copytree(folder, Path(place) / "run"))
        FALSIFICATIONS[name](copy)
        try:
            return verified(copy).problems
        except SecureFLError as error:
            return (str(error),)


# Without a key


def claims_lowered(folder: Path) -> None:
    """A client's claims, in the report."""

    def lower(report: Report) -> Report:
        owner, *others = report.owners
        claims = tuple(replace(claim, epsilon=LITTLE, cross_check=LITTLE) for claim in owner.claims)
        return replace(report, owners=(replace(owner, claims=claims), *others))

    forgery.report(folder, lower)


def hazard_removed(folder: Path) -> None:
    """The first one of the report's list."""
    forgery.report(folder, lambda report: replace(report, hazards=tuple(report.hazards[1:])))


def status_changed(folder: Path) -> None:
    """The one word, and why."""
    forgery.report(folder, lambda report: replace(report, status=Status("simulation", ("It was a trial.",))))


def noise_in_statement_raised(folder: Path) -> None:
    """In every charge that a client stated."""

    def raise_noise(found: Statements) -> Statements:
        own, *others = found
        charges = tuple(replace(one, releases=forgery.noisier(one.releases)) for one in own.statement.charges)
        return [replace(own, statement=replace(own.statement, charges=charges)), *others]

    forgery.statements(folder, raise_noise)


def statement_removed(folder: Path) -> None:
    """A client's, from the report too."""
    forgery.statements(folder, lambda found: found[1:])


def signatures_swapped(folder: Path) -> None:
    """Those of two clients under the report."""

    def swap(report: Report) -> Report:
        one, other, *rest = report.signatures
        pair = replace(one, signature=other.signature), replace(other, signature=one.signature)
        return replace(report, signatures=(*pair, *rest))

    forgery.report(folder, swap)


def signature_removed(folder: Path) -> None:
    """One client's under the report."""
    forgery.report(folder, lambda report: replace(report, signatures=report.signatures[1:]))


def statement_by_a_stranger(folder: Path) -> None:
    """A client's statement, and its signature under the report, under another key."""

    def sign_instead(report: Report) -> Report:
        return replace(report, signatures=(endorse(report, report.statements[0], STRANGER), *report.signatures[1:]))

    impersonate(folder)
    forgery.report(folder, sign_instead)


def model_replaced(folder: Path) -> None:
    """One bit of the server's copy or, where it has none, of one client's."""
    path = sorted(folder.rglob(MODEL))[-1]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def minimum_in_plan_lowered(folder: Path) -> None:
    """The fewest clients of a sum."""
    plan = msgspec.json.decode((folder / PLAN).read_bytes(), type=Plan)
    (folder / PLAN).write_bytes(replace(plan, minimum=plan.minimum - 1).encoded())


def budget_in_job_raised(folder: Path) -> None:
    """The cap on each client's records."""
    forgery.job(folder, lambda job: replace(job, privacy=replace(job.privacy, epsilon=1000.0)))


def steps_in_job_doubled(folder: Path) -> None:
    """Of local training."""
    forgery.job(folder, lambda job: replace(job, training=replace(job.training, steps=2 * job.steps, epochs=None)))


def accuracy_raised(folder: Path) -> None:
    """Of the last round, in the history."""
    forgery.history(folder, lambda rounds: [*rounds[:-1], replace(rounds[-1], accuracy=0.999)])


def contributor_removed(folder: Path) -> None:
    """From the last round, in the history."""

    def without(record: RoundRecord) -> RoundRecord:
        return replace(record, contributors=record.contributors[1:])

    forgery.history(folder, lambda rounds: [*rounds[:-1], without(rounds[-1])])


def history_emptied(folder: Path) -> None:
    """No rounds, so that nobody contributed who would have to sign the report, which is put together anew."""
    forgery.history(folder, lambda rounds: [])
    forgery.summary(folder, lambda summary: replace(summary, rounds=0, dropouts_recovered=0, seconds=0.0))
    forgery.assemble_again(folder, signers=())


def rounds_emptied(folder: Path) -> None:
    """Rounds that nobody contributed to, for the same reason."""
    forgery.history(folder, lambda rounds: [replace(record, contributors=()) for record in rounds])
    forgery.assemble_again(folder, signers=())


def page_changed(folder: Path) -> None:
    """The epsilon that was spent, wherever the page names it."""
    spent = [one.epsilon_after for one in reports.read(folder).owners if isinstance(one.epsilon_after, float)]
    forgery.text(folder / reports.HTML, words.number(max(spent), 2), words.number(LITTLE, 2))


def plot_changed(folder: Path) -> None:
    """The epsilon that was spent, in the plot alone."""
    path = folder / reports.HTML
    before, opening, plot = path.read_text(encoding="utf-8").partition('aria-label="Epsilon')
    spent = plot.partition("ending at ")[2].partition('"')[0]
    path.write_text(before + opening + plot.replace(spent, f"{LITTLE}"), encoding="utf-8")


def plot_moved(folder: Path) -> None:
    """A plot, over what the page says above it."""
    forgery.text(folder / reports.HTML, '<g id="epsilon-figure_1">', '<g id="epsilon-figure_1" transform="scale(9)">')


def hazard_in_summary_removed(folder: Path) -> None:
    """The one that everything ran in one process, from what the server says of the run."""
    forgery.summary(
        folder, lambda found: replace(found, hazards=tuple(one for one in found.hazards if one.kind != _ONE_PROCESS))
    )


def view_in_summary_shrunk(folder: Path) -> None:
    """What the server got, in the summary, to nothing."""
    forgery.summary(folder, lambda found: replace(found, server_view=replace(found.server_view, updates_received=0)))


def summary_lowered(folder: Path) -> None:
    """Every epsilon in it."""
    forgery.summary(
        folder,
        lambda found: replace(found, epsilon=LITTLE, epsilon_by_client=dict.fromkeys(found.epsilon_by_client, LITTLE)),
    )


def uploads_in_summary_halved(folder: Path) -> None:
    """The bytes that a client is said to send."""
    forgery.summary(folder, lambda found: replace(found, upload_bytes=found.upload_bytes // 2))


def transcript_truncated(folder: Path) -> None:
    """By its last three messages."""
    path = folder / TRANSCRIPT
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))


def ledger_truncated(folder: Path) -> None:
    """By its last entry; it is consistent in itself."""
    forgery.edit_ledger(folder, first(folder).client, LAST)


def ledger_edited(folder: Path) -> None:
    """Another noise multiplier in its first entry."""
    put = "UPDATE entry SET content = CAST(REPLACE(CAST(content AS TEXT), ?, ?) AS BLOB) WHERE sequence = 1"
    field = '"noise_multiplier":'
    forgery.edit_ledger(folder, first(folder).client, put, field, f"{field}9")


# With one client's key, or a backup of its ledger


def ledger_set_back(folder: Path) -> None:
    """To what it was before the run."""
    said = first(folder)
    before = said.before.sequence if isinstance(said.before, Head) else 0
    forgery.edit_ledger(folder, said.client, "DELETE FROM entry WHERE sequence > ?", before)


def ledger_made_anew(folder: Path) -> None:
    """By its owner, with twice the noise."""
    said = first(folder)
    forgery.new_ledger(folder, said, [replace(one, releases=forgery.noisier(one.releases)) for one in said.charges])


FALSIFICATIONS: Final[dict[str, Callable[[Path], None]]] = {
    falsify.__name__.replace("_", " "): falsify
    for falsify in (
        *(claims_lowered, hazard_removed, status_changed, noise_in_statement_raised, statement_removed),
        *(signatures_swapped, signature_removed, statement_by_a_stranger, model_replaced, minimum_in_plan_lowered),
        *(budget_in_job_raised, steps_in_job_doubled, accuracy_raised, contributor_removed, history_emptied),
        *(rounds_emptied, page_changed, plot_changed, plot_moved, summary_lowered, uploads_in_summary_halved),
        *(hazard_in_summary_removed, view_in_summary_shrunk),
        *(transcript_truncated, ledger_truncated, ledger_edited, ledger_set_back, ledger_made_anew),
        *TOGETHER,
    )
}
