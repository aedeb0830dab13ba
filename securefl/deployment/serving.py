"""The client process: the one that has a site's data, keys and ledger. It answers on a socket in the site's folder."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Final

from protocols.errors import MalformedMessage
from securefl.deployment.diary import Diary
from securefl.deployment.site import Site
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.mailbox import Mailbox
from securefl.engines.pipe import Door, Lost, Pipe
from securefl.run_lock import lock

PATIENCE: Final = 10.0
"""Seconds until whoever asked hears that the answer is being worked on."""
_READ: Final = 60.0  # seconds for a letter to arrive once somebody connected


def serve(folder: SiteFolder, ready: Callable[[], None] = lambda: None) -> None:
    """Answer until the process ends. ``ready`` is called once the site can be asked.

    Raises ``BadInput`` where another process serves this folder, or where it cannot serve.
    """
    held = lock(folder.path)
    diary = Diary(folder.log)
    site = Site(folder, diary)
    mailbox = Mailbox(site.handle)
    door = Door(folder.socket)
    diary.event("started")
    ready()
    try:
        while True:
            Thread(target=_answer, args=(door.accept(), mailbox), daemon=True).start()
    finally:
        diary.event("stopped")
        door.close()
        del held


def _answer(asking: Pipe, mailbox: Mailbox) -> None:
    try:
        asking.send(mailbox.receive(asking.receive(_READ), PATIENCE))
    except (Lost, MalformedMessage):
        pass  # whoever carries letters is gone, or speaks another language: the letter comes again
    finally:
        asking.close()
