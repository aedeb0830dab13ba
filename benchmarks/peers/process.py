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


class PeerMissing(Exception):
    """The peers' environment is not there: ``COMMAND`` makes it."""


class PeerFailed(Exception):
    """The peer's process ended, or what it gave back is not the right result: its seconds mean nothing."""


class Done(Struct, frozen=True):
    """One work done: how long it took, and CRC-32 of the vector before (``hidden``) and after its masks came off."""

    seconds: float
    hidden: int
    opened: int


class Peer:
    """One worker script, running in the peers' environment until the ``with`` block ends."""

    def __init__(self, script: Path, python: Path = PYTHON) -> None:
        if not python.exists():
            raise PeerMissing(f"no {ENVIRONMENT.name}: make it with {COMMAND}")
        # One thread a side; Flower's usage reports would need a network.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
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
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # no answer will come, and that says more
            self._process.stdin.write(msgspec.json.encode(work) + b"\n")
            self._process.stdin.flush()
        done = msgspec.json.decode(self._line(), type=Done)
        if done.opened != expected or done.hidden == expected:
            raise PeerFailed(f"{work} did not give the vector that was masked")
        return done.seconds

    def _line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"the peer's process ended with status {self._process.wait()}: its error is above")
        return line
