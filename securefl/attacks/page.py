"""The table as a page: a grid of verdicts, and below it each attack with its figures, reasons and pictures."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from securefl.attacks.cell import Picture
from securefl.attacks.markdown import enlarged, png
from securefl.attacks.table import VERDICTS, Table

if TYPE_CHECKING:
    import jinja2


def html(found: Table) -> str:
    """The page, whole in one file. It runs no script and loads nothing."""
    return _template().render(found=found, verdicts=VERDICTS, picture=data_url, counts=_counts(found))


def data_url(picture: Picture) -> str:
    """A picture as a PNG in a URL."""
    return f"data:image/png;base64,{base64.b64encode(png(enlarged(picture))).decode()}"


def _counts(found: Table) -> dict[str, int]:
    everything = [cell.verdict for row in found.rows for cell in row.cells]
    return {word: everything.count(verdict) for verdict, word in VERDICTS.items()}


@cache
def _template() -> jinja2.Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("table.html.j2")
