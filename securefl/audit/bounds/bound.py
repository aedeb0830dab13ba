"""What a method found: a lower bound on epsilon, or an estimate of it, with what it rests on."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from securefl.errors import BadInput

CONFIDENCE = 0.99
"""Of every bound, unless asked otherwise."""


class Bound(Struct, frozen=True):
    """``epsilon`` at ``delta``, add-or-remove-one canary; 0.0 where nothing was shown.

    Guarantee of the kind "bound": where what it ``assumes`` holds, epsilon is smaller than this with a probability of
    at most 1 - ``confidence``, over coins and noise. That is for one bound whose method and settings were chosen before
    its scores were seen; of several see ``headline``. The kind "estimate" promises nothing and has no confidence.
    """

    method: str
    epsilon: float
    delta: float
    confidence: float | None
    assumes: str
    kind: Literal["bound", "estimate"]
    source: str

    def __str__(self) -> str:
        if self.confidence is None:
            return (
                f"{self.method}: epsilon about {self.epsilon:.3f} at delta {self.delta:g}, an estimate ({self.source})"
            )
        sure = f"{100 * self.confidence:.10g} % confidence"
        return (
            f"{self.method}: epsilon at least {self.epsilon:.3f} at delta {self.delta:g} with {sure}, "
            f"if {self.assumes} ({self.source})"
        )

    def refutes(self, claim: float) -> bool:
        """Whether an epsilon of ``claim``, at the same delta, cannot hold. An estimate refutes nothing."""
        return self.kind == "bound" and self.epsilon > claim


def checked_delta(delta: float) -> float:
    """``delta``, if it is between 0 and 1. Raises ``BadInput`` otherwise."""
    if not 0 < delta < 1:
        raise BadInput(f"delta is {delta}: it must lie between 0 and 1, and be that of the claim")
    return delta


def level(confidence: float) -> float:
    """The probability of error that ``confidence`` allows. Raises ``BadInput`` unless it is from 0.5 and below 1."""
    if not 0.5 <= confidence < 1:
        raise BadInput(f"confidence is {confidence}: it must be at least 0.5 and below 1, such as 0.99")
    return 1 - confidence
