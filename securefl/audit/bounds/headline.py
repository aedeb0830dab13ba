"""Which of several bounds counts. To take the largest one unannounced is to err more often than it says."""

from __future__ import annotations

from collections.abc import Sequence

from securefl.audit.bounds.bound import CONFIDENCE, Bound, level
from securefl.errors import BadInput


def named(bounds: Sequence[Bound], method: str, confidence: float = CONFIDENCE) -> Bound:
    """The bound of the ``method`` that was named before the run.

    Guarantee: its own. Raises ``BadInput`` if it is not there once, is an estimate, or is less sure than that.
    """
    found = [bound for bound in bounds if bound.method == method]
    if len(found) != 1:
        raise BadInput(f"{len(found)} bounds are of the method {method!r}: compute one, and name it before the run")
    if found[0].confidence is None:
        raise BadInput(f"{method} is an estimate: name a bound as the headline")
    _require(1 - found[0].confidence, confidence)
    return found[0]


def split(count: int, confidence: float = CONFIDENCE) -> float:
    """The confidence for each of ``count`` bounds, so that the ``largest`` holds with ``confidence`` (Bonferroni)."""
    if count < 1:
        raise BadInput(f"{count} bounds share no confidence: compute at least one")
    return 1 - level(confidence) / count


def largest(bounds: Sequence[Bound], confidence: float = CONFIDENCE) -> Bound:
    """The largest of all ``bounds``, estimates left out.

    Guarantee: with ``confidence`` none of them is above epsilon, where what each assumes holds. Raises ``BadInput`` if
    there is none, or if their levels add up to more: compute each with the confidence that ``split`` says.
    """
    proven = [bound for bound in bounds if bound.confidence is not None]
    if not proven:
        raise BadInput("there is no bound among these: an estimate is no headline")
    _require(sum(1 - bound.confidence for bound in proven if bound.confidence is not None), confidence)
    return max(proven, key=lambda bound: bound.epsilon)


# Levels that were split and are added up again differ by rounding only.
_ROUNDING = 1e-12


def _require(spent: float, confidence: float) -> None:
    if spent > level(confidence) + _ROUNDING:
        raise BadInput(
            f"together these bounds err with a probability of up to {spent:.4g}, more than a confidence of "
            f"{confidence:g} allows: split the levels before the run"
        )
