"""The page that people read, against the report that it was made from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Final

from securefl.report import CARD, HTML, JSON, REGISTRY

_PLOT: Final = re.compile(r"<svg.*?</svg>", re.DOTALL)
_TAG: Final = re.compile(r"<(/?[A-Za-z]+)[^>]*>")
# Names of shapes: matplotlib makes them of a letter and ten digits of a hash of what they look like.
_NAME: Final = re.compile(r"[A-Za-z][0-9a-f]{10}\b")
_NUMBER: Final = re.compile(r"(-?\d+(?:\.\d+)?)")
# In points, of 340 that a plot is wide: below what can be seen, above rounding.
_VISIBLE: Final = 0.05


def mismatches(folder: Path, page: str) -> Iterator[str]:
    """A line if the page is not there, or its words are not those of ``page``, which the report gives."""
    path = folder / HTML
    if not path.exists():
        yield f"{HTML}: missing"
    elif _words(_text(path)) != _words(page):
        yield f"{HTML}: does not say what {JSON} says; securefl report writes it again"


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


def _words(html: str) -> str:
    """The page with its plots taken down to what they are called, the words in them, and their kinds of elements."""
    return _PLOT.sub(lambda plot: _spoken(plot[0]), html)


def _spoken(plot: str) -> str:
    opening, _, inside = plot.partition(">")
    return " ".join((opening, *_TAG.sub(" ", inside).split(), *sorted(set(_TAG.findall(inside)))))


def _drawn(html: str) -> list[str]:
    """Numbers in the page's plots, and what is between them."""
    return _NUMBER.split(_NAME.sub("", "".join(_PLOT.findall(html))))


def _alike(said: list[str], again: list[str]) -> bool:
    return all(one == other or _near(one, other) for one, other in zip_longest(said, again, fillvalue=""))


def _near(one: str, other: str) -> bool:
    if not (_NUMBER.fullmatch(one) and _NUMBER.fullmatch(other)):
        return False
    return abs(float(one) - float(other)) <= _VISIBLE
