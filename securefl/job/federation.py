"""What is trained on what: the clients, their data, the model and the public test set of a job, ready to call.

A pilot brings all of it. Otherwise ``package.module:function`` names code that is installed where the client runs; the
folder in which the command was started counts as installed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from securefl.data import Dataset
from securefl.errors import BadInput, BadJob, SecureFLError
from securefl.job.file import closest, remedy
from securefl.job.sections import Data

if TYPE_CHECKING:
    from torch import nn

    from securefl.pilots import Pilot, Recipe, Scale


@dataclass(frozen=True)
class Federation:
    """Everything a run calls.

    ``test`` is a test set that was declared public (None: the model is not evaluated). ``data_name`` names the data set
    in the ledgers. ``twin``: how the best non-private model on the pooled rows is trained, if that is known.
    ``held_out`` gives a client's records to measure with. ``scale``: of labels that are real numbers, if it is known.
    """

    clients: tuple[str, ...]
    load: Callable[[str], Dataset]
    test: Callable[[], Dataset] | None
    model: Callable[[], nn.Module]
    data_name: str
    twin: Recipe | None = None
    held_out: Callable[[str], Dataset] | None = None
    scale: Scale | None = None


def of_pilot(pilot: Pilot, clients: tuple[str, ...], factory: str | None) -> Federation:
    """A pilot's federation, over some or all of its clients, with its own model or another."""
    return Federation(
        clients=clients,
        load=pilot.load,
        test=pilot.test,
        model=pilot.model if factory is None else factory_of(factory),
        data_name=pilot.records,
        twin=pilot.public,
        held_out=pilot.held_out,
        scale=pilot.scale,
    )


def of_code(loader: str, test: str | None, factory: str, data: Data) -> Federation:
    """A federation over data of your own. Raises ``BadJob`` where the code that is named cannot be imported."""
    return Federation(
        clients=data.clients,
        load=loader_of(loader, data.sizes),
        test=None if test is None else test_of(test),
        model=factory_of(factory),
        data_name=data.name,
        held_out=None if data.held_out is None else loader_of(data.held_out, {}, "data.held_out"),
    )


def resolve(key: str, name: str) -> Callable[..., object]:
    """The function that ``package.module:function`` names. ``key`` is the job's key, for the error."""
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise BadJob(key, f"{name!r} is not of the form package.module:function", remedy(key))
    try:
        module = _imported(module_name)
    except Exception as error:  # the module's own code may fail in any way
        hint = f"Install the package, or start securefl in the folder that holds {module_name.partition('.')[0]}"
        raise BadJob(key, f"cannot import {module_name!r} ({type(error).__name__}: {error})", hint) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        functions = [other for other, value in vars(module).items() if callable(value) and not other.startswith("_")]
        raise BadJob(key, f"{module_name!r} has no function {attribute!r}", closest(attribute, functions))
    return found  # type: ignore[no-any-return]


def _imported(name: str) -> object:
    here = os.getcwd()
    if here not in sys.path:  # last, so that a file here never shadows an installed package
        sys.path.append(here)
    return importlib.import_module(name)


def loader_of(name: str, sizes: Mapping[str, int], key: str = "data.loader") -> Callable[[str], Dataset]:
    """What loads a client's records, which declare the sizes that are known. Raises ``BadJob`` as ``resolve`` does."""
    function = resolve(key, name)

    def load(client: str) -> Dataset:
        loaded = _dataset(f"{name}({client!r})", lambda: function(client))
        return replace(loaded, size=sizes[client]) if client in sizes else loaded

    return load


def test_of(name: str) -> Callable[[], Dataset]:
    """What loads a public test set. Raises ``BadJob`` as ``resolve`` does."""
    function = resolve("data.test", name)
    return lambda: _dataset(f"{name}()", function)


def factory_of(name: str, key: str = "model.factory") -> Callable[[], nn.Module]:
    """What makes fresh models. Raises ``BadJob`` as ``resolve`` does."""
    function = resolve(key, name)

    def factory() -> nn.Module:
        from torch import nn

        try:
            model = function()
        except Exception as error:  # a factory is someone else's code
            raise BadInput(f"{name}() failed with {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise BadInput(f"{name}() returned {type(model).__name__}: it must return a torch.nn.Module")
        return model

    return factory


def _dataset(call: str, function: Callable[[], object]) -> Dataset:
    try:
        result = function()
        return result if isinstance(result, Dataset) else _paired(call, result)
    except SecureFLError:
        raise
    except Exception as error:  # a loader is someone else's code
        raise BadInput(f"{call} failed with {type(error).__name__}: {error}") from error


def _paired(call: str, result: object) -> Dataset:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise BadInput(f"{call} returned {type(result).__name__}: return (features, labels) or securefl.data.Dataset")
    features, labels = np.asarray(result[0]), np.asarray(result[1])
    if not np.issubdtype(features.dtype, np.number):
        raise BadInput(f"{call} returned features of type {features.dtype}: turn every column into numbers")
    if not (np.issubdtype(labels.dtype, np.number) or labels.dtype == bool) or labels.ndim not in (1, 2):
        raise BadInput(
            f"{call} returned labels of type {labels.dtype} and shape {labels.shape}: "
            "return class numbers 0, 1, 2, ... as integers, or real numbers as floats, one row a record"
        )
    return Dataset(features.astype(np.float32), labels)
