"""Four sites that have joined a project, as their client processes are, and what carries letters between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from multiprocessing.connection import Pipe as connected
from pathlib import Path
from threading import Event, Thread

import numpy as np
from torch import nn

from protocols.errors import ProtocolError
from protocols.primitives import Identity
from securefl import job as jobs
from securefl.account import load_identity
from securefl.data import Dataset
from securefl.deployment.diary import OWNER, Diary
from securefl.deployment.invitation import Invitation
from securefl.deployment.peering import Peering
from securefl.deployment.roster import Member, Members
from securefl.deployment.site import Site
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.nvflare.frames import Back, Call, Ready, decoded, encoded
from securefl.engines.pipe import Lost, Pipe
from securefl.job import Job
from securefl.store import Store

NAMES = ("ada", "bob", "cyd", "dan")
HERE = "tests.securefl.peers.neighbours"
SITE = f"""
name = "{{name}}"
[data]
name = "toy"
loader = "{HERE}:load"
[model]
factories = ["{HERE}:model"]
[accept]
rule = "policy"
"""
JOB = f"""
[job]
name = "neighbours"
rounds = {{rounds}}
[data]
name = "toy"
loader = "{HERE}:load"
clients = ["ada", "bob", "cyd", "dan"]
sizes = {{{{ ada = 40, bob = 40, cyd = 40, dan = 40 }}}}
[model]
factory = "{HERE}:model"
[training]
learning_rate = 0.5
sampling_rate = 1.0
steps = 1
[privacy]
enabled = false
[protection]
kind = "secagg"
colluders = {{colluders}}
minimum = 4
"""


def load(site: str) -> Dataset:
    features = np.random.default_rng(len(site) + ord(site[0])).normal(size=(40, 6)).astype(np.float32)
    return Dataset(features, (features[:, 0] > 0).astype(np.int64), size=40)


def model() -> nn.Module:
    return nn.Linear(6, 2)


def job(path: Path, rounds: int = 2, colluders: int = 1) -> Job:
    file = path / "job.toml"
    file.write_text(JOB.format(rounds=rounds, colluders=colluders))
    return jobs.load(file)


def joined(path: Path, rules: Mapping[str, str] = {}) -> dict[str, SiteFolder]:
    """Their folders; ``rules``: of those whose owners decide otherwise than by policy."""
    folders = {name: SiteFolder(path / name) for name in NAMES}
    members = {}
    for name, folder in folders.items():
        folder.path.mkdir(parents=True, mode=0o700)
        folder.runs.mkdir()
        store = Store(folder.keep)
        members[name] = Member(f"Org_{name}", load_identity(store).public.hex(), "00" * 32)
        store.close()
        text = SITE.format(name=name).replace('"policy"', f'"{rules.get(name, "policy")}"')
        folder.file.write_text(text, encoding="utf-8")
        folder.invitation_file.write_bytes(Invitation("trial", "127.0.0.1", 8002, "00" * 32).encoded())
    roster = Members("trial", Identity(b"c" * 32).public.hex(), members)
    for folder in folders.values():
        folder.roster_file.write_bytes(roster.encoded())
    return folders


def owners_log(folder: SiteFolder) -> str:
    return folder.log.with_name(OWNER).read_text(encoding="utf-8")


class Neighbours:
    """Their client processes, as threads of this one, and between them workers as the engine's are."""

    def __init__(self, folders: Mapping[str, SiteFolder]) -> None:
        self.sites: dict[str, Site] = {}
        self.peerings: dict[str, Peering] = {}
        self._over = Event()
        self._threads: list[Thread] = []
        for name, folder in folders.items():
            diary = Diary(folder.log)
            self.sites[name] = Site(folder, diary)
            self.peerings[name] = Peering(folder, self.sites[name], diary, 1.0)
        for peering in self.peerings.values():
            mine, workers = (Pipe(end) for end in connected())
            self._run(peering.carrier.serve, mine, Ready("job", NAMES))
            self._run(self._carry, workers)
            peering.start()

    def close(self) -> None:
        for peering in self.peerings.values():
            peering.close()
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, task: Callable[..., None], *arguments: object) -> None:
        self._threads.append(Thread(target=task, args=arguments))
        self._threads[-1].start()

    def _carry(self, pipe: Pipe) -> None:
        while not self._over.is_set():
            if pipe.waiting(0.1):
                call = decoded(pipe.receive())
                assert isinstance(call, Call)
                Thread(target=self._deliver, args=(pipe, call), daemon=True).start()
        pipe.close()

    def _deliver(self, pipe: Pipe, call: Call) -> None:
        try:
            pipe.send(encoded(Back(call.number, self.peerings[call.site].receive(call.letter))))
        except (ProtocolError, Lost):
            return
