"""Job files as text: TOML into a typed value, with errors that name the key and the remedy, and back.

Nothing here knows what a key does; :mod:`securefl.job` says that.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeGuard, TypeVar, get_args, get_type_hints

import msgspec

from securefl.errors import BadJob

T = TypeVar("T", bound=msgspec.Struct)
Table = dict[str, object]

REMEDIES: Final[Mapping[str, str]] = {
    "job": "Start the file with a section [job]",
    "job.name": 'Give the job a name in quotes, for example name = "my first run"',
    "job.rounds": "Write a whole number from 1 to 1,000,000, for example rounds = 10",
    "data": 'Add a section [data] with pilot = "breast-cancer", or with loader and clients for data of your own',
    "data.pilot": 'Name one pilot in quotes, for example pilot = "breast-cancer"',
    "data.loader": 'Write loader = "package.module:function"; it is called with a client\'s name',
    "data.clients": 'List the clients by name, for example clients = ["hospital-1", "hospital-2", "hospital-3"]',
    "data.sizes": "Write each client's declared number of records, a public constant: sizes = { hospital-1 = 200 }",
    "data.held_out": 'Write held_out = "package.module:function"; like the loader, with other records',
    "data.disjoint": "Write true if nobody's data is at two clients, which every owner then declares; else false",
    "data.test": 'Write test = "package.module:function"; what it returns is declared public',
    "data.name": 'Name the data set in quotes, for example name = "diabetes-2024"; the privacy ledger is kept under it',
    "model": 'Add a section [model] with factory = "package.module:function"',
    "model.factory": 'Write factory = "package.module:function"; it returns a fresh torch.nn.Module',
    "model.seed": "Write a whole number of at least 0, for example seed = 1",
    "training": "Add a section [training] with learning_rate, sampling_rate and steps",
    "training.learning_rate": "Write a number above 0, for example learning_rate = 0.5",
    "training.momentum": "Write a number from 0 up to, but not including, 1; for example momentum = 0.9",
    "training.sampling_rate": "Write the chance that a record is in a step: above 0, at most 1, for example 0.5",
    "training.steps": "Write a whole number of at least 1, for example steps = 3 (steps a round at each client)",
    "training.epochs": "Write how often a round sees a record on average: a number above 0, for example epochs = 1.0",
    "training.proximal": "Write mu of FedProx, a number of at least 0, for example proximal = 0.01",
    "training.schedule": 'Write one of "constant", "exponential", "linear", "cosine"',
    "training.decay": 'Write decay = 0.99 beside schedule = "exponential", and only there',
    "training.warmup": "Write a whole number of rounds, for example warmup = 5",
    "strategy": 'Write kind = "fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad" or "scaffold"',
    "strategy.mean": 'Write "weighted", by the clients\' declared weights, or "simple"',
    "strategy.learning_rate": "Write a number above 0, for example learning_rate = 0.1",
    "strategy.momentum": "Write a number from 0 up to, but not including, 1; for example momentum = 0.9",
    "strategy.second": "Write a number from 0 up to, but not including, 1; for example second = 0.99",
    "strategy.adaptivity": "Write a number above 0, for example adaptivity = 1e-3",
    "strategy.schedule": 'Write one of "constant", "exponential", "linear", "cosine"',
    "strategy.decay": 'Write decay = 0.99 beside schedule = "exponential", and only there',
    "cohort.sampling": 'Write one of "all", "fixed", "poisson"',
    "cohort.size": 'Write how many clients are asked in a round, for example size = 100 beside sampling = "fixed"',
    "cohort.extra": "Write how many more are asked, since some may be late: a whole number of at least 0",
    "cohort.participations": "Write the most rounds that one client takes part in, at least 1",
    "cohort.groups": "Write in how many groups clients are summed, at least 3 or 1; the median of their means is taken",
    "stopping.patience": "Write a whole number of rounds, at least 1, for example patience = 5",
    "stopping.by": "Write a number from 0 up to, but not including, 1; for example by = 0.001",
    "stopping.on": 'Write "test", or "held-out" beside a section [metrics]',
    "privacy.enabled": "Write true or false; with false nothing bounds what the model reveals about one record",
    "privacy.noise_multiplier": "Write a number above 0, for example noise_multiplier = 1.0, "
    "or [privacy] enabled = false",
    "privacy.clip": "Write the largest gradient norm of one record: a number above 0, for example clip = 1.0",
    "privacy.epsilon": "Write the most that each data owner allows: a number above 0, for example epsilon = 3.0, "
    "or [privacy] enabled = false",
    "privacy.delta": "Write a number between 0 and 1, well below one over the number of records, "
    "for example delta = 1e-5, or [privacy] enabled = false",
    "privacy.unit": 'Write "record", "patient" (nobody has two records) or "client"',
    "privacy.target_epsilon": "Write what this run may spend of epsilon: a number above 0, for example "
    "target_epsilon = 1.0",
    "privacy.adaptive_quantile": "Write a number from 0 to 1, for example adaptive_quantile = 0.5",
    "privacy.adaptive_rate": "Write a number above 0 and at most 1, for example adaptive_rate = 0.2",
    "metrics": "Write noise_multiplier = 5.0, or exact = true, which no epsilon covers",
    "metrics.noise_multiplier": "Write a number above 0, for example noise_multiplier = 5.0",
    "metrics.exact": "Write true or false; exact metrics are covered by no epsilon",
    "metrics.loss_bound": "Write where the loss of one record is cut off: a number above 0, for example 4.0",
    "survey": "Write noise_multiplier = 1.0, or leave the section out",
    "survey.noise_multiplier": "Write a number above 0, for example noise_multiplier = 1.0",
    "survey.bins": "Write a whole number from 2 to 100, for example bins = 10",
    "survey.scores": "Write a number above 0, for example scores = 5.0, or leave the key out",
    "privacy.ledger": 'Name a folder in quotes, for example ledger = "ledgers/diabetes-2024"',
    "protection.kind": 'Write one of "plain", "secagg", "ckks-unmasked", "ckks"',
    "protection.bound": "Write the largest absolute value of one number of an update: above 0, for example 8.0",
    "protection.threshold": "Write a whole number of at least 2, or leave the key out for two thirds plus one",
    "protection.minimum": "Write a whole number of at least 1, or leave the key out",
    "protection.colluders": "Write how many clients may work with the server: a whole number of at least 0, "
    "for example colluders = 1",
    "protection.bits": "Write bits = 16, 24 or 32; under CKKS 32, 40, 48 or 54, or leave the key out",
    "protection.profile": 'Write profile = "standard", or "compact" for as few bytes as the updates\' noise allows',
    "protection.precision": "Write the largest step that may lie between two values of an update, for example "
    "precision = 1e-4",
    "protection.key_rounds": "Write how many sums one CKKS key decrypts, at least 1, for example key_rounds = 1",
    "protection.corrupt": "Write the fraction of clients that may deviate, for example corrupt = 0.1",
    "protection.dropout": "Write the fraction of clients that may leave in a round, for example dropout = 0.1",
    "weights": "Write a number above 0 and at most 1 for each client that is named, for example hospital-1 = 0.5",
    "simulation.enabled": "Write true or false; with true, noise and samples may come from a seed and protect nobody",
    "simulation.seed": "Write a whole number of at least 0, and enabled = true beside it",
    "simulation.drop": 'Write a list like drop = ["hospital-3@2:4"]: silent from exchange 2 on in round 4',
}
_BEYOND: Final = 2**63
_ABSURD: Final = "a whole number is too large for anything here"
_LONGEST: Final = 80  # of a value in an error: what is wrong is seen from its beginning
_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a section",
}


def parse(text: str) -> Table:
    """The tables of a TOML text; ``BadJob`` with line and column where it is not TOML."""
    try:
        tables = tomllib.loads(text)
        leaves = list(_leaves(tables))
    except tomllib.TOMLDecodeError as error:
        raise BadJob("job file", f"not valid TOML: {error}", "Correct that line; text values need quotes") from error
    except ValueError as error:  # of an integer with thousands of digits
        raise BadJob("job file", _ABSURD, "Write a smaller one") from error
    except RecursionError as error:
        raise BadJob("job file", "nested too deeply", "Write values and lists under the keys of sections") from error
    for key, value in leaves:
        if isinstance(value, float) and not math.isfinite(value):
            raise BadJob(key, f"{value} is not a finite number", remedy(key))
        if isinstance(value, int) and abs(value) >= _BEYOND:
            raise BadJob(key, _ABSURD, remedy(key))
    return tables


def typed(tables: Mapping[str, object], kind: type[T]) -> T:
    """The tables as a value of ``kind``; ``BadJob`` for a key that is unknown, missing or of a wrong type."""
    _refuse_unknown_keys(tables, kind)
    try:
        return msgspec.convert(tables, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _explained(str(error), tables, kind) from error


def remedy(key: str) -> str:
    """What to write for a key instead."""
    bare = re.sub(r"\[.*", "", key)
    while bare and bare not in REMEDIES:
        bare = bare.rpartition(".")[0]
    return REMEDIES.get(bare, "See the example files under examples/")


def closest(wrong: str, known: Iterable[str]) -> str:
    """A question like ``did you mean 'rounds'?`` or, with nothing close, the list of what is known."""
    choices = sorted(known)
    near = difflib.get_close_matches(wrong, choices, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(choices) or 'none'}"


def text(value: msgspec.Struct) -> str:
    """A Struct of Structs as TOML, one section a field; fields that are None are left out."""
    sections = msgspec.to_builtins(value)
    return "\n".join(f"[{name}]\n{_lines(table)}" for name, table in sections.items() if table)


def quoted(text: str) -> str:
    """Text from a job file in an error's words, with only the beginning of a long one."""
    return repr(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!r} and so on"


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """All values in tables and lists; those of a list under the list's key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def _refuse_unknown_keys(tables: Mapping[str, object], kind: type[msgspec.Struct], prefix: str = "") -> None:
    hints = get_type_hints(kind)
    for name, value in tables.items():
        if name not in hints:
            shown = name if len(name) <= _LONGEST else quoted(name)
            raise BadJob(prefix + shown, "unknown key" if prefix else "unknown section", closest(name, hints))
        sections = [kind for kind in (hints[name], *get_args(hints[name])) if _is_section(kind)]
        if isinstance(value, dict) and sections:
            _refuse_unknown_keys(value, sections[0], f"{prefix}{name}.")


def _is_section(kind: object) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _explained(message: str, tables: Mapping[str, object], kind: type[msgspec.Struct]) -> BadJob:
    """msgspec's one-line message in the words of someone who has never seen a type annotation."""
    problem, _, place = message.partition(" - at `$")
    key = place.rstrip("`").lstrip(".")
    if found := re.fullmatch(r"Object missing required field `(.+)`", problem):
        key = f"{key}.{found[1]}".lstrip(".")
        return BadJob(key, "missing", remedy(key))
    if problem.startswith("Invalid enum value"):
        wrong = problem.removeprefix("Invalid enum value ").strip("'")
        meant = closest(wrong, _choices(kind, key))
        return BadJob(
            key, f"unknown value {quoted(wrong)}", meant if meant.startswith("Known") else f"{meant} {remedy(key)}"
        )
    given = _at(tables, key)
    key = key.replace("[...]", "")
    if found := re.fullmatch(r"Expected `(.+)`, got `(.+)`", problem):
        wanted = " or ".join(_WORDS.get(word, word) for word in found[1].split(" | ") if word != "null")
        return BadJob(key, f"expected {wanted}, got {given or _WORDS.get(found[2], found[2])}", remedy(key))
    return BadJob(key, f"impossible value {given}", remedy(key))


def _choices(kind: type[msgspec.Struct], key: str) -> Sequence[str]:
    """What the value at ``key``, or each in the list there, may be."""
    hint: object = kind
    for name in re.sub(r"\[.*?\]", "", key).split("."):
        section = next(part for part in (hint, *get_args(hint)) if _is_section(part))
        hint = get_type_hints(section)[name]
    choices = get_args(hint)
    return get_args(choices[0]) if "[" in key else choices


def _at(tables: Mapping[str, object], key: str) -> str:
    """The value at a path like ``data.clients[1]``, as a person would write it; empty where the path is unclear."""
    value: object = tables
    for name, index in re.findall(r"([^.\[]+)(?:\[(.+?)\])?", key):
        value = value.get(name) if isinstance(value, dict) else None
        if index:
            value = value[int(index)] if isinstance(value, list) and index.isdigit() else None
    shown = "" if value is None else _literal(value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} and so on"


def _lines(table: Mapping[str, object]) -> str:
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in table.items() if value not in (None, {}))


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_literal(inner)}" for name, inner in value.items()) + " }"
    return _literal(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _literal(name)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # a JSON string is a TOML basic string, but for DEL, which TOML wants escaped
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)
