"""An audit's bounds and tests against its own scores: computed anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from securefl.audit.result import Audit
from securefl.errors import BadInput

# Searches end, and distributions are summed up, a little apart in other versions of what computes them.
_ROUNDING: Final = 1e-3


def mismatches(audit: Audit | None) -> Iterator[str]:
    """A line for each bound or test that the scores do not give."""
    if audit is None:
        return
    try:
        again = audit.reassessed()
    except BadInput as error:
        yield f"audit: {error}"
        return
    said, found = audit.found, again
    figures = {
        bound.method: (bound.epsilon, other.epsilon) for bound, other in zip(said.bounds, found.bounds, strict=False)
    }
    figures |= {check.name: (check.p, other.p) for check, other in zip(said.checks, found.checks, strict=False)}
    figures["headline"] = said.headline.epsilon, found.headline.epsilon
    for name, (written, computed) in figures.items():
        if written != computed and not abs(written - computed) <= _ROUNDING * (1 + abs(computed)):
            yield f"audit: {name} is {written:.6g} and comes to {computed:.6g}"
    if [bound.method for bound in said.bounds] != [bound.method for bound in found.bounds]:
        yield "audit: has other bounds than its scores allow"
    if bool(said.refuted) != bool(found.refuted):
        yield f"audit: the claim is {'not ' * (not found.refuted)}refuted by its scores, and it says otherwise"
