"""Make the peers' environments: ``python -m benchmarks.peers`` fills ``.venv-peers`` with the pins of the extra, and
``python -m benchmarks.peers simulation`` the one of the federated simulators.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.process import ENVIRONMENT, ROOT, SIMULATORS

# They train, where the others only compute masks: with the release of torch that ours is measured with.
_SIMULATORS = ("flwr[simulation]==1.41.0", "pfl[pytorch]==0.6.0", "torch==2.13.0")


def requirements() -> list[str]:
    """The peers and their versions, as ``pyproject.toml`` pins them in its extra ``peers``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"]["peers"])


def main(arguments: Sequence[str]) -> None:
    """Make an environment anew and install its peers from the index that pip is configured for."""
    if arguments == ["simulation"]:
        fill(SIMULATORS, _SIMULATORS)
    elif not arguments:
        fill(ENVIRONMENT, requirements())
    else:
        raise SystemExit("usage: python -m benchmarks.peers [simulation]")


def fill(folder: Path, pins: Sequence[str]) -> None:
    """A new environment with these packages."""
    # Apart from ours: Flower asks for older releases of typer and rich than securefl is tested with.
    venv.create(folder, clear=True, with_pip=True)
    (folder / ".gitignore").write_text("*\n")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *pins], check=True)  # noqa: S603
    print(f"{', '.join(pins)} in {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
