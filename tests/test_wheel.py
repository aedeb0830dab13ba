"""The wheel as a user gets it: built, installed outside the checkout, and imported from there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(*arguments: str | Path, cwd: Path, path: Path | None = None) -> str:
    """What an interpreter prints that knows of the checkout only what ``path`` gives it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout with the wheel installed into it."""
    folder = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(folder))
    python("-m", "pip", "install", *options, wheel, cwd=folder)
    return folder


@pytest.mark.slow
def test_the_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"protocols", "securefl"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["protocols", "securefl"])
def test_every_file_of_a_package_is_installed_its_types_and_templates_too(site: Path, package: str) -> None:
    def files(root: Path) -> set[str]:
        found = (path.relative_to(root) for path in (root / package).rglob("*") if path.is_file())
        return {path.as_posix() for path in found if path.suffix != ".pyc"}

    assert files(site) == files(ROOT)
    assert f"{package}/py.typed" in files(site)


@pytest.mark.slow
def test_the_installed_packages_are_found_and_imported_without_the_checkout(site: Path, tmp_path: Path) -> None:
    program = (
        "import importlib, pkgutil\n"
        "import protocols, securefl\n"
        "for package in (protocols, securefl):\n"
        "    print(package.__file__)\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.startswith('securefl.engines.') and not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
    )
    printed = python("-W", "ignore", "-c", program, cwd=tmp_path, path=site).split()
    assert [Path(line).parent.parent for line in printed] == [site, site]


@pytest.mark.slow
def test_the_metadata_names_the_command_and_the_pythons(site: Path) -> None:
    (info,) = site.glob("securefl-*.dist-info")
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    assert "securefl = securefl.cli:main" in (info / "entry_points.txt").read_text(encoding="utf-8")
    assert "License-Expression: Apache-2.0" in metadata
    assert {"Requires-Python: <3.14,>=3.11", "Name: securefl"} <= set(metadata.splitlines())
