"""Starts and ends our job at an nvflare server, as its administrator: configuration only, it carries no code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import Any, Final

from securefl.errors import MissingExtra, SecureFLError

CONTROLLER: Final = "securefl.engines.nvflare.controller.Switchboard"
EXECUTOR: Final = "securefl.engines.nvflare.executor.Forwarder"
NAME: Final = "securefl"
_PATIENCE: Final = 10.0  # seconds to reach the server


class Unreachable(SecureFLError):
    """The nvflare server does not answer, or does not do as its administrator says."""


class Jobs:
    """At one server. ``kit`` is the administrator's, ``user`` the name in it."""

    def __init__(self, kit: Path, user: str) -> None:
        self._kit, self._user = kit, user
        self._session: Any = None
        self._one_at_a_time = RLock()  # a session is for one thread

    def submit(self) -> str:
        """Start the job at all sites that are connected, in the place of one that runs; returns its id."""
        with self._reached() as session, TemporaryDirectory() as folder:
            for job in session.list_jobs(limit=20, reverse=True):
                if job["job_name"] == NAME and not str(job["status"]).startswith("FINISHED"):
                    with suppress(Exception):  # one that a server left behind as it died cannot be ended
                        session.abort_job(job["job_id"])
            write(Path(folder) / NAME)
            return str(session.submit_job(str(Path(folder) / NAME)))

    def ended(self, job: str) -> bool:
        """Whether a job is over, however it ended."""
        with self._reached() as session:
            return str(session.get_job_meta(job)["status"]).startswith("FINISHED")

    def abort(self, job: str) -> None:
        with self._reached() as session:
            session.abort_job(job)

    def connected(self) -> frozenset[str]:
        """The sites that are connected to the server."""
        with self._reached() as session:
            return frozenset(client.name for client in session.get_system_info().client_info)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    @contextmanager
    def _reached(self) -> Iterator[Any]:
        """A session, opened where there is none. Whatever goes wrong in it, the next one is a new one."""
        with self._one_at_a_time, self._open() as session:
            yield session

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            from nvflare.fuel.flare_api.flare_api import new_secure_session
            from nvflare.fuel.hci.client.api import AdminAPI
        except ImportError as error:
            raise MissingExtra("--engine nvflare", "nvflare") from error
        try:
            if self._session is None:
                AdminAPI._print_hci = _unsaid
                self._session = new_secure_session(self._user, str(self._kit), timeout=_PATIENCE)
            yield self._session
        except Exception as error:  # its own errors have no common type
            self.close()
            raise Unreachable(f"the nvflare server: {type(error).__name__}: {error}") from error


def _unsaid(self: object, what: str) -> None:
    """In the place of what nvflare prints as it connects: whoever started a run hears it from us."""


def write(folder: Path) -> None:
    """The job, as nvflare wants it: a folder."""
    app = folder / "app" / "config"
    app.mkdir(parents=True)
    _write(folder / "meta.json", {"name": NAME, "resource_spec": {}, "min_clients": 1, "deploy_map": {"app": ["@ALL"]}})
    controller = {"id": NAME, "path": CONTROLLER, "args": {}}
    _write(app / "config_fed_server.json", {"format_version": 2, "workflows": [controller], "components": []})
    executor = {"tasks": [NAME], "executor": {"path": EXECUTOR, "args": {}}}
    _write(app / "config_fed_client.json", {"format_version": 2, "executors": [executor], "components": []})


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
