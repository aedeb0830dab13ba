from __future__ import annotations

import pytest

from protocols.aggregation.messages import DecryptRequest, InputRequest, KeysRequest, UnmaskRequest
from protocols.delivery.messages import SealModelRequest
from protocols.wire import Message, encode
from securefl.engines.local import LocalEngine, Silence


class Echo:
    def handle(self, request: bytes) -> bytes:
        return request


ENGINE = LocalEngine({"a": Echo(), "b": Echo()}, [Silence("b", 2, round=3)])


@pytest.mark.parametrize(
    ("message", "round", "answering"),
    [
        (KeysRequest(b""), 3, ["a", "b"]),
        (InputRequest(b"", ()), 3, ["a"]),
        (UnmaskRequest(()), 3, ["a"]),
        (InputRequest(b"", ()), 2, ["a", "b"]),
        (InputRequest(b"", ()), 4, ["a", "b"]),
        (SealModelRequest("run", 3, b"key"), 3, ["a", "b"]),
        (DecryptRequest("run", 3, ()), 3, ["a"]),
    ],
)
def test_a_silent_client_is_silent_from_its_exchange_on_in_its_round_only(
    message: Message, round: int, answering: list[str]
) -> None:
    request = encode(message)
    assert [name for name, _ in ENGINE.exchange(round)({"a": request, "b": request})] == answering


def test_replies_come_one_at_a_time() -> None:
    """The server folds each in before the next client is even asked: one vector in memory."""
    asked: list[str] = []

    class Noted(Echo):
        def __init__(self, name: str) -> None:
            self.name = name

        def handle(self, request: bytes) -> bytes:
            asked.append(self.name)
            return request

    engine = LocalEngine({name: Noted(name) for name in "abc"})
    replies = iter(engine.exchange(1)(dict.fromkeys("abc", encode(KeysRequest(b"")))))
    next(replies)
    assert asked == ["a"]
