"""What an audit adds to a report: a lower bound on epsilon beside the claim, or that the claim does not hold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

from securefl.audit import result
from securefl.audit.result import Audit
from securefl.plan import Plan
from securefl.privacy.mechanism import Budget
from securefl.report.document import Audited
from securefl.report.statement import Epsilon


def summarised(audit: Audit) -> Audited:
    """The audit as the report has it. The whole of it, with every score, is beside the report."""
    headline, asked = audit.found.headline, audit.asked
    return Audited(
        client=audit.client,
        canaries=audit.scores.canaries,
        rounds=audit.scores.rounds,
        claim=epsilon(asked.claim),
        delta=asked.delta,
        method=headline.method,
        assumes=headline.assumes,
        confidence=asked.confidence,
        at_least=epsilon(headline.epsilon),
        bounds={bound.method: epsilon(bound.epsilon) for bound in audit.found.bounds},
        tests={check.name: check.p for check in audit.found.checks},
        refuted=audit.found.refuted,
        sha256=hashlib.sha256(result.encoded(audit)).hexdigest(),
    )


def contradictions(audit: Audit | None, plan: Plan, budget: Budget | None) -> Iterator[str]:
    """Why a run under this plan cannot claim what it does, by an audit of the same noise and protection."""
    if audit is None:
        return
    if not audit.about(plan, budget.delta if budget else None):
        yield "the audit is of another plan than this run's: its rounds, noise, training, protection or delta differ"
    yield from (f"the audit says: {line}" for line in audit.found.refuted)


def epsilon(value: float) -> Epsilon:
    """As reports write it: JSON has no number for infinity."""
    return value if math.isfinite(value) else "infinite"
