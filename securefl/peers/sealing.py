"""Carries letters to peers in sealed channels, which it opens where there is none."""

from __future__ import annotations

import time
from collections import defaultdict
from threading import Lock

from protocols.errors import ProtocolError
from securefl.engines.correspondence import Carry
from securefl.peers.channel import Channels


class Sealing:
    """``carry`` takes bytes to a peer and brings bytes back, whatever they are."""

    def __init__(self, channels: Channels, carry: Carry) -> None:
        self._channels = channels
        self._carry = carry
        self._opening: defaultdict[str, Lock] = defaultdict(Lock)

    def carry(self, peer: str, letter: bytes, seconds: float) -> bytes | None:
        """The reply, or None where none came in time that is one: whoever asks again has a new channel opened."""
        until = time.monotonic() + seconds
        try:
            with self._opening[peer]:
                if not self._channels.is_open(peer) and not self._opened(peer, seconds):
                    return None
                sealed, open_reply = self._channels.sealed(peer, letter)
            brought = self._carry(peer, sealed, max(0.1, until - time.monotonic()))
            return None if brought is None else open_reply(brought)
        except ProtocolError:
            return None

    def _opened(self, peer: str, seconds: float) -> bool:
        brought = self._carry(peer, self._channels.opening(peer), seconds)
        if brought is None:
            return False
        self._channels.opened(peer, brought)
        return True
