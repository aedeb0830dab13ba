"""A site's part in one run without a server: the peer that it is, and the report at the end, if it falls to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from protocols.aggregation.session import Roster
from protocols.primitives import Identity
from protocols.wire import encode
from securefl.checkpoint import State
from securefl.data import Dataset
from securefl.deployment.in_turn_folder import InTurnFolder
from securefl.deployment.site import Site
from securefl.engines.correspondence import Carry
from securefl.errors import BadInput, Refused
from securefl.export import model_file, save_adapters
from securefl.job import Job
from securefl.job.federation import Federation
from securefl.peers.apart import Apart, Others
from securefl.peers.circle import Circle
from securefl.peers.clock import Clock
from securefl.peers.journal import Journal
from securefl.peers.memory import Memory
from securefl.peers.messages import Fetched, FetchRequest, TurnReply, TurnRequest
from securefl.peers.peer import Peer
from securefl.progress import Tell, Watcher, nobody
from securefl.run import Run
from securefl.run_folder import MODEL, write
from securefl.run_lock import lock
from securefl.server import Server
from securefl.store import Store


@dataclass(frozen=True)
class _Answering:
    """The site's client, as its peer asks it: with the owner's consent, diary and lock around it."""

    name: str
    site: Site

    def handle(self, request: bytes) -> bytes:
        return self.site.handle_in_turn(request)


def apart(folder: InTurnFolder, site: Site, carry: Carry, tell: Tell = nobody) -> Apart:
    """The peer that a site is in a run. Raises ``Refused`` where the job gives another plan than was accepted."""
    plan, job, deadlines = folder.plan(), folder.job(), folder.engine().deadlines
    roster = {name: site.roster.public_key(name) for name in plan.clients}
    store = Store(folder.store)
    server = _server(job, site, folder, store)
    if server.enrol(roster) != plan:
        raise Refused(f"the job in {folder.path} gives another plan than the one that was accepted")
    circle = Circle(folder.run, plan, Roster(roster))
    memory = Memory(store, circle, server.state)
    clock = Clock(deadlines)
    journal = Journal(folder.path, memory.batons())
    identity: Identity = site.identity
    answering = _Answering(site.name, site)
    peer = Peer(answering, identity, server, circle, memory, clock.overdue, journal, tell)
    return Apart(peer, Others(roster, site.name, carry, deadlines), clock, tell)


def _server(job: Job, site: Site, folder: InTurnFolder, store: Store) -> Server:
    return Server.of_job(job, site.model_of(folder.plan()), site.test, store, folder.run)


@dataclass(frozen=True)
class _Setting:
    """What a site has of its own: the model's code and the test set, and the other peers by letters."""

    federation: Federation
    test: Dataset | None
    others: Others

    def parties(self, job: Job, folder: Path, begun: bool, tell: Tell = nobody) -> Others:
        return self.others


class InTurnRun(Run):
    """The end of a run, by one of its peers, in its own folder."""

    def _coordinator(self) -> Server:
        if not isinstance(self._parties, Others) or self._parties.server is None:
            raise BadInput(f"{self.folder} is not ended by one of its peers")
        return self._parties.server


def ending(folder: InTurnFolder, site: Site, peer: Apart) -> InTurnRun:
    """The run, for who ends it."""
    job, plan = folder.job(), folder.plan()
    federation = Federation(plan.clients, _nobodys, None, site.model_of(plan), job.data.name)
    setting = _Setting(federation, site.test, peer.others)
    return InTurnRun(job, folder.path, setting, lock(folder.path), Watcher(), plan.encoded())


def write_model(folder: InTurnFolder, site: Site, peer: Apart) -> None:
    """The last model, where servers have it; elsewhere the site writes it as it makes its statement."""
    model = peer.peer.server.model()
    if peer.peer.over and model is not None:
        plan = folder.plan()
        write(folder.path / MODEL, model_file(site.model_of(plan), plan.model_seed, model))
        save_adapters(site.model_of(plan), plan.model_seed, model, folder.path)


def past(folder: InTurnFolder, site: Site, sender: str, asked: TurnRequest | FetchRequest) -> bytes:
    """What a site still answers of a run that is over here and that it has no peer of any more: how far it got, and its
    batons. Raises ``Refused`` for whoever took no part.
    """
    plan = folder.plan()
    if sender not in plan.clients:
        raise Refused(f"{sender} asks about run {folder.run}, in which it took no part")
    circle = Circle(folder.run, plan, Roster({name: site.roster.public_key(name) for name in plan.clients}))
    memory = Memory(Store(folder.store), circle, State(run=folder.run))
    if isinstance(asked, TurnRequest):
        return encode(TurnReply(memory.standing.round))
    return encode(Fetched(memory.settled(asked.round), None))


def _nobodys(client: str) -> Dataset:
    raise Refused(f"{client} has its own records, and nobody else has them")
