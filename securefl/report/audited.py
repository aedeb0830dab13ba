"""What an audit adds to a report: a lower bound on epsilon beside the claim, or that the claim does not hold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import msgspec

from securefl.audit.result import Audit
from securefl.plan import Plan
from securefl.report.document import Audited
from securefl.report.statement import Epsilon


def summarised(audit: Audit) -> Audited:
    """The audit as the report has it. The whole of it, with every score, is beside the report."""
    headline, asked = audit.found.headline, audit.asked
    return Audited(
        client=audit.client,
        canaries=audit.scores.canaries,
        rounds=audit.scores.rounds,
        claim=_epsilon(asked.claim),
        delta=asked.delta,
        method=headline.method,
        assumes=headline.assumes,
        confidence=asked.confidence,
        at_least=_epsilon(headline.epsilon),
        bounds={bound.method: _epsilon(bound.epsilon) for bound in audit.found.bounds},
        tests={check.name: check.p for check in audit.found.checks},
        refuted=audit.found.refuted,
        sha256=hashlib.sha256(msgspec.json.encode(audit)).hexdigest(),
    )


def contradictions(audit: Audit | None, plan: Plan) -> Iterator[str]:
    """Why a run under this plan cannot claim what it does, by an audit of the same noise and protection."""
    if audit is None:
        return
    if not audit.about(plan):
        yield "the audit is of another mechanism or protection than this run's"
    yield from (f"the audit says: {line}" for line in audit.found.refuted)


def _epsilon(value: float) -> Epsilon:
    return value if math.isfinite(value) else "infinite"
