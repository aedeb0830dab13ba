"""A report as a model card in Markdown (Mitchell et al., FAT* 2019, its sections in order)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from securefl.report import across, words
from securefl.report.document import Report

# What Markdown, or HTML in it, would take for markup inside a line; no foreign text begins one.
_MARKUP: Final = re.compile(r"([\\`*_\[\]<>|~])")


def markdown(report: Report) -> str:
    """The card. Text that a job file or a client chose is escaped."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# Model card: {_text(report.run.job)}"
    yield from _paragraph(f"**{report.status.word}**: {_text(' '.join(report.status.reasons))}")
    for title, lines in (
        ("Model details", _details(report)),
        ("Intended use", _use()),
        ("Factors", _factors(report)),
        ("Metrics", _metrics(report)),
        ("Evaluation data", [_text(f"Test set: {report.data.test}.")]),
        ("Training data", _data(report)),
        ("Privacy", _privacy(report)),
        ("Ethical considerations", _hazards(report)),
        ("Caveats", [f"Nobody can check from outside {words.CANNOT_PROVE[0]}, nor {words.CANNOT_PROVE[1]}."]),
    ):
        yield from (f"\n## {title}\n", *lines)


def _details(report: Report) -> Sequence[str]:
    run = report.run
    return [
        f"- {run.dimension:,} parameters, SHA-256 of the model `{run.model}`, of its architecture `{run.architecture}`",
        f"- trained by {len(run.clients)} clients in {run.rounds_done} of {run.rounds_planned} rounds, "
        f"protection `{report.aggregation.protection}`",
        f"- run {_text(run.id)}, plan `{run.plan}`, report of {_text(report.created)}",
        *(f"- {_text(words.mechanism(one))}" for one in report.training.mechanisms),
    ]


def _use() -> Sequence[str]:
    return ["Unknown: whoever publishes the model has to say what it is for, and what it is not for."]


def _factors(report: Report) -> Sequence[str]:
    groups = report.utility.by_group
    if isinstance(groups, str):
        return ["Accuracy by group: unknown, it was not measured. Noise and clipping cost small groups the most."]
    return [f"- {_text(group)}: accuracy {words.number(share)}" for group, share in groups.items()]


def _metrics(report: Report) -> Sequence[str]:
    return [
        f"- accuracy of the final model: {words.number(report.utility.accuracy)}",
        f"- of the same model trained on all records in one place, without privacy: "
        f"{words.number(report.utility.centralised)}",
        *([f"- on the same test set: {_text(words.metrics(report))}"] if report.utility.metrics else []),
        *([f"- {told}"] if (told := across.in_a_line(report)) else []),
    ]


def _data(report: Report) -> Sequence[str]:
    declared = "the owners declared that" if report.data.disjoint else "nobody declared that"
    return [
        _text(f"Data set: {report.data.name}, {report.data.source}; held by {', '.join(report.run.clients)}."),
        f"Records stayed with their owners; {declared} nobody's data is at two of them.",
    ]


def _privacy(report: Report) -> Iterator[str]:
    yield "| a unit in the data of | " + " | ".join(words.AUDIENCES.values()) + " | delta | spent in all runs |"
    yield "|---" * (len(words.AUDIENCES) + 3) + "|"
    for owner in report.owners:
        figures = [words.number(claim.epsilon) for claim in owner.claims]
        cells = [_text(owner.client), *figures, words.short(owner.claims[0].delta), words.number(owner.epsilon_after)]
        yield "| " + " | ".join(cells) + " |"
    unit = report.owners[0].claims[0].unit if report.owners else "unknown"
    yield from _paragraph(
        f"Upper bounds on epsilon that this run adds towards each audience. Unit: {words.UNITS[unit]}. "
        f"{_text(report.aggregation.visibility)}"
    )
    if not isinstance(report.audit, str):
        found = report.audit
        yield from _paragraph(
            f"A canary audit of the same mechanism says that epsilon is at least {words.number(found.at_least)} over "
            f"{found.rounds} rounds that claim {words.number(found.claim)}, at {100 * found.confidence:g} % confidence "
            f"({_text(found.method)})."
        )


def _hazards(report: Report) -> Sequence[str]:
    if isinstance(report.hazards, str):
        return ["Hazards: unknown, the run is not finished."]
    return [f"- {_text(one.text)}. {one.effect} Known from {one.source}." for one in report.hazards] or [
        "No hazards were declared."
    ]


def _paragraph(text: str) -> Iterator[str]:
    yield f"\n{text}"


def _text(text: str) -> str:
    """Foreign text on one line, with nothing in it that is markup."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
