"""The coordinator's line to the sites: a job at the nvflare server, submitted anew whenever it is gone.

Nothing is lost with a job: what was being carried is carried again by the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread
from typing import Final

from protocols.errors import MalformedMessage
from securefl.engines.link import Link
from securefl.engines.nvflare.frames import SOCKET, Ready, decoded
from securefl.engines.nvflare.jobs import Jobs, Unreachable
from securefl.engines.pipe import Door, Lost, Pipe
from securefl.run_lock import Lock as Folder
from securefl.run_lock import lock

_START: Final = 60.0  # seconds that a submitted job may take until it is ready
_FIRST: Final = 10.0  # seconds for the first word of a job that connected
_LOOK: Final = 1.0  # seconds between looks at a job that is not ready
_GATHER: Final = 5.0  # seconds for sites to come back before a job is submitted without them
_SILENT: Final = 30.0  # seconds until a job is replaced again for a site that stayed silent; twice as many each time
_MUTE: Final = 5.0  # seconds after the first letter that a site left without a word until the job is replaced for it
_AGAIN: Final = 2.0  # seconds before a server that was not reached is tried again


class Line:
    """One coordinator's. ``kit``: the server's, in whose folder the job looks for the coordinator; ``sites``: those
    that it is for.
    """

    def __init__(
        self, kit: Path, jobs: Jobs, sites: Collection[str], tell: Callable[[str], None] = lambda what: None
    ) -> None:
        self._jobs, self._sites, self._tell = jobs, frozenset(sites), tell
        self._held: Folder | None = lock(kit)  # two at one server would each end the other's job
        self._door = Door(kit / SOCKET)
        self._changed = Condition()
        self._connected: Link | None = None
        self._submitted = ""
        self._again: dict[str, tuple[float, float]] = {}  # of silent sites: when the job may be replaced, and the wait
        self._mute: dict[str, float] = {}  # sites that leave letters without a word, and since when
        self._open = True
        self._away: frozenset[str] = frozenset()  # sites that were not connected as the last job was submitted
        for task in (self._accept, self._keep):
            Thread(target=task, daemon=True).start()

    def carry(self, site: str, letter: bytes, seconds: float) -> bytes | None:
        """Take a letter to a site; its reply, or None where none came in time."""
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: self._connected is not None or not self._open, seconds)
            connected = self._connected
        if connected is None or site not in connected.sites:
            return None
        try:
            brought = connected.carry(site, letter, until - time.monotonic())
        except Lost:  # with the job, which is no fault of the site
            return None
        if brought is None:
            self._mute.setdefault(site, time.monotonic())
        else:
            self._mute.pop(site, None)
            self._again.pop(site, None)
        return brought

    def ready(self, seconds: float) -> bool:
        """Wait until a job carries letters."""
        with self._changed:
            return self._changed.wait_for(lambda: self._connected is not None, seconds)

    def include(self, missing: Collection[str]) -> None:
        """Replace the job where sites that say nothing are connected to the server: a site that was restarted is in no
        job any more. One that stays silent all the same is not tried for again at once.
        """
        connected, now = self._connected, time.monotonic()
        if connected is None:
            return
        known = {name: self._again.get(name, (now, _SILENT)) for name in missing}
        worth = {name for name, (when, _) in known.items() if now >= when}
        with suppress(Unreachable):
            if worth and (back := self._jobs.connected() & worth):
                self._again |= {name: (now + known[name][1], 2 * known[name][1]) for name in back}
                self._replace(connected, back)

    def close(self) -> None:
        """End the job, and let others have the server."""
        self._open, self._held = False, None
        if (connected := self._connected) is not None:
            connected.close()
        self._door.close()
        with self._changed:
            self._changed.notify_all()

    def _accept(self) -> None:
        while self._open:
            try:
                pipe = self._door.accept()
            except Lost:
                continue
            if (ready := _ready(pipe)) is None or ready.job != self._submitted:
                pipe.close()  # a job of before, that is ending
                continue
            connected = Link(pipe, ready.sites)
            with self._changed:
                before, self._connected = self._connected, connected
                self._changed.notify_all()
            if before is not None:
                before.close()
            self._tell(f"connected: {', '.join(sorted(ready.sites))}")
            Thread(target=self._read, args=(connected,), daemon=True).start()

    def _read(self, connected: Link) -> None:
        connected.listen()
        self._lose(connected)

    def _lose(self, connected: Link) -> None:
        with self._changed:
            if self._connected is connected:
                self._connected = None
                if self._open:
                    self._tell("the job at the server has ended; another is started")
            self._changed.notify_all()

    def _keep(self) -> None:
        """See to it that there is a job."""
        while self._open:
            try:
                self._gather()
                self._submitted = self._jobs.submit()
                self._await(self._submitted)
                self._watch()
            except Unreachable as error:
                self._tell(str(error))
                time.sleep(_AGAIN)
        self._jobs.close()

    def _gather(self) -> None:
        """Wait a little for all sites: after the server was restarted, they come back one by one."""
        until = time.monotonic() + _GATHER
        while missing := self._sites - self._jobs.connected():
            if not self._open or missing == self._away or time.monotonic() > until:
                break
            time.sleep(_LOOK / 2)
        self._away = missing

    def _watch(self) -> None:
        """Until the job is gone; it is replaced where a site comes that was not there as it began."""
        while (connected := self._connected) is not None and self._open:
            with self._changed:
                if self._changed.wait_for(lambda: self._connected is not connected or not self._open, _AGAIN):
                    return
            self.include([name for name, since in tuple(self._mute.items()) if time.monotonic() - since > _MUTE])
            if self._connected is not connected:
                return
            lacking = self._sites - connected.sites
            if lacking and (back := self._jobs.connected() & lacking):
                self._replace(connected, back)

    def _replace(self, connected: Link, back: Collection[str]) -> None:
        self._mute.clear()  # whoever is in the next job is given time to speak
        self._tell(f"{', '.join(sorted(back))} may be back")
        connected.close()
        self._lose(connected)

    def _await(self, job: str) -> None:
        """Until the job is ready, over, or too late."""
        until = time.monotonic() + _START
        while self._open and time.monotonic() < until:
            with self._changed:
                if self._changed.wait_for(lambda: self._connected is not None, _LOOK):
                    return
            if self._jobs.ended(job):
                return


def _ready(pipe: Pipe) -> Ready | None:
    """What a job says first; None for anything else."""
    try:
        said = decoded(pipe.receive(_FIRST))
    except (Lost, MalformedMessage):
        return None
    return said if isinstance(said, Ready) else None
