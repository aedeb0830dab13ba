"""The client process: the one that has a site's data, keys and ledger. It answers on a socket in the site's folder."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Final

from protocols.errors import Forged, ProtocolError
from protocols.primitives import verify
from securefl.deployment.diary import Diary
from securefl.deployment.peering import Peering
from securefl.deployment.site import Site
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.letters import Ask, claim
from securefl.engines.mailbox import Mailbox
from securefl.engines.nvflare import frames
from securefl.engines.nvflare.frames import Forwarded, Ready
from securefl.engines.pipe import Door, Lost, Pipe
from securefl.peers.channel import MAGIC
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
    mailbox = Mailbox(site.handle, _by_the_coordinator(folder, site.name))
    peering = Peering(folder, site, diary, PATIENCE)
    peering.start()
    door = Door(folder.socket)
    diary.event("started")
    ready()
    try:
        while True:
            Thread(target=_answer, args=(door.accept(), mailbox, peering, diary), daemon=True).start()
    finally:
        diary.event("stopped")
        door.close()
        del held


def _answer(asking: Pipe, mailbox: Mailbox, peering: Peering, diary: Diary) -> None:
    """Who connects is the worker who carries letters out, or it forwards one thing that somebody asks: the server or,
    sealed, a peer. Which of the two it is the worker says first, and no letter can.
    """
    try:
        match frames.decoded(asking.receive(_READ)):
            case Ready() as worker:
                peering.carrier.serve(asking, worker)
            case Forwarded():
                letter = asking.receive(_READ)
                sealed = letter.startswith(MAGIC)
                asking.send(peering.receive(letter) if sealed else mailbox.receive(letter, PATIENCE))
    except Forged as error:  # another site, for example, that speaks as the coordinator
        diary.tell(str(error))
    except (Lost, ProtocolError):
        pass  # whoever carries letters is gone, or speaks another language: the letter comes again
    finally:
        asking.close()


def _by_the_coordinator(folder: SiteFolder, name: str) -> Callable[[Ask], None]:
    """Refuses a request that the coordinator of the pinned roster did not sign for this site: nvflare lets sites write
    to each other.
    """
    key = bytes.fromhex(folder.roster().coordinator)

    def check(ask: Ask) -> None:
        verify(key, ask.signature, claim(name, ask.id, ask.body), "the coordinator under a letter")

    return check
