"""The loop between two sessions, and requests that are made when they are read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.base import ClientId, Messages, Replies, Requests, drive

clients = st.lists(st.text(max_size=5), max_size=8)


def shout(client: ClientId) -> bytes:
    return client.upper().encode()


@given(clients, st.text(max_size=5))
def test_requests_are_what_a_dict_of_them_would_be(names: list[str], other: str) -> None:
    requests, plain = Requests(names, shout), {name: shout(name) for name in names}
    assert requests == plain and dict(requests) == plain
    assert list(requests) == list(plain) and list(requests.items()) == list(plain.items())
    assert len(requests) == len(plain) and bool(requests) == bool(plain)
    assert (other in requests) == (other in plain)
    assert requests.get(other) == plain.get(other)


def test_who_is_not_asked_has_no_request_and_none_is_made() -> None:
    made: list[ClientId] = []
    requests = Requests(["a"], lambda name: made.append(name) or b"")  # type: ignore[func-returns-value]
    with pytest.raises(KeyError):
        requests["b"]
    assert "b" not in requests and made == []


def test_a_request_is_made_when_it_is_read_and_not_before() -> None:
    made: list[ClientId] = []

    def make(name: ClientId) -> bytes:
        made.append(name)
        return shout(name)

    requests = Requests(["b", "a", "b"], make)
    assert list(requests) == ["b", "a"] and len(requests) == 2 and requests and made == []
    reading = iter(requests.items())
    assert next(reading) == ("b", b"B") and made == ["b"]
    assert requests["b"] == requests["b"] == b"B" and made == ["b", "b", "b"]


class Echoes:
    """A server session of three exchanges, with fewer clients in each."""

    def __init__(self) -> None:
        self.heard: list[list[tuple[ClientId, bytes]]] = []

    def open(self) -> Messages:
        return Requests(["a", "b"], shout)

    def advance(self, replies: Replies) -> Messages:
        self.heard.append(list(replies))
        return Requests(["a"] if len(self.heard) == 1 else [], shout)

    @property
    def result(self) -> int:
        return len(self.heard)


def test_a_session_is_driven_until_it_asks_nobody() -> None:
    def exchange(requests: Messages) -> Iterator[tuple[ClientId, bytes]]:
        for name, request in requests.items():
            yield name, request + b"!"

    session = Echoes()
    assert drive(session, exchange) == 2
    assert session.heard == [[("a", b"A!"), ("b", b"B!")], [("a", b"A!")]]
