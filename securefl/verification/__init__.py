"""An auditor's check of a run folder, offline: who said what, whether it adds up, and what cannot be seen that way.

Trusts nobody who took part: signatures are checked, epsilons recomputed by two accountants from what clients signed,
and the whole report is assembled anew and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from protocols.errors import Forged
from securefl import settings
from securefl.errors import NotARun
from securefl.protection import KINDS
from securefl.report import JSON, contradictions, facts, page, words
from securefl.report.assembly import assemble
from securefl.report.canonical import canonical, read
from securefl.report.document import Report
from securefl.report.endorsements import check_endorsement
from securefl.report.facts import Facts
from securefl.report.statement import opened
from securefl.run_folder import MODEL, PLAN
from securefl.verification import audited, ledgers, record, rendered

# Accountants of two installations add up in another order; no claim turns on so little.
_ROUNDING: Final = 1e-6


class Verdict(Struct, frozen=True):
    """What was found. ``problems``: a line for each mismatch, empty where all agrees; ``unchecked``: what was not there
    to be checked. ``keys``: by client, the key that its statement is signed with.
    """

    run: str
    status: str
    problems: tuple[str, ...]
    unchecked: tuple[str, ...]
    keys: dict[str, str]
    proves: tuple[str, ...] = words.PROVES
    cannot_prove: tuple[str, ...] = words.CANNOT_PROVE


@dataclass(frozen=True)
class _Case:
    """Everything that is compared. ``ledgers``: the folder with the clients' ledgers."""

    folder: Path
    report: Report
    facts: Facts
    ledgers: Path

    @cached_property
    def page(self) -> str:
        """The page that the report gives."""
        return page.html(self.report)

    def ledger(self, client: str) -> Path:
        return self.ledgers / f"{client}.sqlite"


def verified(folder: Path, ledgers: Path | None = None) -> Verdict:
    """Check the run in ``folder``; ``ledgers``: where its clients' ledgers lie, if not where its job file says.

    Only reads. Raises ``NotARun`` for a folder that has no report or is damaged.
    """
    path = folder / JSON
    try:
        report = read(path.read_bytes(), Report, str(path))
    except OSError as error:
        raise NotARun(f"{folder} has no {JSON} that can be read ({error.strerror}): finish the run first") from error
    found = _facts(folder)
    case = _Case(folder, report, found, ledgers or found.job.ledger_folder(folder))
    problems = [line for check in _CHECKS for line in _lines(check, case)]
    unchecked = [*_absent(case), *_model_elsewhere(case), *_lines(_undrawn, case)]
    keys = {signed.statement.client: signed.key for signed in report.statements}
    return Verdict(report.run.id, report.status.word, tuple(dict.fromkeys(problems)), tuple(unchecked), keys)


def _facts(folder: Path) -> Facts:
    try:
        return facts.read(folder)
    except (UnicodeDecodeError, RecursionError) as error:
        raise NotARun(f"{folder} is damaged: {error}") from error


def _lines(check: Callable[[_Case], Iterator[str]], case: _Case) -> Iterator[str]:
    """What a check finds. Whatever can be written into a file can also make a formula fail: then it does not hold."""
    try:
        yield from check(case)
    except Exception as error:
        yield f"{check.__name__.strip('_')}: cannot be checked ({type(error).__name__}: {error})"


def lines(verdict: Verdict) -> Iterator[str]:
    """What a person reads: mismatches first, then what holds, what was not checked and what cannot be."""
    yield from (f"MISMATCH  {problem}" for problem in verdict.problems)
    if not verdict.problems:
        yield from (f"proves    {claim}" for claim in verdict.proves)
        yield from (
            f"key       {client} {key} (compare with its owner's)" for client, key in sorted(verdict.keys.items())
        )
    yield from (f"skipped   {missing}" for missing in verdict.unchecked)
    yield from (f"unproven  {limit}" for limit in verdict.cannot_prove)
    yield f"status    {verdict.status}, as the report of run {verdict.run} says"


def _plan(case: _Case) -> Iterator[str]:
    if case.facts.plan.digest().hex() != case.report.run.plan:
        yield f"{PLAN}: not the plan that the report names"
    if hashlib.sha256((case.folder / PLAN).read_bytes()).hexdigest() != case.report.run.plan:
        yield f"{PLAN}: not as it was written"


def _model(case: _Case) -> Iterator[str]:
    files = [case.folder / MODEL, *(case.folder / "clients" / name / MODEL for name in case.report.run.clients)]
    there = [file for file in files if file.exists()]
    if not there and not _elsewhere(case):
        yield f"{MODEL}: there is no model"
    for file in there:
        if hashlib.sha256(file.read_bytes()).hexdigest() != case.report.run.model:
            yield f"{file.relative_to(case.folder)}: not the model that the report names"


