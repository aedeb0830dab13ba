"""The report of a run: one HTML file that needs nothing else, made from the run folder alone."""

from __future__ import annotations

import os
from pathlib import Path

from securefl.report import facts, page


def render(folder: Path) -> Path:
    """Write ``report.html`` into the run folder and return its path. Raises ``NotARun`` for any other folder.

    The run may be unfinished; the report then says so. Text from job files is escaped.
    """
    html = page.html(facts.read(folder))
    path = folder / "report.html"
    partial = folder / "report.html.partial"
    partial.write_text(html, encoding="utf-8")
    os.replace(partial, path)
    return path
