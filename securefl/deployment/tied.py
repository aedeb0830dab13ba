"""Runs a command that dies with whoever started it: ``python -m securefl.deployment.tied COMMAND...``.

A site's processes belong together: one that went on alone would answer for a site whose administrator ended it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG of prctl(2); outlives the exec that follows


def command(arguments: list[str]) -> list[str]:
    """The arguments of a process that runs these, and dies with the caller."""
    return [sys.executable, "-m", "securefl.deployment.tied", str(os.getpid()), *arguments]


def main() -> None:
    parent, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before that was said
        sys.exit(1)
    os.execv(arguments[0], arguments)  # noqa: S606 what it runs, the caller wrote


if __name__ == "__main__":
    main()
