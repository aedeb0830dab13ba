"""Kills a real process at random instants while it charges its ledger and then releases, and counts what went missing.

``python -m benchmarks.crash_points COUNT SEED`` is the process that forks off and kills; ``crash_points`` starts it.
It loads no torch and begins warm, so that a kill costs milliseconds. SIGKILL shows what a crash of the process leaves;
that a power cut leaves no less is SQLite's word for ``synchronous = EXTRA``.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from protocols.primitives import Identity
from securefl.errors import LedgerError
from securefl.privacy.ledger import Ledger, Owner
from securefl.privacy.mechanism import DPSGD, Budget

_IDENTITY = Identity(bytes(range(32)))
_OWNER = Owner("hospital-1", "diagnoses")
_ROUND = (DPSGD(noise_multiplier=4, sampling_rate=0.5, steps=3),)
_BUDGET = Budget(epsilon=3, delta=1e-5)
_DATA = bytes(32)
# New ledgers under a budget and long ones without come in turn: creation, opening and appending are all interrupted.
_POINTS_A_LEDGER = 8
# A process is killed at any time until it has begun its ledger and charged it about so often.
_CHARGES = 4


class CrashPoints(NamedTuple):
    """How many processes were killed, after how many of these a release was in no ledger or the ledger did not open,
    and how many kills fell into a commit (a journal was left)."""

    run: int
    under_counted: int
    in_commit: int


def crash_points(count: int, seed: int) -> CrashPoints:
    """Kill ``count`` processes, at instants drawn from ``seed`` (which instant of the work that is, no seed fixes)."""
    command = [sys.executable, "-m", "benchmarks.crash_points", str(count), str(seed)]
    done = subprocess.run(  # noqa: S603
        command, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the process that kills others failed: {done.stderr}")
    return msgspec.json.decode(done.stdout, type=CrashPoints)


def unaccounted(ledger: Path, releases: Path, budget: Budget | None) -> bool:
    """Whether something was released that the ledger does not have, or the ledger cannot say."""
    if not ledger.exists():
        return bool(_lines(releases))
    try:
        with closing(Ledger(ledger, _IDENTITY, _OWNER, budget)) as opened:
            charged = {f"{entry.run} {entry.round} {entry.digest.hex()}" for entry in opened.entries()}
    except LedgerError:
        return True
    return not set(_lines(releases)) <= charged


def _lines(releases: Path) -> list[str]:
    return releases.read_text().split("\n")[:-1] if releases.exists() else []


def _work(ledger: Path, releases: Path, budget: Budget | None, run: str, rounds: int) -> None:
    """Charge and then release, round after round, as a client does; a release is a line that is on disk."""
    released = os.open(releases, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    with closing(Ledger(ledger, _IDENTITY, _OWNER, budget)) as opened:
        for round in range(1, rounds + 1):
            entry = opened.charge(run, round, 1, _ROUND, _DATA, simulated=False)
            os.write(released, f"{entry.run} {entry.round} {entry.digest.hex()}\n".encode())
            os.fsync(released)
    os.close(released)


def _forked(ledger: Path, releases: Path, budget: Budget | None, run: str, rounds: int) -> int:
    """A process that works on its own."""
    process = os.fork()
    if process == 0:
        ended = 1
        try:
            _work(ledger, releases, budget, run, rounds)
            ended = 0
        finally:  # nothing of the parent's may run here
            os._exit(ended)
    return process


def _killed(ledger: Path, releases: Path, budget: Budget | None, run: str, seconds: float) -> None:
    """Let a process work for so long and kill it."""
    process = _forked(ledger, releases, budget, run, 1_000_000)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if not os.WIFSIGNALED(status):
        raise RuntimeError(f"the work of {run} ended before it was killed")


def _seconds(folder: Path) -> float:
    """What it takes to begin a ledger and charge it ``_CHARGES`` times, on a machine as busy as this one is now."""
    _work(folder / "warm", folder / "warm-releases", _BUDGET, "warm", _CHARGES)  # for the accountant's caches
    taken = []
    for number in range(3):
        started = time.perf_counter()
        process = _forked(folder / f"timed-{number}", folder / f"timed-{number}-r", _BUDGET, "timed", _CHARGES)
        _, status = os.waitpid(process, 0)
        if status:
            raise RuntimeError("the work fails without being killed")
        taken.append(time.perf_counter() - started)
    return max(taken)


def _run(count: int, seed: int, folder: Path) -> CrashPoints:
    draw = random.Random(seed)  # noqa: S311
    under_counted = in_commit = 0
    longest = _seconds(folder)
    for point in range(count):
        number, fresh = point // _POINTS_A_LEDGER, point % 2 == 0
        name, budget = (f"{point}", _BUDGET) if fresh else (f"long-{number}", None)
        ledger, releases = folder / f"{name}.sqlite", folder / f"{name}.releases"
        _killed(ledger, releases, budget, f"run-{point}", draw.uniform(0, longest))
        in_commit += (folder / f"{name}.sqlite-journal").exists()
        under_counted += unaccounted(ledger, releases, budget)
    return CrashPoints(count, under_counted, in_commit)


def main() -> None:
    """Print what ``crash_points`` returns, as JSON."""
    count, seed = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="securefl-crash-") as folder:
        found = _run(count, seed, Path(folder))
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
