"""Real processes of nvflare on this machine: a server, sites, and what an administrator sends them.

The server may lie: it then asks nobody whether a request is allowed, and says to sites that they need not ask either.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from securefl.engines.nvflare import jobs, kit
from securefl.engines.nvflare.frames import SOCKET
from securefl.engines.pipe import Door

LIAR: Final = """
import sys
from nvflare.private.admin_defs import Message
from nvflare.private.defs import RequestHeader
from nvflare.private.fed.app.server import server_train

honest = Message.set_header
Message.set_header = lambda self, key, value: honest(
    self, key, "false" if key == RequestHeader.REQUIRE_AUTHZ else value
)
arguments = server_train.parse_arguments()
sys.exit(server_train.mpm.run(main_func=server_train.main, run_dir=arguments.workspace, args=arguments))
"""
"""A server that tells sites that nothing has to be authorised."""
CURIOUS: Final = """
import sys
from threading import Thread
from nvflare.private.admin_defs import Message
from nvflare.private.defs import CellChannel, SysCommandTopic, new_cell_message
from nvflare.private.fed.app.client import client_train

def ask(client):
    request = new_cell_message({}, Message(SysCommandTopic.SHELL, "cat records.csv"))
    place = {"channel": CellChannel.CLIENT_MAIN, "target": "hospital-1", "topic": SysCommandTopic.SHELL}
    reply = client.cell.send_request(**place, request=request, timeout=20.0)
    print("ANSWER", reply.payload.body, flush=True)

ordinary = client_train.create_admin_agent

def create(processors, client, engine):
    Thread(target=ask, args=(client,)).start()
    return ordinary(processors, client, engine)

client_train.create_admin_agent = create
arguments = client_train.parse_arguments()
sys.exit(client_train.mpm.run(main_func=client_train.main, run_dir=arguments.workspace, args=arguments))
"""
"""A site that asks another one for a file, by way of the server."""
OPEN_SITE: Final = "nvflare.private.fed.app.client.client_train"
SECONDS: Final = 60.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def lying(server: Path) -> list[str]:
    """The command of a lying server; its own settings allow everything."""
    for name, content in (
        ("authorization.json", {"format_version": "1.0", "permissions": {"lead": "any"}}),
        ("resources.json", {**json.loads((server / "local/resources.json").read_text()), "class_allow_list": ["*"]}),
    ):
        (server / "local" / name).write_text(json.dumps(content))
    command = kit.server_command(server)
    return [*command[:2], "-c", LIAR, *command[4:]]


def nvflares_own(site: Path) -> list[str]:
    """The command of a site as nvflare would run it."""
    command = kit.site_command(site)
    return [*command[:3], OPEN_SITE, *command[4:]]


def curious(site: Path) -> list[str]:
    """The command of a site that asks hospital-1 for a file of its."""
    command = kit.site_command(site)
    return [*command[:2], "-c", CURIOUS, *command[4:]]


@dataclass
class Network:
    """Processes that end with it."""

    path: Path
    server: Path
    admin: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _session: Any = None

    def start(self, name: str, command: Sequence[str]) -> None:
        with (self.path / f"{name}.out").open("wb") as log:
            started = subprocess.Popen(
                command, cwd=self.path, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.running.append(started)

    def said(self, name: str) -> str:
        """What a process printed."""
        return (self.path / f"{name}.out").read_text(errors="replace")

    def session(self) -> Any:
        """The administrator's, once the server answers."""
        from nvflare.fuel.flare_api.flare_api import new_secure_session

        if self._session is None:
            wait(lambda: "Server started" in self.said("server"))
            found = kit.admin(self.admin)
            self._session = new_secure_session(found.username, found.location, timeout=30)
        return self._session

    def connected(self) -> set[str]:
        return {client.name for client in self.session().get_system_info().client_info}

    def submit(self, folder: Path, client: object = None, code: str | None = None) -> str:
        """Our job, with another configuration of its clients or with code, if given; its id."""
        jobs.write(folder / jobs.NAME)
        app = folder / jobs.NAME / "app"
        if client is not None:
            (app / "config" / "config_fed_client.json").write_text(json.dumps(client))
        if code is not None:
            (app / "custom").mkdir()
            (app / "custom" / "foreign.py").write_text(code)
        return str(self.session().submit_job(str(folder / jobs.NAME)))

    def meta(self, job: str) -> dict[str, Any]:
        return dict(self.session().get_job_meta(job))

    def ended(self, job: str) -> dict[str, Any]:
        """What the server says of a job once it is over."""
        wait(lambda: str(self.meta(job)["status"]).startswith("FINISHED"))
        return self.meta(job)

    @contextmanager
    def coordinator(self) -> Iterator[None]:
        """Somebody for the job at the server to connect to, so that it goes on until this ends."""
        door = Door(self.server / SOCKET)
        try:
            yield
        finally:
            door.close()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(15)
            finally:
                with_children(process.pid)


def with_children(group: int) -> None:
    """End what a process that we started in a session of its own has left behind."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def wait(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Until it holds; fails if it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.3)


def own_copy(path: Path, to: Path) -> Path:
    shutil.copytree(path, to)
    return to