def _elsewhere(case: _Case) -> bool:
    """Whether only clients can read the model, and they are at sites of their own."""
    return settings.apart(case.facts.engine) and KINDS[case.facts.plan.protection].sealed


def _model_elsewhere(case: _Case) -> Iterator[str]:
    if _elsewhere(case):
        yield f"the model is at the sites: compare its SHA-256 there with {case.report.run.model}"


def _statements(case: _Case) -> Iterator[str]:
    for signed in case.report.statements:
        try:
            opened(signed)
        except Forged as error:
            yield f"statement of {signed.statement.client}: {error}"
    stated = {signed.statement.client for signed in case.report.statements}
    for client in _contributors(case.facts):
        if client not in stated:
            yield f"{client} contributed, and there is no statement of it"


def _signatures(case: _Case) -> Iterator[str]:
    keys = {signed.statement.client: signed.key for signed in case.report.statements}
    for endorsement in case.report.signatures:
        try:
            check_endorsement(case.report, endorsement)
        except Forged as error:
            yield f"signature of {endorsement.client} under the report: {error}"
        if keys.get(endorsement.client) != endorsement.key:
            yield f"signature of {endorsement.client} under the report: not by the key of its statement"
    signers = {endorsement.client for endorsement in case.report.signatures}
    for client in _contributors(case.facts):
        if client not in signers:
            yield f"{client} contributed and did not sign the report"


def _contributors(found: Facts) -> list[str]:
    return sorted({client for record in found.history for client in record.contributors})


def _contradictions(case: _Case) -> Iterator[str]:
    yield from contradictions.found(case.facts)


def _reassembled(case: _Case) -> Iterator[str]:
    """Every field of the report against one that is made now, from the folder, with epsilons computed here."""
    again = assemble(case.facts, case.report.software, case.report.created)
    # Figures may differ by rounding between versions of the accountant: the one that is installed here is no mismatch.
    accounting = msgspec.structs.replace(again.accounting, version=case.report.accounting.version)
    again = msgspec.structs.replace(again, signatures=case.report.signatures, accounting=accounting)
    yield from (f"report: {line}" for line in _differences(_tree(case.report), _tree(again), ""))


def _tree(report: Report) -> object:
    return msgspec.json.decode(canonical(report))


def _differences(said: object, found: object, place: str) -> Iterator[str]:
    """Where two JSON trees differ by more than rounding, with both values."""
    if isinstance(said, dict) and isinstance(found, dict):
        for name in sorted({*said, *found}):
            yield from _differences(said.get(name), found.get(name), f"{place}.{name}".lstrip("."))
    elif isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
        for index, (left, right) in enumerate(zip(said, found, strict=True)):
            yield from _differences(left, right, f"{place}[{index}]")
    elif isinstance(said, int | float) and isinstance(found, int | float) and not isinstance(said, bool):
        whole = isinstance(said, int) and isinstance(found, int)
        if said != found if whole else abs(said - found) > _ROUNDING * abs(said):
            yield f"{place} is {said:.6g} and comes to {found:.6g}"
    elif said != found:
        yield f"{place} is {_short(said)} and comes to {_short(found)}"


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 100 else f"{text[:100]}..."


def _record(case: _Case) -> Iterator[str]:
    yield from record.mismatches(case.facts)


def _audit(case: _Case) -> Iterator[str]:
    yield from audited.mismatches(case.facts.audit)


def _page(case: _Case) -> Iterator[str]:
    yield from rendered.mismatches(case.folder, case.page)


def _undrawn(case: _Case) -> Iterator[str]:
    yield from rendered.unchecked(case.folder, case.page)


def _absent(case: _Case) -> Iterator[str]:
    """Ledgers that should be somewhere, and are not where they were looked for."""
    kept = [owner.client for owner in case.report.owners if owner.budget != "none"]
    missing = [client for client in kept if not case.ledger(client).exists()]
    yield from (f"the ledger of {client} is not at {case.ledger(client)}" for client in missing)


def _ledgers(case: _Case) -> Iterator[str]:
    for signed in case.report.statements:
        path = case.ledger(signed.statement.client)
        if path.exists() and signed.statement.budget != "none":
            yield from ledgers.mismatches(path, signed, case.report)


_CHECKS: Final = (
    _statements,
    _signatures,
    _plan,
    _model,
    _contradictions,
    _ledgers,
    _record,
    _audit,
    _reassembled,
    _page,
)
