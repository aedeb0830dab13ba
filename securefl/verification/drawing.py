"""What a figure in the page may be made of: plain shapes and words, written so that every browser reads them alike.

Names elements, attributes and values that matplotlib (3.9 and later) draws with; anything else could hide the page,
lead elsewhere or run something. Where shapes are, and which, is not judged here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

# No quote, bracket or escape inside a value, and no text with one: nothing that two parsers could read differently.
_TAG: Final = re.compile(r'<(/?)([A-Za-z]+)((?:\s+[A-Za-z-]+="[^"<>]*")*)\s*(/?)>')
_ATTRIBUTE: Final = re.compile(r'([A-Za-z-]+)="([^"]*)"')
_ELEMENTS: Final = frozenset({"defs", "g", "path", "text", "tspan", "use", "clipPath", "rect"})

_NUMBER: Final = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_COLOUR: Final = r"none|#[0-9a-f]{6}|var\(--(?:ink|muted|rule|accent|second)\)"
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "id": r"[A-Za-z][\w.-]*",
    "d": r"[A-Za-z0-9\s.,-]*",
    "x": _NUMBER,
    "y": _NUMBER,
    "width": _NUMBER,
    "height": _NUMBER,
    "clip-path": r"url\(#[\w.-]+\)",
    "style": r"[^&\\]*",
}
_ONLY_ON: Final[Mapping[tuple[str, str], str]] = {
    ("use", "href"): r"#[\w.-]+",
    # By nothing: matplotlib turns upright words by -0 degrees.
    ("text", "transform"): rf"rotate\(-?0(?:\.0+)?(?:[ ,]{_NUMBER}){{0,2}}\)",
}
_REFERRING: Final = frozenset({"href", "clip-path"})
_STYLES: Final[Mapping[str, str]] = {
    "fill": _COLOUR,
    "stroke": _COLOUR,
    "fill-opacity": _NUMBER,
    "stroke-opacity": _NUMBER,
    "opacity": _NUMBER,
    "fill-rule": r"nonzero|evenodd",
    "stroke-width": _NUMBER,
    "stroke-linecap": r"butt|round|square",
    "stroke-linejoin": r"miter|round|bevel",
    "stroke-miterlimit": _NUMBER,
    "stroke-dasharray": rf"none|{_NUMBER}(?:[ ,]+{_NUMBER})*",
    "stroke-dashoffset": _NUMBER,
    "font": r"[\w\s.,'-]+",
    "font-family": r"[\w\s.,'-]+",
    "font-size": rf"{_NUMBER}(?:px)?",
    "font-weight": r"\d+|normal|bold",
    "font-style": r"normal|italic|oblique",
    "text-anchor": r"start|middle|end",
}


def faults(figure: str, name: str) -> Iterator[str]:
    """What in a figure, from ``<svg`` to ``</svg>``, is no plain drawing; its opening tag is for the caller to compare.

    ``name``: what its identifiers begin with, so that they are those of nothing else in the page.
    """
    inside = _inside(figure)
    if re.search("[<>]", _TAG.sub("", inside)):
        yield "what is neither an element nor words"
    tags = _TAG.findall(inside)
    yield from _nesting(tags)
    attributes = [(tag, *found) for _, tag, given, _ in tags for found in _ATTRIBUTE.findall(given)]
    yield from (f"a {tag} element" for _, tag, _, _ in tags if tag not in _ELEMENTS)
    yield from (fault for one in attributes if (fault := _foreign(*one)) is not None)
    yield from _references(attributes, name)
    yield from ("an attribute twice" for _, _, given, _ in tags if _repeated(given))


def words(figure: str) -> list[str]:
    """What is written in a figure, element by element."""
    return [found for text in _TAG.sub("\0", _inside(figure)).split("\0") if (found := text.strip())]


def elements(figure: str) -> set[str]:
    """The kinds of elements that are in it."""
    return {tag for _, tag, _, _ in _TAG.findall(_inside(figure))}


def _inside(figure: str) -> str:
    return figure.partition(">")[2].strip().removesuffix("</svg>")


def _nesting(tags: list[tuple[str, str, str, str]]) -> Iterator[str]:
    """A browser mends what is not closed in order, each in its own way."""
    open_tags: list[str] = []
    for closing, tag, given, empty in tags:
        if not closing:
            open_tags += [] if empty else [tag]
        elif given or empty or not open_tags or open_tags.pop() != tag:
            yield f"a {tag} element that is not closed in order"
            return
    if open_tags:
        yield f"a {open_tags[-1]} element that is not closed"


def _foreign(tag: str, attribute: str, value: str) -> str | None:
    allowed = _ONLY_ON.get((tag, attribute)) or _ATTRIBUTES.get(attribute)
    if allowed is None or re.fullmatch(allowed, value, re.ASCII) is None:
        return f"{attribute} on a {tag} element"
    if attribute == "style":
        return next((f"the style {one.strip()[:40]!r}" for one in value.split(";") if not _plain(one)), None)
    return None


def _plain(declaration: str) -> bool:
    name, _, value = declaration.partition(":")
    allowed = _STYLES.get(name.strip())
    return not declaration.strip() or (
        allowed is not None and re.fullmatch(allowed, value.strip(), re.ASCII) is not None
    )


def _references(attributes: list[tuple[str, str, str]], name: str) -> Iterator[str]:
    """Identifiers are this figure's own and unique, and it refers to no others."""
    own = [value for _, attribute, value in attributes if attribute == "id"]
    used = [re.sub(r"^url\(|\)$", "", value)[1:] for _, attribute, value in attributes if attribute in _REFERRING]
    yield from (f"the identifier {one[:40]!r}" for one in own if not one.startswith(f"{name}-"))
    if len(set(own)) < len(own):
        yield "an identifier twice"
    yield from (f"a reference to {one[:40]!r}" for one in used if one not in own)


def _repeated(attributes: str) -> bool:
    names = [name for name, _ in _ATTRIBUTE.findall(attributes)]
    return len(set(names)) < len(names)
