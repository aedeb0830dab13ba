"""The door to Ray: a cluster that is started here or joined, and processes on it that answer calls.

Whoever may speak to a cluster runs any code on it, and Ray itself moves values between its processes as pickles: it is
one trust domain. Nothing that comes from elsewhere passes here; messages of a round are bytes.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from importlib import util
from types import ModuleType
from typing import Concatenate, Final, Generic, ParamSpec, TypeVar, cast

from securefl.errors import BadInput, MissingExtra
from securefl.settings import Resources

Service = TypeVar("Service")
Answer = TypeVar("Answer")
Answers = TypeVar("Answers", covariant=True)
Arguments = ParamSpec("Arguments")

_GREETING: Final = 10.0  # seconds in which a cluster answers
_COPIED: Final = 100_000  # bytes: what is longer, Ray lays into shared memory, anew for each call that brings it


class Lost(Exception):
    """A process that is gone, and with it what it had to answer."""


class Call(Generic[Answers]):
    """What a process was asked. ``reference``: to its answer, as Ray has it."""

    def __init__(self, reference: object) -> None:
        self.reference = reference


class Process(Generic[Service]):
    """An actor: one process, which answers one call after another and keeps what it has in memory between them."""

    def __init__(self, actor: object) -> None:
        self.actor = actor

    def ask(
        self,
        work: Callable[Concatenate[Service, Arguments], Answer],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Call[Answer]:
        """Call a method of its service. Returns at once."""
        return Call(getattr(self.actor, work.__name__).remote(*arguments, **named))


class Cluster:
    """The cluster at ``address``, or else one of this machine alone, which ends with ``close``. Where this process is
    on a cluster already, it is that one, which stays.

    Raises ``MissingExtra`` without Ray, and ``BadInput`` where no cluster can be reached or started.
    """

    def __init__(self, address: str | None) -> None:
        require()
        if address is None:
            _keep_to_this_machine()
        import ray

        self._ray: ModuleType = ray
        self._joined = not ray.is_initialized()
        self.own = self._joined and address is None
        """Whether it was started here, and has what this machine has, for good."""
        if self._joined:
            self._join(address)
            _may_print(False)

    def _join(self, address: str | None) -> None:
        options = {"include_dashboard": False} if address is None else {}
        try:
            if address is not None and ":" in address:
                _knock(address)
            self._ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
        except (self._ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
            where = "on this machine" if address is None else f"at {address}"
            raise BadInput(
                f"no Ray cluster {where} ({_first_line(error)}): start one with ray start --head, of the same versions "
                "of Ray and Python, and check its address and the token that it asks for"
            ) from error

    def total(self, resource: str) -> float:
        """Of "CPU" or "GPU", what the whole cluster has."""
        return float(self._ray.cluster_resources().get(resource, 0.0))

    def process(self, service: type[Service], resources: Resources) -> Process[Service]:
        """A new process, as soon as there is room for it. Once lost, it stays so, and no call is ever made twice."""
        actor = self._ray.remote(service).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        return Process(actor.remote())

    def end(self, process: Process[Service]) -> None:
        """Wherever it is and whatever it does."""
        self._ray.kill(process.actor, no_restart=True)

    def ready(self, calls: Iterable[Call[Answer]], seconds: float) -> Call[Answer] | None:
        """One of the calls that has its answer, or is lost; None where none has within so many seconds."""
        references = {call.reference: call for call in calls}
        if not references:
            return None
        done, _ = self._ray.wait(list(references), num_returns=1, timeout=max(0.0, seconds))
        return references[done[0]] if done else None

    def answer(self, call: Call[Answer]) -> Answer:
        """Of a call that is ready. Raises ``Lost`` where its process, or the answer, is."""
        try:
            return cast(Answer, self._ray.get(call.reference))
        except self._ray.exceptions.RayTaskError as error:  # a service of ours answers whatever happens
            raise BadInput(
                f"an actor cannot do what it was sent ({_first_line(error.cause)}): install the same packages on every "
                "machine of the cluster, and name nothing there that is known here only"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise Lost(_first_line(error)) from error

    def shared(self, data: bytes) -> bytes:
        """The same bytes, to be handed to many calls: those get them from shared memory, where there is one copy."""
        return cast(bytes, self._ray.put(data)) if len(data) > _COPIED else data

    def close(self) -> None:
        """Leave the cluster, if this joined it. One that was started here ends, with all its processes."""
        if self._joined:
            self._joined = False
            _may_print(True)
            self._ray.shutdown()


def require() -> None:
    """Raise ``MissingExtra`` where Ray is not installed."""
    if util.find_spec("ray") is None:
        raise MissingExtra("the Ray engine", "ray")


def _may_print(allowed: bool) -> None:
    """Whether Ray tells of processes that end on standard output, which is its caller's. It has no public switch."""
    from ray._private import worker

    worker._worker_logs_enabled = allowed


def _knock(address: str) -> None:
    """Raises ``OSError`` or ``ValueError`` where nobody listens: Ray would try for minutes, then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _GREETING).close()


def _keep_to_this_machine() -> None:
    """Of a cluster that is started here, nothing is open to others, and nothing is told to Ray's makers.

    Ray listens on all interfaces unless it believes that it cannot have other machines, which it decides as it is first
    imported. The token keeps out other users of this machine, and whoever can reach it where Ray was imported before.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
