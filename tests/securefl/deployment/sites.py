"""Sites that have joined a project, as their client processes are: without a kit, and so without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from protocols.primitives import Identity
from securefl import SecAgg, Server
from securefl.account import load_identity
from securefl.deployment.diary import Diary
from securefl.deployment.invitation import Invitation
from securefl.deployment.roster import Member, Members
from securefl.deployment.site import Site
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.local import Answering, LocalEngine
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD
from securefl.store import Store
from tests.securefl.deployment import owned

COORDINATOR = Identity(b"c" * 32)
NAMES = ("ada", "bob", "cyd")
_HERE = "tests.securefl.deployment.owned"
_SITE = """
name = "{name}"
[data]
name = "toy"
loader = "{here}:{loader}"
[model]
factories = ["{here}:{model}"]
[budget]
epsilon = 50.0
delta = 1e-5
[accept]
rule = "policy"
"""


def joined(path: Path, models: Mapping[str, str] = {}, loaders: Mapping[str, str] = {}) -> dict[str, SiteFolder]:
    """Their folders. ``models`` and ``loaders``: what some of them installed in the place of the usual functions."""
    folders = {name: SiteFolder(path / name) for name in NAMES}
    members = {}
    for name, folder in folders.items():
        folder.path.mkdir(parents=True, mode=0o700)
        store = Store(folder.keep)
        members[name] = Member(f"Org_{name}", load_identity(store).public.hex(), "00" * 32)
        store.close()
        text = _SITE.format(name=name, here=_HERE, loader=loaders.get(name, "load"), model=models.get(name, "model"))
        folder.file.write_text(text, encoding="utf-8")
        folder.invitation_file.write_bytes(Invitation("trial", "127.0.0.1", 8002, "00" * 32).encoded())
    for folder in folders.values():
        folder.roster_file.write_bytes(Members("trial", COORDINATOR.public.hex(), members).encoded())
    return folders


def opened(folders: Mapping[str, SiteFolder]) -> dict[str, Site]:
    return {name: Site(folder, Diary(folder.log)) for name, folder in folders.items()}


def coordinator(
    folders: Mapping[str, SiteFolder], elsewhere: Mapping[str, Answering] = {}, rounds: int = 2
) -> tuple[Server, LocalEngine]:
    """A server that has enrolled the sites, and what reaches them: in this process, but for those ``elsewhere``."""
    mechanism = DPSGD(clip=1.0, noise_multiplier=2.0, sampling_rate=0.5, steps=1)
    server = Server(owned.model, SecAgg(minimum=3), mechanism, LocalOptimizer(0.5), rounds=rounds)
    server.enrol(next(iter(folders.values())).roster().pinned().keys)
    here = opened({name: folder for name, folder in folders.items() if name not in elsewhere})
    return server, LocalEngine({**here, **elsewhere})
