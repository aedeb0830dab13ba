"""Keeps processes running until it is told to stop: one that dies is started again, sooner or later by how often."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from securefl.deployment.tied import command

_FIRST: Final = 0.5  # seconds until a process that died is started again
_LONGEST: Final = 30.0  # the same, for one that dies again and again
_STEADY: Final = 60.0  # seconds after which a process counts as having run
_LOOK: Final = 0.2
_GRACE: Final = 10.0  # seconds for a process to end when it is told to


@dataclass
class _Process:
    name: str
    arguments: Sequence[str]
    log: Path
    running: subprocess.Popen[bytes] | None = None
    pause: float = _FIRST
    due: float = 0.0
    started: float = 0.0


class Supervisor:
    """``tell`` hears of starts and ends. The processes die with this one."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder, self._tell = folder, tell
        self._processes: list[_Process] = []
        self._stopping = False

    def add(self, name: str, arguments: Sequence[str], log: Path) -> None:
        """What is to be kept running, in the folder; what it prints goes to ``log``."""
        self._processes.append(_Process(name, arguments, log))

    def run(self) -> None:
        """Until SIGTERM or Ctrl-C."""
        signal.signal(signal.SIGTERM, lambda number, frame: self.stop())
        try:
            while not self._stopping:
                for process in self._processes:
                    self._look_at(process)
                time.sleep(_LOOK)
        except KeyboardInterrupt:
            pass
        finally:
            self._end()

    def stop(self) -> None:
        """Have ``run`` return."""
        self._stopping = True

    def _look_at(self, process: _Process) -> None:
        now = time.monotonic()
        if process.running is None:
            if now >= process.due:
                self._start(process)
            return
        code = process.running.poll()
        if code is None:
            if now - process.started > _STEADY:
                process.pause = _FIRST
            return
        process.running, process.due = None, now + process.pause
        self._tell(f"{process.name} ended ({_ended(code)}); it is started again in {process.pause:g} s: {process.log}")
        process.pause = min(2 * process.pause, _LONGEST)

    def _start(self, process: _Process) -> None:
        with process.log.open("ab") as log:
            process.running = subprocess.Popen(  # noqa: S603 our own commands
                command(list(process.arguments)),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this process, which ends the others in order.
                start_new_session=True,
            )
        process.started = time.monotonic()
        self._tell(f"{process.name} started (pid {process.running.pid})")

    def _end(self) -> None:
        running = [process.running for process in self._processes if process.running is not None]
        for one in running:
            one.terminate()
        until = time.monotonic() + _GRACE
        for one in running:
            try:
                one.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(one.pid, signal.SIGKILL)
                one.wait()


def _ended(code: int) -> str:
    return f"exit {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
