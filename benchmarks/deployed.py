"""A real deployment on loopback: a server and sites as processes of their own, from provisioned kits over mutual TLS.

For tests and benchmarks. Everything is made by the same code as ``securefl server`` and ``securefl site`` run.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from benchmarks.namespaces import ADDRESS, Network
from securefl.deployment import admission
from securefl.deployment.server_folder import ServerFolder
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.pipe import Lost, connect

Part = Literal["client", "line", "worker", "site", "network", "server", "job"]
"""Of a site: its client process, its process of nvflare, the job's worker, what keeps these running, or its cable; of
the server: nvflare's process, or the job's."""

PROJECT: Final = "trial"
_START: Final = 90.0  # seconds

SITE = """
name = "{name}"

[data]
pilot = "breast-cancer"

[budget]
epsilon = 100.0
delta = 1e-5

[accept]
rule = "policy"

[simulation]
seed = 7
"""


class Deployment:
    """Some sites and their server under one folder. ``site``: the text of a site's file, with {name} in it.
    ``network``: where sites are, each in a namespace of its own; None: all on loopback.
    """

    def __init__(self, root: Path, names: Sequence[str], site: str = SITE, network: Network | None = None) -> None:
        self.network = network
        self.root, self.names = root, tuple(names)
        self.server = ServerFolder(root / "server")
        self.sites: Mapping[str, SiteFolder] = {name: SiteFolder(root / name) for name in names}
        self._site = site
        self._keeping: dict[str, subprocess.Popen[bytes]] = {}

    def set_up(self) -> None:
        """Everybody's keys, certificates and files, as their administrators would make them."""
        invited = self.server.init(PROJECT, ADDRESS if self.network else "127.0.0.1", _free_port())

        def ask(name: str) -> Path:
            return self.sites[name].init(invited, name, f"Org_{name.replace('-', '_')}")[1]

        def join(name: str) -> None:
            site = self.sites[name]
            site.file.write_text(self._site.format(name=name), encoding="utf-8")
            site.join(self.server.roster_file, roster.hash(), self.server.admitted / f"{name}.signed.zip")

        with ThreadPoolExecutor(2) as pool:  # what they wait for are processes of nvflare
            for sent in pool.map(ask, self.names):
                self.server.admit(admission.read(sent, PROJECT))
            roster = self.server.write_roster()
            list(pool.map(join, self.names))

    def start(self) -> None:
        """Returns once every site can be asked, at its own socket."""
        self.keep("server")
        for name in self.names:
            self.keep(name)
        self.wait(lambda: all(self.serves(name) for name in self.names))

    def keep(self, name: str) -> None:
        """Run ``securefl server start`` or, for a site's name, ``securefl site start``."""
        group = "server" if name == "server" else "site"
        within = self.network.within(name) if self.network and group == "site" else []
        command = [*within, sys.executable, "-m", "securefl", group, "start", str(self.root / name)]
        with (self.root / f"{name}.out").open("ab") as log:
            self._keeping[name] = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )

    def kept(self, name: str) -> bool:
        """Whether what keeps a site, or the server, runs."""
        return self._keeping[name].poll() is None

    def serves(self, name: str) -> bool:
        """Whether a site's client process takes letters."""
        try:
            connect(self.sites[name].socket).close()
        except Lost:
            return False
        return True

    def stop(self) -> None:
        """End all of it, what hangs too."""
        for process in self._keeping.values():
            process.terminate()
        for name in self.names:
            self._thaw(name)
        for process in self._keeping.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in self._all():
            _signal(pid, signal.SIGKILL)

    def strike(self, part: Part, number: signal.Signals, name: str = "server") -> None:
        """Send a signal to a part; ``site`` is the supervisor, with which all of a site goes. A network stops and goes
        on by its cable.
        """
        if part == "network" and self.network is not None:
            (self.network.mend if number == signal.SIGCONT else self.network.cut)(name)
            return
        pid = self._keeping[name].pid if part == "site" else self.pid(part, name)
        if pid is None:
            raise RuntimeError(f"{name} has no {part}")
        _signal(pid, number)

    def pid(self, part: Part, name: str = "server") -> int | None:
        """That of a part, if it runs."""
        folder = str(self.root / name)
        marks = {
            "client": ("securefl", "client", folder),
            "line": ("securefl.engines.nvflare.closed", f"{folder}/kit"),
            "worker": ("nvflare.private.fed.app.client.worker_process", f"{folder}/kit"),
            "server": ("nvflare.private.fed.app.server.server_train", f"{folder}/kit"),
            "job": ("nvflare.private.fed.app.server.runner_process", f"{folder}/kit"),
        }[part]
        found = [pid for pid, words in _processes() if all(mark in words for mark in marks)]
        return max(found, default=None)

    def wait(self, ready: Callable[[], bool], seconds: float = _START) -> None:
        until = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > until:
                raise TimeoutError("\n".join(path.read_text()[-500:] for path in sorted(self.root.glob("*.out"))))
            time.sleep(0.1)

    def _all(self) -> list[int]:
        return [pid for pid, words in _processes() if any(str(self.root) in word for word in words)]

    def _thaw(self, name: str) -> None:
        for pid in self._all():
            _signal(pid, signal.SIGCONT)


@contextmanager
def deployed(
    root: Path, names: Sequence[str], site: str = SITE, network: Network | None = None
) -> Iterator[Deployment]:
    """One that is set up and running, and ended afterwards."""
    deployment = Deployment(root, names, site, network)
    if network is not None:
        network.make()
    try:
        deployment.set_up()
        deployment.start()
        yield deployment
    finally:
        deployment.stop()
        if network is not None:
            network.remove()


def _processes() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:  # it has ended meanwhile
                continue


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def environment() -> dict[str, str]:
    """One thread a process, of which there are some three a site; and this folder's code, where a site names it."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
