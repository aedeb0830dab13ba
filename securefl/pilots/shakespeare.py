"""The speaking roles of Shakespeare's plays, as in karpathy/char-rnn: a million characters, public domain.

A speech is the words of one turn: lower case, without punctuation ("know't" is one word). Roles that share a name are
one role: the citizens and messengers of several plays. The five roles that speak most are declared published: what has
to be public, such as a vocabulary, is made of theirs, and they are no clients.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from securefl.download import locate
from securefl.errors import BadInput

SOURCE: Final = "Shakespeare's plays, public domain, as in karpathy/char-rnn"
PUBLISHED: Final = ("coriolanus", "duke-vincentio", "gloucester", "king-richard-ii", "leontes")
_LEAST: Final = 50  # words of a role that is a client

_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_WORD: Final = re.compile(r"[a-z]+(?:'[a-z]+)*")

Line = tuple[str, ...]
"""The words of one line. A speech's first line begins with ``""``, which is no word."""


def roles() -> tuple[str, ...]:
    """The roles that say enough to be clients, in the order in which they enter; without those that are published."""
    return tuple(role for role, lines in _all().items() if role not in PUBLISHED and sum(map(_words, lines)) >= _LEAST)


def training(role: str) -> tuple[Line, ...]:
    """The first four fifths of a role's lines. ``BadInput`` for a role that there is not."""
    found = _lines(role)
    return found[: len(found) - len(found) // 5]


def held_out(role: str) -> tuple[Line, ...]:
    """The last fifth: what it says after what is trained on. May be empty."""
    found = _lines(role)
    return found[len(found) - len(found) // 5 :]


def published() -> tuple[Line, ...]:
    """All lines of the roles that are declared published."""
    return tuple(line for role in PUBLISHED for line in _lines(role))


def _lines(role: str) -> tuple[Line, ...]:
    if role not in _all():
        raise BadInput(f"nobody is called {role!r} in these plays: roles are named as in securefl.pilots.keyboard")
    return _all()[role]


def _words(line: Line) -> int:
    return sum(map(bool, line))


@cache
def _all() -> dict[str, tuple[Line, ...]]:
    found: dict[str, list[Line]] = {}
    text = locate("shakespeare", "input.txt", _SHA256, _URL).read_text(encoding="utf-8")
    for turn in text.split("\n\n"):
        speaker, _, speech = turn.strip().partition(":\n")
        lines = [line for line in (tuple(_WORD.findall(one.lower())) for one in speech.splitlines()) if line]
        if lines:
            own = found.setdefault(_name(speaker), [])
            own += [("", *lines[0]), *lines[1:]]
    return {role: tuple(lines) for role, lines in found.items()}


def _name(speaker: str) -> str:
    """As a client is named: "King Richard II" is king-richard-ii."""
    return "-".join(re.findall(r"[a-z0-9]+", speaker.lower()))
