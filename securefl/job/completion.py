"""What a job file leaves out, filled in: a pilot's recommendations, names for the data and for its ledger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from securefl.errors import BadJob
from securefl.job.file import Table, closest, remedy
from securefl.privacy.mechanism import DPSGD

if TYPE_CHECKING:
    from securefl.pilots import Pilot


def completed(tables: Mapping[str, object]) -> Table:
    """The tables with a pilot's recommendations, and a name and a ledger for the data, where they say nothing."""
    pilot, loader = (_section(tables, "data").get(key) for key in ("pilot", "loader"))
    if isinstance(pilot, str):
        tables = _merged(_recommended(known_pilot(pilot), tables), tables)
    elif isinstance(loader, str):
        tables = _merged({"data": {"name": loader}}, tables)
    elif pilot is None and loader is None and isinstance(tables.get("data"), dict):
        raise BadJob("data", "names neither a pilot nor a loader", remedy("data"))
    name = slug(str(_section(tables, "data").get("name")))
    return _merged({"privacy": {"ledger": f"ledgers/{name}"}}, tables)


def _merged(defaults: Mapping[str, Table], given: Mapping[str, object]) -> Table:
    """Section by section, what is given before what is default; a wrong type is left for ``typed`` to report."""
    merged = dict(given)
    for name, section in defaults.items():
        if isinstance(given.get(name, {}), dict):
            merged[name] = section | _section(given, name)
    return merged


def _section(tables: Mapping[str, object], name: str) -> Table:
    value = tables.get(name)
    return value if isinstance(value, dict) else {}


def known_pilot(name: str) -> Pilot:
    """The pilot of that name; ``BadJob`` lists the known ones."""
    from securefl import pilots

    if name not in pilots.names():
        raise BadJob("data.pilot", f"unknown pilot {name!r}", closest(name, pilots.names()))
    return pilots.pilot(name)


def _recommended(pilot: Pilot, given: Mapping[str, object]) -> dict[str, Table]:
    private = _section(given, "privacy").get("enabled") is not False
    named = _section(given, "data").get("clients")
    clients = named if isinstance(named, list) else pilot.clients
    recipe = pilot.private if private else pilot.public
    mechanism, optimizer = recipe.mechanism, recipe.optimizer
    privacy: Table = {}
    asked = _section(given, "privacy")
    if isinstance(mechanism, DPSGD):
        privacy = {"clip": mechanism.clip, "epsilon": pilot.budget.epsilon, "delta": pilot.budget.delta}
        if "target_epsilon" not in asked and asked.get("unit") != "client":  # else the noise is solved for
            privacy["noise_multiplier"] = mechanism.noise_multiplier
    training: Table = {"sampling_rate": mechanism.sampling_rate}
    if "epochs" not in _section(given, "training"):
        training["steps"] = mechanism.steps
    training |= {"learning_rate": optimizer.learning_rate, "momentum": optimizer.momentum}
    weights: Table = {
        name: weight for name, weight in zip(pilot.clients, pilot.weights, strict=True) if name in clients
    }
    return {
        "job": {"name": pilot.name, "rounds": recipe.rounds},
        "data": {"clients": list(pilot.clients), "name": pilot.records, "disjoint": pilot.disjoint},
        "training": training,
        "privacy": privacy,
        "weights": {} if asked.get("unit") == "client" else weights,
    }


def slug(name: str) -> str:
    """A name made safe as the name of a folder or a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
