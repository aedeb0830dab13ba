"""A peer's process: asked in JSON lines, it answers with the seconds that it measured inside itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-peers"
PYTHON = ENVIRONMENT / "bin" / "python"
COMMAND = "python -m benchmarks.peers"
FLOWER = Path(__file__).with_name("flower.py")
SIMULATORS = ROOT / ".venv-peers-simulation"
SIMULATORS_COMMAND = f"{COMMAND} simulation"
FLOWER_SIMULATION = Path(__file__).with_name("flower_simulation.py")
APPLE_PFL = Path(__file__).with_name("apple_pfl.py")


class PeerMissing(Exception):
    """The peers' environment is not there: ``COMMAND`` makes it."""


class PeerFailed(Exception):
    """The peer's process ended, or what it gave back is not the right result: its seconds mean nothing."""


class Done(Struct, frozen=True):
    """One work done: how long it took, and CRC-32 of the vector before (``hidden``) and after its masks came off."""

    seconds: float
    hidden: int
    opened: int


class Simulated(Struct, frozen=True):
    """Seconds of each round of one simulation, and the mean loss on everybody's records in the end."""

    seconds: tuple[float, ...]
    loss: float


class Peer:
    """One worker script, running in the peers' environment until the ``with`` block ends."""

    def __init__(self, script: Path, python: Path = PYTHON, command: str = COMMAND) -> None:
        if not python.exists():
            raise PeerMissing(f"no {python.parents[1].name}: make it with {command}")
        # One thread a side; usage reports would need a network. Ray's processes import what lies beside the script.
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(script.parent),
        }
        self._process = subprocess.Popen(  # noqa: S603
            [str(python), "-W", "ignore", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.version = msgspec.json.decode(self._line(), type=str)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()  # closes its input, which is how it is told to end

    def seconds(self, work: Struct, expected: int) -> float:
        """How long the peer took. ``expected``: CRC-32 of the vector that it must have unmasked.

        Raises ``PeerFailed`` unless what it had masked differs from that vector, and what it unmasked does not.
        """
        done = msgspec.json.decode(self._asked(work), type=Done)
        if done.opened != expected or done.hidden == expected:
            raise PeerFailed(f"{work} did not give the vector that was masked")
        return done.seconds

    def rounds(self, work: Struct) -> Simulated:
        """How long each round of a simulation took."""
        return msgspec.json.decode(self._asked(work), type=Simulated)

    def _asked(self, work: Struct) -> bytes:
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # no answer will come, and that says more
            self._process.stdin.write(msgspec.json.encode(work) + b"\n")
            self._process.stdin.flush()
        return self._line()

    def _line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"the peer's process ended with status {self._process.wait()}: its error is above")
        return line
