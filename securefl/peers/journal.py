"""A peer's own record of a run, in files: one line a settled round, and what crossed the wire in it.

The batons in the peer's store are what counts; the files are made from them, anew where a crash left them short.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from securefl.peers.baton import Baton
from securefl.records import RoundRecord
from securefl.run_folder import HISTORY, TRANSCRIPT, append, append_durably, lines, mend
from securefl.transcript import Crossing


class Journal:
    """In a folder; ``batons`` are those that are settled already, in order. None keeps nothing."""

    def __init__(self, folder: Path | None, batons: Iterable[Baton] = ()) -> None:
        self._folder = folder
        known = list(batons)
        if folder is None or self._whole(folder, known):
            return
        for name in (TRANSCRIPT, HISTORY):
            (folder / name).unlink(missing_ok=True)
        for baton in known:
            self.add(baton)

    def add(self, baton: Baton) -> None:
        """Write down the next round. The history's line comes last: a round that has it is whole."""
        if self._folder is None:
            return
        with (self._folder / TRANSCRIPT).open("ab") as crossings:
            for crossing in baton.crossings:
                append(crossings, crossing)
        with (self._folder / HISTORY).open("ab") as history:
            append_durably(history, baton.record)

    @staticmethod
    def _whole(folder: Path, batons: list[Baton]) -> bool:
        for name in (TRANSCRIPT, HISTORY):
            mend(folder / name)
        crossings = [crossing for baton in batons for crossing in baton.crossings]
        return lines(folder / HISTORY, RoundRecord) == [baton.record for baton in batons] and (
            lines(folder / TRANSCRIPT, Crossing) == crossings
        )
