"""The client process's way out: the site's worker of the engine connects to it and carries its letters to other sites.

A site only dials out, and its client process not even that: it waits until a worker is there.
"""

from __future__ import annotations

import time
from threading import Condition
from typing import Final

from securefl.engines.link import Link
from securefl.engines.nvflare.frames import Ready
from securefl.engines.pipe import Lost, Pipe

_KEPT: Final = 2  # workers: that of this job, and that of the job before, which may be ending


class Carrier:
    """Whichever worker connected last; the one before, where that is gone or brings nothing back."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._links: list[Link] = []

    def serve(self, pipe: Pipe, ready: Ready) -> None:
        """Take what a worker brings back, until it is gone."""
        link = Link(pipe, ready.sites)
        with self._changed:
            self._links.append(link)
            surplus = self._links[:-_KEPT]
            self._changed.notify_all()
        for old in surplus:
            old.close()
        link.listen()
        self._forget(link)

    def carry(self, site: str, letter: bytes, seconds: float) -> bytes | None:
        """Take a letter to a site; its reply, or None where none came in time."""
        until = time.monotonic() + seconds
        while (link := self._awaited(site, until)) is not None and (left := until - time.monotonic()) > 0:
            try:
                return link.carry(site, letter, left)
            except Lost:
                self._forget(link)
        return None

    def _awaited(self, site: str, until: float) -> Link | None:
        """The best worker for a site; waits until there is any worker at all."""
        with self._changed:
            self._changed.wait_for(lambda: self._links, max(0.0, until - time.monotonic()))
            newest_first = [link for link in reversed(self._links) if site in link.sites]
            return min(newest_first, key=lambda link: link.silent, default=None)

    def _forget(self, link: Link) -> None:
        with self._changed:
            if link in self._links:
                self._links.remove(link)
