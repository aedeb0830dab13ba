"""The strategy's step and the decoding of a sum give the same bits everywhere: pinned, and under other instructions."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parents[1] / "vectors"
STEPS = json.loads((VECTORS / "strategy.json").read_text(encoding="utf-8"))


def numbers(kind: str, text: str) -> list[float]:
    data = bytes.fromhex(text)
    return list(struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: "".join(step["contributors"]))
def test_the_pinned_steps_are_those_of_plain_double_precision(step: Mapping[str, Any]) -> None:
    """Python's own floats, one operation at a time: the divisor in the plan's order, then + and /, rounded once."""
    divisor = 0.0
    for name, weight in step["weights"].items():
        divisor += weight if name in step["contributors"] else 0.0
    moved = [
        start + total / divisor
        for start, total in zip(numbers("f", step["model"]), numbers("d", step["total"]), strict=True)
    ]
    assert struct.pack(f"<{len(moved)}f", *moved).hex() == step["moved"]


def test_other_instructions_of_the_processor_change_no_bit() -> None:
    """numpy without the instructions that it would choose here: what clients with older machines compute with."""
    code = """
import json, pathlib, sys
from tests.vectors import generate
for name in ("strategy", "ckks"):
    assert generate.written(generate.FILES[name]()) == (generate.FOLDER / f"{name}.json").read_text(encoding="utf-8")
"""
    ask = "from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__; "
    ask += "print(*(name for name in __cpu_dispatch__ if __cpu_features__.get(name)))"
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    for disabled in {"", found}:
        environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            cwd=VECTORS.parents[1],
            check=False,
        )
        assert done.returncode == 0, done.stderr
