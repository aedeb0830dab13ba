"""The house rules of docs/architecture.md, checked by reading every import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("protocols", "securefl")

# What each part may not import, by the first part of the name. A clock is I/O.
KEPT_OUT = {
    "protocols": {"torch", "opacus", "securefl", "socket", "asyncio", "threading", "time", "logging", "random"},
    "securefl": {"random"},
}
KEPT_OUT_EVERYWHERE = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}

# Each dependency comes in by one door.
DOORS = {
    "cryptography": "protocols/primitives.py",
    "tenseal": "protocols/encoding/ckks.py",
    "zstandard": "protocols/encoding/sealfile.py",
    "opacus": "securefl/training/private.py",
    "dp_accounting": "securefl/privacy/accountant.py",
    "rfc8785": "securefl/report/canonical.py",
    "nvflare": "securefl/engines/nvflare/",
    "peft": "securefl/llm/",
    "transformers": "securefl/llm/",
    "prometheus_client": "securefl/metrics.py",
    "ray": "securefl/engines/ray/",
}

# A guarantee can be recomputed on a laptop from a ledger: these load no torch, nor does anything of ours they import.
WITHOUT_TORCH = ("securefl.privacy", "securefl.audit.bounds")
TORCH = {"torch", "opacus"}

# A data owner's side and the server's share values and messages, and none of each other's code: what one of them does
# must not depend on what the other keeps.
OWNERS = {
    f"securefl.{name}"
    for name in (
        *(
            "account",
            "attendance",
            "client",
            "contribution",
            "evidence",
            "holder_requests",
            "holding",
            "keyholder",
            "mishaps",
        ),
        *("policy", "sums", "testimony"),
    )
}
SERVERS = {f"securefl.{name}" for name in ("checkpoint", "deliveries", "outcome", "relay", "server")}

# torch's own files are pickles.
CALLS_KEPT_OUT = {("torch", "load"), ("torch", "save")}


@dataclass(frozen=True)
class Import:
    """One imported name; ``at_once`` if it is imported when the module is, and not first inside a function."""

    name: str
    line: int
    at_once: bool

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Module:
    name: str
    path: str
    imports: tuple[Import, ...]
    calls: tuple[tuple[str, str, int], ...]


def modules(root: Path) -> dict[str, Module]:
    """Every module of our packages under ``root``, by its dotted name."""
    found = {}
    for path in sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")):
        relative = path.relative_to(root)
        parts = relative.with_suffix("").parts
        package = parts[:-1]
        name = ".".join(package if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        found[name] = Module(name, relative.as_posix(), tuple(imports(tree, package)), tuple(calls(tree)))
    return found


def imports(tree: ast.AST, package: tuple[str, ...], at_once: bool = True) -> Iterator[Import]:
    """All imports in ``tree``, except those that only a type checker follows."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            yield from imports(ast.Module(node.orelse, []), package, at_once)
            continue
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *([node.module] if node.module else [])))
            yield Import(base, node.lineno, at_once)
            yield from (Import(f"{base}.{alias.name}", node.lineno, at_once) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (Import(str(a.value), node.lineno, at_once) for a in node.args[:1] if is_text(a))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(node, package, at_once and not inside)


def is_text(node: ast.expr) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def calls(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """All uses of ``name.attribute``, with their line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr, node.lineno


def loaded_with(start: str, known: dict[str, Module]) -> dict[str, str]:
    """Our modules that come with ``start``, each with the one that brings it, ``start`` itself with nothing.

    A package comes with every module in it: its ``__init__`` runs first.
    """
    origin, waiting = {start: ""}, [start]
    while waiting:
        name = waiting.pop()
        for target in (name.rpartition(".")[0], *(one.name for one in counted(known[name]))):
            if target in known and target not in origin:
                origin[target] = name
                waiting.append(target)
    return origin


def counted(module: Module) -> list[Import]:
    """Imports inside a function count too, except in an ``__init__``, which uses them to offer names lazily."""
    return [one for one in module.imports if one.at_once or not module.path.endswith("__init__.py")]


def violations(root: Path) -> list[str]:
    """One line for each import that a rule forbids."""
    known = modules(root)
    return [*kept_out(known), *past_the_door(known), *with_torch(known), *across(known)]


def kept_out(known: dict[str, Module]) -> Iterator[str]:
    for module in known.values():
        forbidden = KEPT_OUT[module.name.partition(".")[0]] | KEPT_OUT_EVERYWHERE
        for one in module.imports:
            if one.package in forbidden:
                yield f"{module.path}:{one.line} imports {one.name}"
        for name, attribute, line in module.calls:
            if (name, attribute) in CALLS_KEPT_OUT:
                yield f"{module.path}:{line} uses {name}.{attribute}"


def past_the_door(known: dict[str, Module]) -> Iterator[str]:
    for module in known.values():
        for one in module.imports:
            door = DOORS.get(one.package)
            if door is not None and not (module.path == door or (door.endswith("/") and module.path.startswith(door))):
                yield f"{module.path}:{one.line} imports {one.name}, whose only door is {door}"


def across(known: dict[str, Module]) -> Iterator[str]:
    for own, others in ((OWNERS, SERVERS), (SERVERS, OWNERS)):
        for name in own & known.keys():
            for one in known[name].imports:
                if other := next((other for other in others if f"{one.name}.".startswith(f"{other}.")), None):
                    yield f"{known[name].path}:{one.line} imports {other}, which is the other side's"


def with_torch(known: dict[str, Module]) -> Iterator[str]:
    for start in (name for name in known if name.startswith(WITHOUT_TORCH)):
        for name, bringer in loaded_with(start, known).items():
            for one in counted(known[name]):
                if one.package in TORCH:
                    yield f"{start} loads {one.name} by {name}" + (f" (from {bringer})" if bringer else "")


def test_no_import_breaks_a_rule_of_the_house() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_checker_sees_our_modules(package: str) -> None:
    assert sum(module.path.startswith(package + "/") for module in modules(ROOT).values()) >= 5


PLANTED = {
    "protocols/clock.py": ("import time", "protocols/clock.py:1 imports time"),
    "protocols/upward.py": ("from securefl.errors import BadInput", "protocols/upward.py:1 imports securefl.errors"),
    "protocols/inner.py": ("def f():\n    import logging", "protocols/inner.py:2 imports logging"),
    "protocols/encoding/back.py": ("from tenseal import sealapi", "whose only door is protocols/encoding/ckks.py"),
    "securefl/server.py": ("from securefl.policy import Policy", "securefl/server.py:1 imports securefl.policy"),
    "securefl/client.py": ("import securefl.relay", "securefl/client.py:1 imports securefl.relay, which is the other"),
    "securefl/dice.py": ("import random", "securefl/dice.py:1 imports random"),
    "securefl/jar.py": ("import pickle", "securefl/jar.py:1 imports pickle"),
    "securefl/late.py": ("import importlib\nimportlib.import_module('opacus')", "securefl/late.py:2 imports opacus"),
    "securefl/saved.py": ("import torch\ntorch.load('x')", "securefl/saved.py:2 uses torch.load"),
    "securefl/sealed.py": ("import cryptography.hazmat", "whose only door is protocols/primitives.py"),
    "securefl/privacy/direct.py": ("def f():\n    import torch", "securefl.privacy.direct loads torch"),
    "securefl/privacy/indirect.py": (
        "from ..middle import value",
        "securefl.privacy.indirect loads torch.nn by securefl.far (from securefl.middle)",
    ),
    "securefl/audit/bounds.py": ("from securefl import far", "securefl.audit.bounds loads torch.nn by securefl.far"),
}
HARMLESS = {
    "securefl/middle.py": "from securefl.far import value",
    "securefl/far.py": "import torch.nn\nvalue = 1",
    "securefl/privacy/accountant.py": "import dp_accounting\nfrom typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n    import torch",
}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A small house in which each file of ``PLANTED`` breaks one rule."""
    for path, text in [*((path, text) for path, (text, _) in PLANTED.items()), *HARMLESS.items()]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.mark.parametrize(("path", "expected"), [(path, expected) for path, (_, expected) in PLANTED.items()])
def test_a_planted_violation_is_caught(planted: Path, path: str, expected: str) -> None:
    assert any(expected in line for line in violations(planted)), violations(planted)


def test_what_breaks_no_rule_is_not_reported(planted: Path) -> None:
    for path in PLANTED:
        (planted / path).unlink()
    assert violations(planted) == []


def test_importing_securefl_loads_nothing_heavy() -> None:
    heavy = {"torch", "opacus", "sklearn", "scipy", "matplotlib", "tenseal", "dp_accounting"}
    program = f"import sys, securefl; sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
