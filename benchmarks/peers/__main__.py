"""Make the peers' environment: ``python -m benchmarks.peers`` fills ``.venv-peers`` with the pins of the extra."""

from __future__ import annotations

import subprocess
import tomllib
import venv

from benchmarks.peers.process import ENVIRONMENT, PYTHON, ROOT


def requirements() -> list[str]:
    """The peers and their versions, as ``pyproject.toml`` pins them in its extra ``peers``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"]["peers"])


def main() -> None:
    """Make the environment anew and install the peers from the index that pip is configured for."""
    # Apart from ours: Flower asks for older releases of typer and rich than securefl is tested with.
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    (ENVIRONMENT / ".gitignore").write_text("*\n")
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *requirements()], check=True)  # noqa: S603
    print(f"{', '.join(requirements())} in {ENVIRONMENT}")


if __name__ == "__main__":
    main()
