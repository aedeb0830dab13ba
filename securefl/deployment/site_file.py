"""``site.toml``: what a site's owner decides, and the data and models that it names, ready to call.

Errors are ``BadJob``: key, problem, remedy. The server never sees this file, nor anything of what it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from msgspec import Meta, Struct

from securefl.deployment.files import read_small
from securefl.deployment.names import Hex32, require_name
from securefl.errors import BadInput, BadJob
from securefl.job import federation, file
from securefl.job.completion import known_pilot
from securefl.job.sections import Function
from securefl.plan import Plan
from securefl.policy import Policy
from securefl.privacy.mechanism import Budget, Positive, Unit

if TYPE_CHECKING:
    from torch import nn

    from securefl.data import Dataset
    from securefl.pilots import Pilot

FILE: Final = "site.toml"
_LARGEST: Final = 1 << 20  # bytes

_REMEDIES: Final = {
    "name": 'Write the name under which you were admitted, for example name = "hospital-1", at the top of the file',
    "data": 'Add a section [data] with name and loader, or with pilot = "breast-cancer" for a trial',
    "data.name": 'Name the data set in quotes, for example name = "diabetes-2024"; the privacy ledger is kept under it',
    "data.loader": 'Write loader = "package.module:function"; it is called with the site\'s name',
    "data.held_out": 'Write held_out = "package.module:function"; like the loader, with other records',
    "data.test": 'Write test = "package.module:function"; what it returns is declared public',
    "data.pilot": 'Name one pilot in quotes, for example pilot = "breast-cancer", or leave the key out',
    "model": 'Add a section [model] with factories = ["package.module:function"]',
    "model.factories": 'Write factories = ["package.module:function"]; each returns a fresh torch.nn.Module',
    "budget": "Write [budget] with epsilon and delta, or leave the section out for jobs without privacy only",
    "budget.epsilon": "Write the most that may ever be spent on this data: a number above 0, for example epsilon = 3.0",
    "budget.delta": "Write a number between 0 and 1, well below one over the number of records, for example 1e-5",
    "budget.unit": 'Write "record", "patient" (nobody has two records) or "client"',
    "policy": "See the comments in the file that securefl site init writes",
    "accept": 'Write [accept] with plans = ["..."] or rule = "policy"',
    "accept.plans": "List plans by their SHA-256, as securefl site plans prints them",
    "accept.rule": 'Write rule = "none" (each plan is approved by hand) or rule = "policy" (what the policy allows)',
    "simulation.seed": "Write a whole number of at least 0, or leave the section out: a seed protects nobody",
    "training.device": 'Write device = "cpu", or for example "cuda"',
}


class Data(Struct, frozen=True, forbid_unknown_fields=True):
    """``[data]``: functions of installed code, or a pilot's records for a trial. ``name`` is that of the ledger."""

    name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    loader: Function | None = None
    held_out: Function | None = None
    test: Function | None = None
    pilot: str | None = None


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """``[model]``: what may be trained here; a plan picks one by its architecture."""

    factories: tuple[Function, ...] = ()


class Allowance(Struct, frozen=True, forbid_unknown_fields=True):
    """``[budget]``: the most that is ever spent on the data, and whose presence that hides."""

    epsilon: Positive
    delta: Annotated[float, Meta(gt=0, lt=1)]
    unit: Unit = "record"


class Accept(Struct, frozen=True, forbid_unknown_fields=True):
    """``[accept]``: plans (by SHA-256) that need no approval by hand; ``policy``: nor does any that it allows."""

    plans: tuple[Hex32, ...] = ()
    rule: Literal["none", "policy"] = "none"


class Simulation(Struct, frozen=True, forbid_unknown_fields=True):
    """``[simulation]``: for trials, a seed of noise and samples, which then protect nobody."""

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """``[training]``: where it is computed, in torch's words."""

    device: Annotated[str, Meta(pattern=r"\A(cpu|cuda|mps|xpu)(:[0-9]{1,3})?\Z")] = "cpu"


