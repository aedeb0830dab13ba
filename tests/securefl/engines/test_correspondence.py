"""One exchange over a carrier that loses, repeats and delays: answered once by each, in time or not at all."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.engines import letters
from securefl.engines.correspondence import Correspondence, Deadlines
from securefl.engines.letters import Absent, Answer, Ask, Conflict
from securefl.engines.mailbox import Mailbox

SHORT = Deadlines(exchange=2.0, training=2.0)


class Town:
    """Clients that count, and a carrier whose ``fate`` decides: lost on the way, lost on the way back, or brought."""

    def __init__(self, names: list[str], fate: Callable[[], str] = lambda: "brought") -> None:
        self.asked: dict[str, list[bytes]] = {name: [] for name in names}
        self.boxes = {name: Mailbox(self._answering(name)) for name in names}
        self._fate = fate

    def _answering(self, name: str) -> Callable[[bytes], bytes]:
        def handle(request: bytes) -> bytes:
            self.asked[name].append(request)
            return name.encode() + request

        return handle

    def carry(self, name: str, letter: bytes, seconds: float) -> bytes | None:
        fate = self._fate()
        if fate == "lost":
            return None
        reply = self.boxes[name].receive(letter, 0.05)
        return {"brought": reply, "garbled": reply[1:], "forgotten": letters.encoded(Absent())}.get(fate)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(["lost", "lost back", "garbled", "forgotten"]), max_size=6))
def test_whatever_the_carrier_does_each_client_is_asked_once(fates: list[str]) -> None:
    following = itertools.chain(fates, itertools.repeat("brought"))
    town = Town(["ada"], lambda: next(following))
    assert dict(Correspondence(town.carry, Deadlines(9.0, 9.0)).exchange({"ada": b"?"})) == {"ada": b"ada?"}
    assert town.asked["ada"] == [b"?"]


def test_who_is_silent_is_left_out_and_the_others_come_at_once() -> None:
    town = Town(["ada", "bob"])

    def carry(name: str, letter: bytes, seconds: float) -> bytes | None:
        return None if name == "bob" else town.carry(name, letter, seconds)

    started = time.monotonic()
    answers = Correspondence(carry, SHORT).exchange({"ada": b"?", "bob": b"?"})
    assert next(answers) == ("ada", b"ada?")
    assert time.monotonic() - started < 1.5
    assert list(answers) == []
    assert time.monotonic() - started < 4


def test_a_carrier_that_hangs_does_not_hold_the_exchange() -> None:
    def carry(name: str, letter: bytes, seconds: float) -> bytes | None:
        time.sleep(6)
        return None

    started = time.monotonic()
    assert list(Correspondence(carry, Deadlines(0.5, 0.5)).exchange({"ada": b"?"})) == []
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("forged", [Answer(bytes(16), b"another's"), Conflict(bytes(16))])
def test_an_answer_to_another_letter_is_none(forged: Answer | Conflict) -> None:
    """Whoever carries can drop and delay. What it makes up is at most a client that answers nothing."""

    def carry(name: str, letter: bytes, seconds: float) -> bytes | None:
        return letters.encoded(forged)

    assert list(Correspondence(carry, Deadlines(0.5, 0.5)).exchange({"ada": b"?"})) == []


def test_who_is_there_says_so() -> None:
    town = Town(["ada", "bob"])
    there = Correspondence(town.carry, SHORT).present(["ada", "bob"], 1.0)
    assert there.keys() == {"ada", "bob"} and there["ada"] != there["bob"]
    assert town.asked == {"ada": [], "bob": []}


def test_ids_are_never_the_same() -> None:
    seen: list[bytes] = []

    def carry(name: str, letter: bytes, seconds: float) -> bytes | None:
        found = letters.letter(letter)
        assert isinstance(found, Ask)
        seen.append(found.id)
        return letters.encoded(Answer(found.id, os.urandom(4)))

    for _ in range(20):
        list(Correspondence(carry, SHORT).exchange({"ada": b"?", "bob": b"?"}))
    assert len(set(seen)) == 40


def test_nobody_goes_on_asking_once_nobody_reads() -> None:
    """Else Ctrl-C in a long round would leave threads that the interpreter waits for."""
    asked = 0

    def carry(name: str, letter: bytes, seconds: float) -> bytes | None:
        nonlocal asked
        asked += 1
        return town.carry(name, letter, seconds) if name == "bob" else None

    town = Town(["ada", "bob"])
    answers = Correspondence(carry, Deadlines(600.0, 600.0)).exchange({"ada": b"?", "bob": b"?"})
    assert next(answers) == ("bob", b"bob?")
    answers.close()  # type: ignore[attr-defined]
    time.sleep(0.5)
    before = asked
    time.sleep(1.0)
    assert asked == before
