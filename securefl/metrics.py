"""A run's figures for Prometheus, on request: counts, bytes, seconds and stages. The only door to its client library.

Labels are clients' names and fixed words. It is plain HTTP without a password: whoever reaches the address reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from securefl.errors import BadInput, MissingExtra
from securefl.progress import PRESENCE, Stage, Watcher
from securefl.transcript import KINDS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from securefl.records import RoundRecord
    from securefl.transcript import Crossing

_HERE: Final = "127.0.0.1"
_STAGES: Final = (PRESENCE, *KINDS.values(), "other")
_REASONS: Final = {
    "exchange ": "silent",
    "not reached": "not reached",
    "refused: budget": "refused for its budget",
    "refused: ": "refused",
    "left out: ": "left out",
    "blamed: ": "blamed",
    "disputed: ": "disputed",
}
"""How a reason begins, and its class; of two that fit, the first."""


@contextmanager
def served(address: str) -> Iterator[Figures]:
    """Figures that are served at PORT of this machine, or at HOST:PORT, as long as the context lasts.

    Raises ``BadInput`` for an address that cannot be served at, ``MissingExtra`` without the client library.
    """
    host, port = _parsed(address)
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ModuleNotFoundError as error:
        raise MissingExtra("--metrics", "metrics") from error
    registry = CollectorRegistry()
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise BadInput(f"--metrics: {address} cannot be served at ({error.strerror}): name another port") from error
    try:
        yield Figures(registry, f"http://{host}:{server.server_port}/metrics")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reason(why: str) -> str:
    """The class of a reason why a client did not contribute: one of a few fixed words, whatever a client said."""
    return next((word for beginning, word in _REASONS.items() if why.startswith(beginning)), "faulty")


class Figures(Watcher):
    """What goes on in a run, counted since its process began. ``address``: where it is served."""

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        from prometheus_client import Counter, Enum, Gauge

        self.address = address
        self._rounds = Counter("securefl_rounds_completed", "Rounds that were committed.", registry=registry)
        self._attempts = Counter("securefl_attempts", "Attempts at rounds that were begun.", registry=registry)
        self._contributors = Gauge(
            "securefl_contributors", "Clients whose updates are in the last round's sum.", registry=registry
        )
        self._dropped = Counter(
            "securefl_dropped", "Clients without a part in a committed round.", ["reason"], registry=registry
        )
        self._bytes = Counter("securefl_bytes", "Bytes of messages.", ["client", "direction"], registry=registry)
        self._seconds = Gauge("securefl_round_seconds", "Wall time of the last round.", registry=registry)
        self._round = Gauge("securefl_round", "The round that goes on; 0: the set-up.", registry=registry)
        self._stage = Enum("securefl_stage", "The exchange that goes on.", states=_STAGES, registry=registry)
        self._asked = Gauge("securefl_asked", "Clients that are asked in this exchange.", registry=registry)
        self._answered = Gauge("securefl_answered", "Those of them that have answered.", registry=registry)

    def stage(self, stage: Stage) -> None:
        self._round.set(stage.round)
        self._stage.state(stage.kind if stage.kind in _STAGES else "other")
        self._asked.set(stage.asked)
        self._answered.set(stage.answered)
        if stage.kind == "keys" and stage.answered == 0:
            self._attempts.inc()

    def crossed(self, crossing: Crossing) -> None:
        self._bytes.labels(crossing.client, crossing.direction).inc(crossing.bytes)

    def completed(self, record: RoundRecord) -> None:
        self._rounds.inc()
        self._contributors.set(len(record.contributors))
        self._seconds.set(record.seconds)
        for why in record.dropped.values():
            self._dropped.labels(reason(why)).inc()


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise BadInput(f"--metrics {address!r}: write a port, for example 9400, or HOST:PORT")
    return host.strip("[]") or _HERE, int(port)
