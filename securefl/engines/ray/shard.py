"""What runs in an actor: some of a run's clients, in the embedded engine, in memory between exchanges."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from securefl.client import Client
from securefl.engines.local import Corruption, Silence
from securefl.errors import BadInput, SecureFLError
from securefl.global_state import Measured
from securefl.parties import Carried, Held
from securefl.plan import Plan
from securefl.together import Together

Recipe = Callable[[Sequence[str]], Sequence[Client]]
"""Makes the clients of these names, in the actor. It travels there as Ray's pickle, with all that it holds."""

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Failed:
    """An error on its way out of an actor: Ray would wrap it into one of its own, and lose what some of ours hold."""

    kind: type[Exception]
    message: str
    fields: Mapping[str, object]
    notes: str

    def error(self) -> Exception:
        """The error again."""
        found = self.kind.__new__(self.kind, self.message)
        vars(found).update(self.fields)
        found.add_note(self.notes)
        return found


def raised(answer: T | Failed) -> T:
    """The answer; or the error is raised again."""
    if isinstance(answer, Failed):
        raise answer.error()
    return answer


def _failed(error: Exception) -> Failed:
    where = f"in an actor:\n{traceback.format_exc()}"
    if isinstance(error, SecureFLError):
        return Failed(type(error), str(error), {k: v for k, v in vars(error).items() if k != "__notes__"}, where)
    return Failed(RuntimeError, f"{type(error).__name__}: {error}", {}, where)


def _told(work: Callable[Concatenate[Shard, P], T]) -> Callable[Concatenate[Shard, P], T | Failed]:
    """The same, with an error in place of the answer."""

    @wraps(work)
    def told(self: Shard, /, *arguments: P.args, **named: P.kwargs) -> T | Failed:
        try:
            return work(self, *arguments, **named)
        except Exception as error:  # also of a recipe, which is someone else's code
            return _failed(error)

    return told


class Shard:
    """One actor's clients; none before ``open``."""

    def __init__(self) -> None:
        self._together = Together(())

    @_told
    def open(
        self, recipe: Recipe, names: Sequence[str], faults: Sequence[Silence | Corruption], folder: Path | None
    ) -> dict[str, bytes]:
        """Make the clients; their public keys."""
        together = Together(recipe(names), faults, folder)
        if (made := sorted(client.name for client in together.clients)) != sorted(names):
            raise BadInput(f"the recipe made {', '.join(made) or 'nobody'} where {', '.join(names)} were asked for")
        self._together = together
        return together.roster

    @_told
    def pin(self, names: Sequence[str], roster: Mapping[str, bytes], plan: Plan, rounds: int) -> None:
        for client in self._together.clients:
            if client.name in names:
                client.pin(roster, plan, rounds)

    def keys(self) -> dict[str, bytes]:
        """The clients' public keys; nobody's where ``open`` failed."""
        return self._together.roster

    @_told
    def answer(self, round: int, name: str, request: bytes) -> bytes | None:
        """One client's reply; None where it is silent on purpose."""
        return next((reply for _, reply in self._together.exchange(round)({name: request})), None)

    @_told
    def epsilon(self) -> dict[str, float]:
        spent = {client.name: client.epsilon() for client in self._together.clients}
        return {name: value for name, value in spent.items() if value is not None}

    @_told
    def measured(self, run: str, round: int) -> Measured | None:
        return self._together.measured(run, round)

    @_told
    @_told
    def refuse(self, plan: Plan, lost: Mapping[str, str]) -> None:
        self._together.refuse(plan, lost)

    @_told
    def carried_over(self, run: str, plan: Plan) -> dict[str, Carried]:
        return self._together.carried_over(run, plan)

    @_told
    def models(self, run: str, round: int) -> Sequence[Held]:
        return self._together.models(run, round)
