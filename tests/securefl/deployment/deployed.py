"""A small project of separate organisations, set up as its people would: a coordinator and two sites."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from securefl.deployment import admission
from securefl.deployment.server_folder import ServerFolder
from securefl.deployment.site_folder import SiteFolder
from securefl.engines.nvflare import kit

PROJECT = "trial"
NAMES = ("hospital-1", "hospital-2")
SITE_FILE = """
name = "{name}"
[data]
pilot = "breast-cancer"
[budget]
epsilon = 3.0
delta = 1e-5
"""


@dataclass(frozen=True)
class Deployed:
    """All folders lie in one, so that a test can have a copy."""

    path: Path

    @property
    def server(self) -> ServerFolder:
        return ServerFolder(self.path / "coordinator")

    def site(self, name: str) -> SiteFolder:
        return SiteFolder(self.path / name)

    def copied(self, path: Path) -> Deployed:
        shutil.copytree(self.path, path)
        other = Deployed(path)
        kit.harden(other.server.kit, "server")
        return other


def coordinated(path: Path, port: int, project: str = PROJECT) -> Deployed:
    """A coordinator alone."""
    made = Deployed(path)
    made.server.init(project, "127.0.0.1", port)
    return made


def requested(made: Deployed, name: str) -> Path:
    """A site that asks to be admitted; the file that it sends."""
    site = made.site(name)
    _, sent = site.init(made.server.invitation(), name, f"Org_{name[-1]}")
    site.file.write_text(SITE_FILE.format(name=name), encoding="utf-8")
    return sent


def admitted(made: Deployed, name: str) -> Path:
    """The same, admitted; what is sent back."""
    return made.server.admit(admission.read(requested(made, name), made.server.invitation().project))


def joined(path: Path, port: int) -> Deployed:
    """A coordinator and two sites that joined."""
    made = coordinated(path, port)
    signed = {name: admitted(made, name) for name in NAMES}
    members = made.server.write_roster()
    for name in NAMES:
        made.site(name).join(made.server.roster_file, members.hash(), signed[name])
    return made
