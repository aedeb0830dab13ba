"""A site's runs without a server, in its client process: it takes part where its owner does, and acts when it is time.

One run at a time: the newest that the owner accepts, until one of them begins; another takes its place once it is over,
or silent for long. What others send comes in sealed letters only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Final

from protocols.aggregation.messages import Refusal
from protocols.aggregation.session import Roster
from protocols.errors import ConfigurationError, ProtocolError
from protocols.wire import decode, encode, kind
from securefl.deployment.diary import Diary
from securefl.deployment.in_turn_folder import InTurnFolder, all_in
from securefl.deployment.in_turn_run import apart, ending, past, write_model
from securefl.deployment.site import Site
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.carrier import Carrier
from securefl.engines.correspondence import Correspondence
from securefl.engines.mailbox import Mailbox
from securefl.errors import Refused, SecureFLError
from securefl.peers.apart import Apart
from securefl.peers.channel import Channels
from securefl.peers.circle import Circle
from securefl.peers.messages import FetchRequest, TurnRequest, run_of
from securefl.peers.proposal import ProposeInTurn, read
from securefl.peers.sealing import Sealing
from securefl.proposal import Consent, Word
from securefl.run_folder import PLAN
from securefl.settings import InTurnApart

_LOOK: Final = 0.5  # seconds between looks at whose turn it is
_PROPOSE: Final = 5.0  # seconds between proposals to those who have not decided yet
_RECONSIDER: Final = 10.0  # seconds until an owner who does not take part yet is asked again
_SILENT: Final = 24 * 3600.0  # seconds in which nobody asks anything in a run, after which it is in nobody's way
_MOST: Final = 10  # runs of one proposer that are accepted and have not begun: who proposes may do so without end


class Peering:
    """Of one site. ``patience``: seconds until who sent a letter hears that the answer is being worked on."""

    def __init__(self, folder: SiteFolder, site: Site, diary: Diary, patience: float) -> None:
        self._folder, self._site, self._diary, self._patience = folder, site, diary, patience
        self.carrier = Carrier()
        self._channels = Channels(site.name, site.identity, site.roster)
        self._carry = Sealing(self._channels, self.carrier.carry).carry
        self._mailboxes: dict[str, Mailbox] = {}
        self._lock = Lock()
        self._over = Event()
        self._tasks: list[Thread] = []
        self._current: tuple[InTurnFolder, Apart] | None = None
        self._answered = time.monotonic()  # when somebody was, in the current run
        self._told: set[str] = set()  # what is wrong with folders
        self._words: dict[str, dict[str, Word]] = {}  # by run, who has decided
        self._ask_again: dict[str, float] = {}  # by run, when this owner may have decided otherwise

    def start(self) -> None:
        """Work beside whoever called, until the process ends or ``close`` is called."""
        for task in (self._act, self._propose):
            self._tasks.append(Thread(target=self._forever, args=(task,), daemon=True))
            self._tasks[-1].start()

    def close(self) -> None:
        """Act no more; what has begun is finished."""
        self._over.set()
        for task in self._tasks:
            task.join()
        for mailbox in self._mailboxes.values():
            mailbox.close()

    def receive(self, carried: bytes) -> bytes:
        """Answer what somebody carried here. Raises ``ProtocolError`` for what no member of the roster sealed."""
        return self._channels.answer(carried, self._letter)

    def _letter(self, sender: str, letter: bytes) -> bytes:
        with self._lock:
            if sender not in self._mailboxes:
                self._mailboxes[sender] = Mailbox(lambda request: self._answer(sender, request))
        return self._mailboxes[sender].receive(letter, self._patience)

    def _answer(self, sender: str, request: bytes) -> bytes:
        try:
            if kind(request) == ProposeInTurn.KIND:
                return encode(Consent(self._proposed(sender, decode(request, ProposeInTurn))))
            if (asked := _history(request)) is not None and (folder := self._ended(asked.run)) is not None:
                return past(folder, self._site, sender, asked)
            reply = self._current_for(request).handle(sender, request)
            if kind(reply) != Refusal.KIND:
                self._answered = time.monotonic()
            return reply
        except (ProtocolError, SecureFLError, ConfigurationError) as error:
            self._diary.tell(f"{sender} was refused: {error}")
            return encode(Refusal("protocol" if isinstance(error, ProtocolError) else "policy"))

    def _ended(self, run: str) -> InTurnFolder | None:
        """The folder of a run that is over here, and that nothing is left of but what is in it."""
        if self._site.proposer(run) is None or (self._current is not None and self._current[0].run == run):
            return None
        folder = InTurnFolder(self._folder.runs / run)
        return folder if folder.path.exists() and folder.ended else None

    def _current_for(self, request: bytes) -> Apart:
        """The peer that is asked: of the run that goes on or, while none does, of the one that the request is about."""
        asked = run_of(request)
        if asked is not None and self._site.proposer(asked) is not None:
            folder = InTurnFolder(self._folder.runs / asked)
            if folder.path.exists():
                self._take_up(folder)
        if self._current is None:
            raise Refused("something is asked of a run, and this owner takes part in none without a server")
        return self._current[1]

    # ---- proposals

    def _proposed(self, sender: str, asked: ProposeInTurn) -> Word:
        _, plan = read(asked)
        if sender not in plan.clients or self._site.name not in plan.clients:
            raise Refused(f"{sender} proposes a run that it or this site takes no part in")
        roster = {name: self._site.roster.public_key(name) for name in plan.clients}
        Circle(asked.run, plan, Roster(roster))  # refuses what promises nothing about an acting server
        folder = InTurnFolder(self._folder.runs / asked.run)
        if folder.path.exists() and folder.plan() != plan:
            raise Refused(f"{sender} proposes another plan for run {asked.run} than before")
        word = self._site.consent(asked.run, plan, sender)
        if word == "accepted":
            folder.make(asked.job, plan, InTurnApart(asked.deadlines))
            self._take_up(folder)
            self._drop_oldest(sender)
        return word

    def _drop_oldest(self, proposer: str) -> None:
        """Of the runs that somebody proposed and that have not begun, all but the newest."""
        waiting = [
            folder
            for folder in self._all()
            if self._site.proposer(folder.run) == proposer and not self._site.joined(folder.run)
        ]
        current = self._current[0] if self._current is not None else None
        for folder in sorted(waiting, key=_newest_first)[_MOST:]:
            if folder != current and not folder.proposed:
                self._site.forget(folder.run)
                shutil.rmtree(folder.path, ignore_errors=True)

    def _take_up(self, folder: InTurnFolder) -> None:
        """Make this run the current one, where that is not in the way of another."""
        with self._lock:
            if not folder.ended and self._gives_way(folder):
                self._current = folder, apart(folder, self._site, self._carry, self._diary.tell)
                self._answered = time.monotonic()
                self._diary.tell(f"takes part in run {folder.run}, without a server")

    def _gives_way(self, to: InTurnFolder) -> bool:
        if self._current is None:
            return True
        folder, peer = self._current
        if folder == to:
            return False
        begun = peer.peer.round > 0 or peer.peer.memory.next.turn >= 0
        return folder.ended or not begun or time.monotonic() > self._answered + _SILENT

    def _propose(self) -> None:
        """Show what this site proposes to those who have not decided yet."""
        for folder in self._all():
            if folder.proposed and not folder.ended:
                with self._apart_from_others(folder):
                    self._show(folder)
        self._over.wait(_PROPOSE)

    def _show(self, folder: InTurnFolder) -> None:
        plan, engine = folder.plan(), folder.engine()
        if not self._consented(folder):
            return
        if self._current is None or _newest_first(folder) < _newest_first(self._current[0]):
            self._take_up(folder)
        words = self._words.setdefault(folder.run, {})
        undecided = [name for name in plan.clients if name != self._site.name and words.get(name) != "accepted"]
        asked = encode(ProposeInTurn(folder.run, plan.encoded(), folder.job_text(), engine.deadlines))
        letters = Correspondence(self._carry, engine.deadlines)
        there = letters.present(undecided, _PROPOSE)
        for name, reply in letters.exchange(dict.fromkeys(there, asked)):
            self._heard(folder, name, reply)

    def _heard(self, folder: InTurnFolder, name: str, reply: bytes) -> None:
        try:
            word: Word = decode(reply, Consent).word
        except ProtocolError:
            word = "refused"
        before, self._words[folder.run][name] = self._words[folder.run].get(name), word
        if word != before:
            self._diary.tell(f"{name} on run {folder.run}: {word}")

    # ---- turns

    def _act(self) -> None:
        """A run that is over stays the current one: others, who come late to its end, still ask."""
        if self._current is None:
            self._go_on()
        if self._current is not None:
            folder, peer = self._current
            if folder.ended:
                self._go_on()
            elif peer.ended:
                write_model(folder, self._site, peer)
                folder.end()
            elif peer.mine:
                self._turn(folder, peer)
        self._over.wait(_LOOK)

    def _turn(self, folder: InTurnFolder, peer: Apart) -> None:
        if not peer.peer.over:
            peer.act()
            return
        self._diary.tell(f"ends run {folder.run}")
        peer.end()
        run = ending(folder, self._site, peer)
        try:
            run.finish()
        finally:
            run.close()

    def _go_on(self) -> None:
        """After a restart: the run that was not over, the newest first."""
        unfinished = [folder for folder in self._all() if not folder.ended]
        for folder in sorted(unfinished, key=_newest_first):
            with self._apart_from_others(folder):
                if self._consented(folder):
                    self._take_up(folder)
                    return

    def _all(self) -> list[InTurnFolder]:
        """All runs without a server whose folders can be read."""
        return all_in(self._folder.runs, self._tell_once)

    @contextmanager
    def _apart_from_others(self, folder: InTurnFolder) -> Iterator[None]:
        """What is wrong with one run's folder keeps no other from going on."""
        try:
            yield
        except Exception as error:
            self._tell_once(f"run {folder.run} is left alone: {type(error).__name__}: {error}")

    def _tell_once(self, what: str) -> None:
        """What is looked at every few seconds is the same each time."""
        if what not in self._told:
            self._told.add(what)
            self._diary.tell(what)

    def _consented(self, folder: InTurnFolder) -> bool:
        """Whether this owner takes part; asked again only after a while, for each answer stands in the owner's log."""
        now = time.monotonic()
        if now < self._ask_again.get(folder.run, 0.0):
            return False
        by = self._site.name if folder.proposed else self._site.proposer(folder.run)
        if by is not None and self._site.consent(folder.run, folder.plan(), by) == "accepted":
            return True
        self._ask_again[folder.run] = now + _RECONSIDER
        return False

    def _forever(self, task: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                task()
            except Exception as error:  # one round, or one other's answer; the site goes on serving
                self._diary.tell(f"{type(error).__name__}: {error}")
                self._over.wait(_LOOK)


def _history(request: bytes) -> TurnRequest | FetchRequest | None:
    """What asks how far a run is, or for what is settled of it."""
    match kind(request):
        case TurnRequest.KIND:
            return decode(request, TurnRequest)
        case FetchRequest.KIND:
            return decode(request, FetchRequest)
        case _:
            return None


def _newest_first(folder: InTurnFolder) -> int:
    return -(folder.path / PLAN).stat().st_mtime_ns  # which is written once
