"""A network of this machine's own: the server on a bridge, each site in a network namespace, with a cable to be cut.

Needs root and ``ip`` of iproute2. Nothing outside this machine is reached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

ADDRESS: Final = "10.213.7.1"
_BRIDGE: Final = "sflbr0"


def possible() -> bool:
    """Whether this process may make namespaces."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and _ip("netns", "add", "sfl-try") == 0 and _drop("try")


class Network:
    """One bridge with an end for each name. It is there from ``make`` to ``remove``."""

    def __init__(self, names: Sequence[str]) -> None:
        self._places = {name: place for place, name in enumerate(names, start=2)}

    def make(self) -> None:
        self.remove()
        _must("link", "add", _BRIDGE, "type", "bridge")
        _must("addr", "add", f"{ADDRESS}/24", "dev", _BRIDGE)
        _must("link", "set", _BRIDGE, "up")
        for place in self._places.values():
            space, here, there = f"sfl-{place}", f"sflh{place}", f"sfls{place}"
            _must("netns", "add", space)
            _must("link", "add", here, "type", "veth", "peer", "name", there)
            _must("link", "set", there, "netns", space)
            _must("link", "set", here, "master", _BRIDGE, "up")
            _must("-n", space, "addr", "add", f"{ADDRESS.rpartition('.')[0]}.{place}/24", "dev", there)
            _must("-n", space, "link", "set", there, "up")
            _must("-n", space, "link", "set", "lo", "up")

    def remove(self) -> None:
        for place in self._places.values():
            _ip("netns", "del", f"sfl-{place}")
            _ip("link", "del", f"sflh{place}")
        _ip("link", "del", _BRIDGE)

    def within(self, name: str) -> list[str]:
        """What a command begins with that is to run where this name is."""
        return ["ip", "netns", "exec", f"sfl-{self._places[name]}"]

    def cut(self, name: str) -> None:
        _must("link", "set", f"sflh{self._places[name]}", "down")

    def mend(self, name: str) -> None:
        _must("link", "set", f"sflh{self._places[name]}", "up")


def _must(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S603, S607


def _ip(*arguments: str) -> int:
    return subprocess.run(["ip", *arguments], check=False, capture_output=True).returncode  # noqa: S603, S607


def _drop(place: str) -> bool:
    return _ip("netns", "del", f"sfl-{place}") == 0
