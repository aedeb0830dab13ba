"""The page that people read, against the report that it was made from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Final

from securefl.report import CARD, HTML, JSON, REGISTRY
from securefl.verification import drawing

_FIGURE: Final = re.compile(r"<svg.*?</svg>", re.DOTALL)
# Names of shapes: matplotlib makes them of a letter and ten digits of a hash of what they look like.
_SHAPE: Final = re.compile(r"[A-Za-z][0-9a-f]{10}\b")
_NUMBER: Final = re.compile(r"(-?\d+(?:\.\d+)?)")
# In points, of 340 that a plot is wide: below what can be seen, above rounding.
_VISIBLE: Final = 0.05


def mismatches(folder: Path, page: str) -> Iterator[str]:
    """A line for each way in which the page is not ``page``, which the report gives.

    All but its figures is the same to the letter. A figure has the same title, size and words, and is a plain drawing:
    only where its shapes lie may depend on who drew it.
    """
    path = folder / HTML
    if not path.exists():
        yield f"{HTML}: missing"
        return
    said, figures, again = _text(path), _figures(_text(path)), _figures(page)
    if _FIGURE.split(said) != _FIGURE.split(page) or list(map(_spoken, figures)) != list(map(_spoken, again)):
        yield f"{HTML}: does not say what {JSON} says; securefl report writes it again"
    for figure, drawn in zip(figures, again, strict=False):
        for fault in dict.fromkeys(drawing.faults(figure, _name(drawn))):
            yield f"{HTML}: a figure has {fault}, which no figure of a report has; securefl report writes it again"


def unchecked(folder: Path, page: str) -> Iterator[str]:
    """A line for what is there to be read and was not compared.

    Another matplotlib draws another curve, and people complete registry entries and model cards.
    """
    path = folder / HTML
    if path.exists() and not _alike(_drawn(_text(path)), _drawn(page)):
        yield f"the curves in {HTML}: drawn by another matplotlib, or changed; securefl report draws them again"
    for name in (REGISTRY, CARD):
        if (folder / name).exists():
            yield f"{name}: it is for people to complete; securefl report writes it again as it was"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _figures(html: str) -> list[str]:
    found: list[str] = _FIGURE.findall(html)
    return found


def _name(figure: str) -> str:
    """What a figure of ours is called: its identifiers begin with it."""
    found = re.search(r'\sid="(\w+)-', figure)
    return found[1] if found else ""


def _spoken(figure: str) -> tuple[str, list[str], set[str]]:
    """A figure's opening tag, with title and size; the words in it; and of which kinds of elements it is made."""
    return figure.partition(">")[0], drawing.words(figure), drawing.elements(figure)


def _drawn(html: str) -> list[str]:
    """Numbers in the page's figures, and what is between them."""
    return _NUMBER.split(_SHAPE.sub("", "".join(_figures(html))))


def _alike(said: list[str], again: list[str]) -> bool:
    return all(one == other or _near(one, other) for one, other in zip_longest(said, again, fillvalue=""))


def _near(one: str, other: str) -> bool:
    if not (_NUMBER.fullmatch(one) and _NUMBER.fullmatch(other)):
        return False
    return abs(float(one) - float(other)) <= _VISIBLE