class Sections(Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is written."""

    name: str
    data: Data
    model: Model = Model()
    budget: Allowance | None = None
    policy: Policy = Policy()
    accept: Accept = Accept()
    simulation: Simulation = Simulation()
    training: Training = Training()


@dataclass(frozen=True)
class SiteFile:
    """A checked ``site.toml``. What it names is imported when it is first asked for."""

    sections: Sections

    @property
    def name(self) -> str:
        return self.sections.name

    @property
    def data_name(self) -> str:
        """Under which the ledger of the data is kept."""
        return self.sections.data.name or str(self.sections.data.pilot)

    @property
    def policy(self) -> Policy:
        return self.sections.policy

    @property
    def budget(self) -> Budget | None:
        """What the owner allows in all; None: no job with privacy, and none that would spend any."""
        found = self.sections.budget
        return None if found is None else Budget(found.epsilon, found.delta)

    @property
    def unit(self) -> Unit:
        """Whose presence the budget hides."""
        return "record" if self.sections.budget is None else self.sections.budget.unit

    @property
    def seed(self) -> int | None:
        return self.sections.simulation.seed

    @property
    def device(self) -> str:
        return self.sections.training.device

    @property
    def accepts_all(self) -> bool:
        """Whether the owner said of all plans that the policy allows that they need no approval by hand."""
        return self.sections.accept.rule == "policy"

    def accepts(self, plan: Plan) -> bool:
        """Whether the owner said so of this very plan. It says nothing of whether the policy allows it."""
        return plan.digest().hex() in self.sections.accept.plans

    def load(self) -> Dataset:
        """The records to train on. Raises ``BadJob`` where the loader cannot be imported, ``BadInput`` if it fails."""
        if self._pilot is not None:
            return self._pilot.load(self.name)
        with _of_this_file():
            return federation.loader_of(str(self.sections.data.loader), {})(self.name)

    def held_out(self) -> Dataset | None:
        """Records to measure with that are not trained on; None where the owner has set none aside."""
        if self._pilot is not None:
            return None if self._pilot.held_out is None else self._pilot.held_out(self.name)
        named = self.sections.data.held_out
        with _of_this_file():
            return None if named is None else federation.loader_of(named, {}, "data.held_out")(self.name)

    def test(self) -> Dataset | None:
        """A test set that is declared public; None: the site measures no model."""
        if self._pilot is not None:
            return self._pilot.test()
        named = self.sections.data.test
        with _of_this_file():
            return None if named is None else federation.test_of(named)()

    def factories(self) -> list[Callable[[], nn.Module]]:
        """What makes the models that may be trained here, in the order of the file; a pilot's own where it names none.

        Raises ``BadJob`` for one that cannot be imported.
        """
        named = self.sections.model.factories
        if self._pilot is not None and not named:
            return [self._pilot.model]
        with _of_this_file():
            return [federation.factory_of(name, "model.factories") for name in named]

    @cached_property
    def _pilot(self) -> Pilot | None:
        named = self.sections.data.pilot
        return None if named is None else known_pilot(named)


def read(path: Path) -> SiteFile:
    """The checked file. Raises ``BadJob`` for a key that is wrong, ``BadInput`` for what is no text."""
    try:
        content = read_small(path, _LARGEST, "the site's file").decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not text in UTF-8 ({error.reason}): save it as such") from error
    return parse(content)


def parse(content: str) -> SiteFile:
    """The same for its text."""
    with _of_this_file():
        found = SiteFile(file.typed(file.parse(content), Sections))
        _check(found.sections)
    return found


def _check(sections: Sections) -> None:
    """What holds between keys."""
    require_name(sections.name)
    data = sections.data
    if sections.budget is not None:
        Budget(sections.budget.epsilon, sections.budget.delta)  # which refuses what no accountant can keep
    if data.pilot is not None:
        if data.loader or data.held_out or data.test:
            raise BadJob("data", "names a pilot and data of your own", "Leave out pilot, or loader, held_out and test")
        clients = known_pilot(data.pilot).clients
        if sections.name not in clients:
            problem = f"the pilot has no records for {sections.name!r}"
            raise BadJob("data.pilot", problem, f"A trial's sites are called {', '.join(clients)}")
    elif data.loader is None:
        raise BadJob("data.loader", "missing", file.remedy("data.loader"))
    elif data.name is None:
        raise BadJob("data.name", "missing", file.remedy("data.name"))
    elif not sections.model.factories:
        raise BadJob("model.factories", "missing", file.remedy("model.factories"))


@contextmanager
def _of_this_file() -> Iterator[None]:
    """Give an error this file's name, and its remedy in the place of a job file's."""
    try:
        yield
    except BadJob as error:
        key = error.key.removeprefix("job file")
        own, general = _remedy(key), file.remedy(error.key)
        remedy = error.remedy if own is None else error.remedy.replace(general, own)
        raise BadJob(f"{FILE}, {key}" if key else FILE, error.problem, remedy) from error
    except BadInput as error:  # of a value that refuses to be made
        raise BadInput(f"{FILE}: {error}") from error


def _remedy(key: str) -> str | None:
    key = re.sub(r"\[.*", "", key)
    while key and key not in _REMEDIES:
        key = key.rpartition(".")[0]
    return _REMEDIES.get(key)
