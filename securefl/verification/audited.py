"""An audit's bounds and tests against its own scores, and what was asked of them against the mechanism: computed anew.

Nothing here tells whether there were such scores: who makes up an audit makes them up, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from securefl.account import ATTEMPTS
from securefl.audit.assessment import Assessment
from securefl.audit.bounds.bound import CONFIDENCE
from securefl.audit.result import Audit
from securefl.errors import BadInput
from securefl.privacy import accountant
from securefl.privacy.mechanism import DPSGD

# Searches end, and distributions are summed up, a little apart in other versions of what computes them.
_ROUNDING: Final = 1e-3


def mismatches(audit: Audit | None) -> Iterator[str]:
    """A line for each bound or test that the scores do not give, and for a question that is not about the mechanism."""
    if audit is None:
        return
    try:
        again = audit.reassessed()
    except BadInput as error:
        yield f"audit: {error}"
        return
    yield from _other_questions(audit)
    yield from _other_answers(audit.found, again)
    yield from (f"audit: refutes the claim: {line}" for line in again.refuted)


def _other_questions(audit: Audit) -> Iterator[str]:
    """What was asked, against the mechanism, the charges and the rounds."""
    asked, mechanism, scores = audit.asked, audit.mechanism, audit.scores
    expected = 0.0, 0.0, 0
    if audit.level is not None:
        expected = audit.level.noise_multiplier, 1.0, 1
    elif isinstance(mechanism, DPSGD):
        length = math.hypot(*asked.declared.weights)
        expected = mechanism.noise_multiplier * length, mechanism.sampling_rate, mechanism.steps
    noise, *steps = expected
    if not _same(asked.declared.noise, noise) or steps != [asked.declared.rate, len(asked.declared.weights)]:
        yield "audit: what its scores are compared with is not the mechanism that it names"
    charged = max((rounds for rounds, _ in scores.charges.values()), default=0)
    comes_to = accountant.epsilon(audit.released * charged, asked.delta, audit.unit)
    if not _same(asked.claim, comes_to):
        yield f"audit: the claim is {asked.claim:.6g}, and what was charged comes to {comes_to:.6g}"
    if asked.confidence != CONFIDENCE:
        yield f"audit: its bounds are for a confidence of {asked.confidence:g}, not {CONFIDENCE:g}"
    for client, (rounds, contributed) in scores.charges.items():
        if contributed > scores.rounds or rounds > ATTEMPTS * scores.rounds:
            yield f"audit: {client} is said to have been charged {rounds} times in {scores.rounds} rounds"


def _other_answers(said: Assessment, found: Assessment) -> Iterator[str]:
    figures = {bound.method: bound.epsilon for bound in found.bounds} | {test.name: test.p for test in found.checks}
    written = {bound.method: bound.epsilon for bound in said.bounds} | {test.name: test.p for test in said.checks}
    figures |= {"headline": found.headline.epsilon, "bound that refutes": found.refuting.epsilon}
    written |= {"headline": said.headline.epsilon, "bound that refutes": said.refuting.epsilon}
    for name in figures.keys() & written.keys():
        if not _same(written[name], figures[name]):
            yield f"audit: {name} is {written[name]:.6g} and comes to {figures[name]:.6g}"
    if list(figures) != list(written) or said.headline.method != found.headline.method:
        yield "audit: has other bounds or tests than its scores allow"
    if said.violated != found.violated:
        yield f"audit: the claim is {'not ' * (not found.violated)}refuted by its scores, and it says otherwise"
    elif _words(said) != _words(found):
        yield "audit: what its bounds assume, its tests test or its findings say is not in the words of this program"


def _words(found: Assessment) -> str:
    """Everything but the figures, which rounding may change."""
    return re.sub(rb"[-+0-9.]+(e[-+]?[0-9]+)?", b"#", msgspec.json.encode(found)).decode()


def _same(one: float, other: float) -> bool:
    return one == other or abs(one - other) <= _ROUNDING * (1 + abs(other))
