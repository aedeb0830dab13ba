"""The privacy report of a run: assembled from what its clients signed, and everything that is rendered from it.

``privacy_report.json`` (RFC 8785; its schema is beside this file) holds all of it; the page, the registry entry and the
model card are made from that file alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefl.errors import NotARun

# Imported inside functions: records of a run hold hazards, whose module must load without all of this.
if TYPE_CHECKING:
    from securefl.report.document import Report

JSON: Final = "privacy_report.json"
UNSIGNED: Final = "privacy_report.unsigned.json"
HTML: Final = "report.html"
REGISTRY: Final = "dp_registry.yaml"
CARD: Final = "model_card.md"


def assembled(folder: Path, created: str = "unknown") -> Report:
    """The report that a run folder gives, not yet endorsed; of an unfinished run, too. ``created``: UTC, ISO 8601.

    Raises ``NotARun`` for a folder that is none; nothing that a client stated makes it fail.
    """
    from securefl.report import assembly, facts, software

    return assembly.assemble(facts.read(folder), software.installed(), created)


def write(folder: Path, report: Report) -> Path:
    """Write ``privacy_report.json``, in canonical form, into a run folder."""
    from securefl.report.canonical import canonical

    return _written(folder / JSON, canonical(report))


def read(folder: Path) -> Report:
    """The report in a run folder or, where there is none yet, what ``assembled`` gives; checks no signature.

    Raises ``NotARun`` for a folder that is none, and for a report that is damaged or not in canonical form.
    """
    from securefl.report import canonical
    from securefl.report.document import Report

    path = folder / JSON
    try:
        return canonical.read(path.read_bytes(), Report, str(path))
    except FileNotFoundError:
        return assembled(folder)
    except OSError as error:
        raise NotARun(f"{path} cannot be read ({error.strerror}): check who may read it") from error


def render(folder: Path) -> Path:
    """Write ``report.html`` into the run folder and return its path. Raises ``NotARun`` for any other folder.

    The run may be unfinished; the page then says so. Text from job files is escaped.
    """
    from securefl.report import page

    return _written(folder / HTML, page.html(read(folder)).encode())


def render_json(folder: Path) -> Path:
    """The path of the report; of a run that has none yet, that of an unsigned one, which is written.

    Under another name: nothing that is rendered later may take it for the report. Raises as ``read``.
    """
    from securefl.report.canonical import canonical

    found = read(folder)
    return folder / JSON if (folder / JSON).exists() else _written(folder / UNSIGNED, canonical(found))


def render_registry(folder: Path) -> Path:
    """Write ``dp_registry.yaml``, a record for OpenDP's deployments registry. ``BadInput`` without an epsilon."""
    from securefl.report import registry

    return _written(folder / REGISTRY, registry.yaml(read(folder)).encode())


def render_card(folder: Path) -> Path:
    """Write ``model_card.md``. Raises ``NotARun`` for a folder that is none."""
    from securefl.report import card

    return _written(folder / CARD, card.markdown(read(folder)).encode())


def _written(path: Path, data: bytes) -> Path:
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)
    return path
