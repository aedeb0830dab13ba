"""The client's end: each request is answered once, however often and in whatever order its letters come."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from protocols.errors import Forged, MalformedMessage
from securefl.engines import letters
from securefl.engines.letters import Answer, Ask, Conflict, Hello, Here, Letter, Poll, Reply, Unknown, Working
from securefl.engines.mailbox import Mailbox


class Counting:
    """A client that answers with how often it was asked, once it may go on."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def handle(self, request: bytes) -> bytes:
        self.asked.append(request)
        self.go_on.wait(10)
        return b"%d:%s" % (len(self.asked), request)


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def box(counting: Counting) -> Iterator[Mailbox]:
    box = Mailbox(counting.handle)
    yield box
    counting.go_on.set()
    box.close()


def said(box: Mailbox, letter: Letter, patience: float = 5.0) -> Reply:
    return letters.reply(box.receive(letters.encoded(letter), patience))


def test_the_same_letter_again_gets_the_same_bytes_and_the_client_is_asked_once(
    box: Mailbox, counting: Counting
) -> None:
    ask = Ask(os.urandom(16), b"train")
    first = said(box, ask)
    assert first == Answer(ask.id, b"1:train")
    assert said(box, ask) == said(box, Poll(ask.id)) == first
    assert counting.asked == [b"train"]


def test_another_request_under_the_same_id_is_an_error_and_is_not_answered(box: Mailbox, counting: Counting) -> None:
    ask = Ask(os.urandom(16), b"train")
    first = said(box, ask)
    assert said(box, Ask(ask.id, b"train more")) == Conflict(ask.id)
    assert said(box, ask) == first
    assert counting.asked == [b"train"]


def test_who_is_not_ready_says_so_and_answers_a_poll_later(box: Mailbox, counting: Counting) -> None:
    counting.go_on.clear()
    ask = Ask(os.urandom(16), b"slow")
    assert said(box, ask, patience=0.01) == said(box, Poll(ask.id), patience=0.01) == Working(ask.id)
    assert isinstance(said(box, Hello(), patience=0.01), Here)  # it is there, though it works
    counting.go_on.set()
    assert said(box, Poll(ask.id)) == Answer(ask.id, b"1:slow")


def test_many_carriers_of_one_letter_get_one_answer(box: Mailbox, counting: Counting) -> None:
    ask = Ask(os.urandom(16), b"once")
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda _: said(box, ask), range(32)))
    assert answers == {Answer(ask.id, b"1:once")}
    assert counting.asked == [b"once"]


def test_what_was_never_sent_or_is_forgotten_is_unknown_and_memory_stays_bounded(
    box: Mailbox, counting: Counting
) -> None:
    first = Ask(os.urandom(16), b"first")
    assert said(box, Poll(first.id)) == Unknown(first.id)
    said(box, first)
    for number in range(20):
        said(box, Ask(os.urandom(16), b"%d" % number))
    assert said(box, Poll(first.id)) == Unknown(first.id)
    assert len(box._taken) <= 4


def test_a_flood_of_letters_waits_outside(box: Mailbox, counting: Counting) -> None:
    counting.go_on.clear()
    taken = [said(box, Ask(os.urandom(16), b"x"), patience=0.001) for _ in range(50)]
    assert sum(isinstance(reply, Working) for reply in taken) == 4
    assert all(isinstance(reply, Unknown) for reply in taken[4:])


def test_another_process_is_told_apart(box: Mailbox, counting: Counting) -> None:
    other = Mailbox(counting.handle)
    assert said(box, Hello()) == said(box, Hello()) != said(other, Hello())
    other.close()


def test_who_may_not_ask_is_not_answered_and_does_not_reach_the_client(box: Mailbox, counting: Counting) -> None:
    def refuse(ask: Ask) -> None:
        raise Forged("not signed")

    checking, forged = Mailbox(counting.handle, refuse), Ask(os.urandom(16), b"train", b"x")
    with pytest.raises(Forged):
        said(checking, forged)
    checking.close()
    assert counting.asked == []
    assert said(box, forged) == Answer(forged.id, b"1:train")  # without the check


def test_what_is_no_letter_is_refused(box: Mailbox) -> None:
    with pytest.raises(MalformedMessage):
        box.receive(b"hello", 1.0)
