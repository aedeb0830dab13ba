"""What is written down of messages, and what watchers hear of an exchange."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from protocols.aggregation.messages import KeysRequest, Refusal
from protocols.base import Messages
from protocols.wire import encode
from securefl.engines.local import Silence
from securefl.progress import PRESENCE, Stage, Watcher, Watchers
from securefl.records import RoundRecord
from securefl.round import federate
from securefl.transcript import Crossing, Transcript
from tests.securefl.federation import NAMES, clients, server

ASKED = {"ada": encode(KeysRequest(b"")), "bob": encode(KeysRequest(b"other"))}


class Heard(Watcher):
    """Remembers all of it."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.crossings: list[Crossing] = []
        self.records: list[RoundRecord] = []
        self.words: list[str] = []

    def stage(self, stage: Stage) -> None:
        self.stages.append(stage)

    def crossed(self, crossing: Crossing) -> None:
        self.crossings.append(crossing)

    def completed(self, record: RoundRecord) -> None:
        self.records.append(record)

    def tell(self, what: str) -> None:
        self.words.append(what)


def one_after_the_other(requests: Messages) -> Iterator[tuple[str, bytes]]:
    for name in requests:
        yield name, requests[name]


def test_only_replies_have_a_duration_and_it_is_that_of_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(requests: Messages) -> Iterator[tuple[str, bytes]]:
        for name, seconds in (("ada", 0.4), ("bob", 12.0)):
            assert requests[name]
            now[0] += seconds
            yield name, requests[name]

    heard = Heard()
    list(Transcript(watcher=heard).recording(slow, 1)(ASKED))
    assert [(one.client, one.direction, one.took) for one in heard.crossings] == [
        ("ada", "down", None),
        ("ada", "up", "under 1 s"),
        ("bob", "down", None),
        ("bob", "up", "under 1 min"),
    ]


def test_where_all_are_asked_at_once_all_count_from_then_on_however_often_a_request_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def together(requests: Messages) -> Iterator[tuple[str, bytes]]:
        sent = dict(requests)
        for name in sent:
            now[0] += 0.6
            assert requests[name] == sent[name]
            yield name, requests[name]

    heard = Heard()
    list(Transcript(watcher=heard).recording(together, 1)(ASKED))
    assert [one.took for one in heard.crossings] == [None, None, "under 1 s", "under 10 s"]


def test_a_line_of_before_there_were_durations_is_read() -> None:
    line = b'{"round":1,"kind":"keys","direction":"up","client":"ada","bytes":3,"sha256":"00"}'
    old = msgspec.json.decode(line, type=Crossing)
    assert old.took is None
    assert msgspec.json.encode(old) == line


def test_who_answers_unasked_is_no_part_of_a_stage() -> None:
    heard = Heard()
    list(Transcript(watcher=heard).recording(lambda requests: [("eve", b"hello")], 1)(ASKED))
    assert heard.stages == []
    assert [(one.kind, one.took) for one in heard.crossings] == [("unasked", None)]


def test_who_refuses_or_answers_twice_has_answered_once() -> None:
    def again(requests: Messages) -> Iterator[tuple[str, bytes]]:
        assert requests["ada"]
        yield from [("ada", encode(Refusal("policy"))), ("ada", b"x")]

    heard = Heard()
    list(Transcript(watcher=heard).recording(again, 1)(ASKED))
    assert heard.stages == [Stage(1, "keys", 2, count) for count in (0, 1, 1)]


def test_a_round_is_heard_stage_by_stage() -> None:
    heard, other = Heard(), Heard()
    transcript = Transcript(watcher=Watchers(heard, other))
    (record,) = federate(server(), clients(), 1, faults=[Silence("cyd", 2, 1)], transcript=transcript)
    began = [one.kind for one in heard.stages if one.answered == 0]
    assert began == [PRESENCE, "keys", "shares", "masked-input", "consistency", "unmask"]
    last = {one.kind: (one.answered, one.asked) for one in heard.stages}
    assert last["shares"] == (5, 5) and last["masked-input"] == (4, 5) and last["unmask"] == (4, 4)
    assert {one.round for one in heard.stages} == {1}
    assert sum(one.bytes for one in heard.crossings if one.direction == "up") == sum(record.upload_bytes.values())
    assert (other.stages, other.crossings) == (heard.stages, heard.crossings)


def test_the_set_up_is_round_0() -> None:
    heard = Heard()
    list(federate(server("ckks"), clients(), 1, transcript=Transcript(watcher=heard)))
    first = next(one for one in heard.stages)
    assert first == Stage(0, "join", len(NAMES), 0)
    assert heard.stages[-1].kind in ("seal-model", "install-model")


def test_several_hear_words_and_rounds_alike() -> None:
    heard, other = Heard(), Heard()
    both = Watchers(heard, other)
    both.tell("connected")
    assert (heard.words, other.words) == (["connected"], ["connected"])
