"""The table for a document: verdicts and first figures in Markdown, and the pictures as one strip."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.attacks.cell import Cell, Picture
from securefl.attacks.table import Table

_SIDE: Final = 96  # pixels of a picture
_GAP: Final = 8


def markdown(found: Table) -> str:
    """One line for each attack and each variant of it."""
    lines = ["| | " + " | ".join(found.settings.values()) + " |", "|---" * (1 + len(found.settings)) + "|"]
    for row in found.rows:
        for name, cells in row.lines.items():
            shown = [_cell(cells[setting]) if setting in cells else "" for setting in found.settings]
            lines.append(f"| **{name}**, {_figure(list(cells.values()))} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def strip(found: Table, attack: str) -> bytes:
    """A PNG of an attack's pictures: a column for each setting, each picture below the one before."""
    row = next(one for one in found.rows if one.name == attack)
    columns = [[enlarged(picture) for picture in cell.pictures[:2]] for cell in row.cells if cell.pictures]
    width, height = (_SIDE + _GAP) * len(columns) - _GAP, (_SIDE + _GAP) * max(map(len, columns)) - _GAP
    canvas = np.full((height, width), 255, np.uint8)
    for x, column in enumerate(columns):
        for y, pixels in enumerate(column):
            top, left = y * (_SIDE + _GAP), x * (_SIDE + _GAP)
            canvas[top : top + len(pixels), left : left + pixels.shape[1]] = pixels
    return png(canvas)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture in grey as a file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def enlarged(picture: Picture) -> NDArray[np.uint8]:
    """A picture of a few pixels, large enough to be looked at."""
    grey = np.round(255 * np.clip(np.array(picture.rows, np.float64), 0, 1)).astype(np.uint8)
    factor = max(1, _SIDE // max(grey.shape))
    found: NDArray[np.uint8] = np.kron(grey, np.ones((factor, factor), np.uint8))
    return found


def _cell(cell: Cell) -> str:
    if cell.verdict == "none" or not cell.figures:
        return "n/a" if cell.verdict == "none" else cell.verdict
    word = f"**{cell.verdict}**" if cell.verdict == "red" else cell.verdict
    return f"{word} {cell.figures[0].amount}"


def _figure(cells: list[Cell]) -> str:
    return next((cell.figures[0].name for cell in cells if cell.figures), "")
