"""What the server makes of replies that are signed and still wrong, and what it keeps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.aggregation.messages import (
    Advertised,
    Dealt,
    Envelope,
    Header,
    InputRequest,
    KeysRequest,
    Refusal,
    Signed,
    envelope,
    key_list_entry,
)
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Step
from protocols.aggregation.summing import Unmask
from protocols.base import ClientId, Messages, drive
from protocols.errors import Forged, MalformedMessage, RoundAborted
from protocols.wire import decode, encode
from tests.protocols.cohort import CELLS, MASKED, Tamper, Wire, clean_run, identity, make, names, roster, steps_of

Parts = Callable[[tuple[bytes, ...]], tuple[bytes, ...]]


def resigned(step: Step, name: ClientId, **fields: object) -> Tamper:
    """A dishonest client: its own message of one exchange with other words in the signed header."""

    def tamper(at: Step, sender: ClientId, data: bytes) -> bytes:
        if (at, sender) != (step, name):
            return data
        honest = decode(data, Envelope)
        header = msgspec.structs.replace(honest.signed.authenticate(roster(5)), **fields)
        return encode(envelope(identity(name), header, honest.parts))

    return tamper


@pytest.mark.parametrize(
    ("cell", "step"), [(cell, step) for cell in CELLS for step in steps_of(cell) if step > Step.KEYS]
)
def test_an_answer_to_another_key_list_is_a_fault(cell: str, step: Step) -> None:
    """A client that was shown another key list has other masks: its input would spoil the sum."""
    cohort = make(cell)
    aggregate = cohort.run(Wire(cohort.clients, on_reply=resigned(step, "c2", keys=bytes(32))))
    assert set(aggregate.faults) == {"c2"} and "key list" in aggregate.faults["c2"]
    assert cohort.is_right(aggregate)


@pytest.mark.parametrize("cell", ["ckks", "ckks-unmasked"])
def test_a_repeated_seed_is_a_fault_of_who_repeats_it(cell: str) -> None:
    """Two uploads under one ``a`` differ by their messages and noise: whoever sees both would read the difference."""
    cohort = make(cell)
    seeds: dict[ClientId, bytes] = {}

    def copy_seed(step: Step, name: ClientId, data: bytes) -> bytes:
        if step == Step.INPUT:
            seeds[name] = decode(data, Envelope).signed.authenticate(roster(5)).seed
        return resigned(Step.INPUT, "c2", seed=seeds.get("c1", b""))(step, name, data)

    aggregate = cohort.run(Wire(cohort.clients, on_reply=copy_seed))
    assert set(aggregate.faults) == {"c2"} and "seed" in aggregate.faults["c2"]
    assert cohort.is_right(aggregate)


@pytest.mark.parametrize("cell", CELLS)
def test_residues_outside_the_ring_or_of_another_length_are_a_fault(cell: str) -> None:
    for change in (lambda part: part[:-1], lambda part: part + b"\x00", lambda part: b"\xff" * len(part)):
        cohort = make(cell)

        def tamper(step: Step, name: ClientId, data: bytes, change=change) -> bytes:  # type: ignore[no-untyped-def]
            if (step, name) != (Step.INPUT, "c2"):
                return data
            honest = decode(data, Envelope)
            header = honest.signed.authenticate(roster(5))
            return encode(envelope(identity("c2"), header, [change(honest.parts[0])]))

        if change(b"ab") == b"\xff\xff" and not cell.startswith("ckks"):
            continue  # modulo 2**32 every word is an element
        aggregate = cohort.run(Wire(cohort.clients, on_reply=tamper))
        assert set(aggregate.faults) == {"c2"}
        assert "c2" not in aggregate.contributors and cohort.is_right(aggregate)


def large_witness(parts: tuple[bytes, ...]) -> list[bytes]:
    own = msgspec.msgpack.decode(parts[0], type=Advertised)
    return [msgspec.msgpack.encode(msgspec.structs.replace(own, witness=bytes(5000)))]


def large_share(parts: tuple[bytes, ...]) -> list[bytes]:
    dealt = msgspec.msgpack.decode(parts[1], type=Dealt)
    return [parts[0], msgspec.msgpack.encode(msgspec.structs.replace(dealt, sealed=bytes(5000))), *parts[2:]]


@pytest.mark.parametrize(("step", "grow"), [(Step.KEYS, large_witness), (Step.SHARES, large_share)])
def test_one_client_cannot_make_what_is_relayed_to_all_too_large_to_read(
    step: Step, grow: Callable[[tuple[bytes, ...]], list[bytes]]
) -> None:
    cohort = make("secagg")

    def tamper(at: Step, name: ClientId, data: bytes) -> bytes:
        if (at, name) != (step, "c2"):
            return data
        honest = decode(data, Envelope)
        return encode(envelope(identity("c2"), honest.signed.authenticate(roster(5)), grow(honest.parts)))

    aggregate = cohort.run(Wire(cohort.clients, on_reply=tamper))
    assert dict(aggregate.dropped) == {"c2": f"exchange {step:d}"} and "bytes" in aggregate.faults["c2"]
    assert cohort.is_right(aggregate)


@pytest.mark.parametrize("cell", MASKED)
@pytest.mark.parametrize(
    "change", [lambda parts: parts[:-1], lambda parts: (*parts, parts[-1]), lambda parts: parts[:1], lambda parts: ()]
)
def test_a_dealer_of_a_part_too_few_or_too_many_is_a_dropout(cell: str, change: Parts) -> None:
    """Each part is what it should be; but one receiver would have none, or nobody would know whose one is."""
    cohort = make(cell)

    def tamper(at: Step, name: ClientId, data: bytes) -> bytes:
        if (at, name) != (Step.SHARES, "c2"):
            return data
        honest = decode(data, Envelope)
        return encode(envelope(identity("c2"), honest.signed.authenticate(roster(5)), change(honest.parts)))

    aggregate = cohort.run(Wire(cohort.clients, on_reply=tamper))
    assert dict(aggregate.dropped) == {"c2": "exchange 1"} and "each neighbour" in aggregate.faults["c2"]
    assert cohort.is_right(aggregate)


@pytest.mark.parametrize("cell", CELLS)
def test_a_refusal_is_a_dropout_with_its_word(cell: str) -> None:
    cohort = make(cell)
    refusal = encode(Refusal("budget"))
    wire = Wire(cohort.clients, on_reply=lambda at, name, data: refusal if (at, name) == (Step.KEYS, "c2") else data)
    aggregate = cohort.run(wire)
    assert dict(aggregate.faults) == {"c2": "refused: budget"}
    assert dict(aggregate.dropped) == {"c2": "exchange 0"}
    assert cohort.is_right(aggregate)


ESCAPES = ("\x1b[2Jbudget", "budget\x1b[0m", "budget\r", "budget\n", "\0", "\u202etegdub")


@pytest.mark.parametrize("word", ["", "Budget", "no budget", "a" * 21, "b\u00fcdget", *ESCAPES])
def test_a_refusal_is_one_short_word_without_escapes(word: str) -> None:
    """It comes unsigned, and is shown to people."""
    with pytest.raises(MalformedMessage):
        decode(encode(Refusal(word)), Refusal)
    cohort = make("secagg")
    refusal = encode(Refusal(word))
    wire = Wire(cohort.clients, on_reply=lambda at, name, data: refusal if (at, name) == (Step.KEYS, "c2") else data)
    aggregate = cohort.run(wire)
    assert set(aggregate.faults) == {"c2"} and "refused" not in aggregate.faults["c2"]
    assert aggregate.faults["c2"].isprintable() and (not word or word not in aggregate.faults["c2"])


@pytest.mark.parametrize("word", ["a", "budget", "z" * 20])
def test_a_refusals_word_comes_as_it_was(word: str) -> None:
    assert decode(encode(Refusal(word)), Refusal).reason == word


def test_who_sends_another_clients_keys_first_costs_both_their_place_and_nobody_is_blamed() -> None:
    """A limit: exchange 0 has nothing yet by which the server could tell whose keys they are."""
    cohort = make("secagg")
    wire = Wire(cohort.clients)

    def copied(step: Step, name: ClientId, data: bytes) -> bytes:
        if (step, name) != (Step.KEYS, "c1"):
            return data
        header = decode(data, Envelope).signed.authenticate(roster(5))
        return encode(envelope(identity("c1"), header, wire.reply(Step.KEYS, "c2").parts))

    wire.on_reply = copied
    aggregate = cohort.run(wire)
    assert dict(aggregate.faults) == {"c2": "a public key is used twice"}
    assert dict(aggregate.dropped) == {"c1": "exchange 1", "c2": "exchange 0"}
    assert aggregate.contributors == ("c0", "c3", "c4") and cohort.is_right(aggregate)


def test_an_abort_says_who_was_wrong_and_who_was_silent() -> None:
    cohort = make("secagg")
    spoil = resigned(Step.SHARES, "c2", keys=bytes(32))
    with pytest.raises(RoundAborted, match="3 clients are left after exchange 1, 4 are needed") as aborted:
        cohort.run(Wire(cohort.clients, {"c0": int(Step.SHARES)}, on_reply=spoil))
    assert set(aborted.value.faults) == {"c2"}
    assert aborted.value.dropped == {"c0": "exchange 1", "c2": "exchange 1"}


def test_of_each_dealers_secret_no_more_shares_are_kept_than_open_it() -> None:
    """All five open one of each dealer's; t is four."""
    cohort = make("secagg")
    server = cohort.server()
    drive(server, Wire(cohort.clients))
    stage = server._stage
    assert isinstance(stage, Unmask) and stage.accepted == frozenset(names(5))
    assert {dealer: len(shares) for dealer, shares in stage._shares.items()} == dict.fromkeys(names(5), 4)


def test_there_is_no_result_before_the_end() -> None:
    server = make("secagg").server()
    with pytest.raises(RuntimeError):
        _ = server.result
    server.open()
    with pytest.raises(RuntimeError):
        _ = server.result


def test_only_those_who_were_announced_are_asked() -> None:
    cohort = make("secagg")
    server = AggregationServer(cohort.terms, dict.fromkeys(names(4), b"x"))
    assert set(server.open()) == set(names(4))
    aggregate = drive(AggregationServer(cohort.terms, dict.fromkeys(names(4), b"x")), Wire(cohort.clients))
    assert aggregate.contributors == names(4) and cohort.is_right(aggregate)


def test_each_client_is_sent_its_own_announcement() -> None:
    """Equal ones may be one object or several."""
    cohort = make("secagg")
    texts = dict(zip(names(5), [b"one", b"two", bytes([111]) + b"ne", b"two", b""], strict=True))
    sent = AggregationServer(cohort.terms, texts).open()
    assert {name: decode(data, KeysRequest).announcement for name, data in sent.items()} == texts


@pytest.mark.parametrize("cell", ["plain", *MASKED])
def test_the_server_holds_one_vector_however_many_clients_send_one(cell: str, tmp_path: Path) -> None:
    """Replies are folded in as they arrive: the sum, and one reply as bytes, decoded, unpacked and checked. 8 of 24."""
    dimension, count = 20_480, 24
    cohort = make(cell, count, dimension, inputs=dict.fromkeys(names(count), np.zeros(dimension)))
    vector = cohort.terms.layout.ring.zeros(cohort.terms.layout.length).nbytes

    def from_disk(senders: Messages) -> Iterator[tuple[ClientId, bytes]]:
        for name in senders:
            yield name, (tmp_path / name).read_bytes()

    server, peak = cohort.server(), 0
    requests = server.open()
    while requests:
        for name, data in requests.items():
            (tmp_path / name).write_bytes(cohort.clients[name].handle(data))
        inputs = next(iter(requests.values()))[3] == InputRequest.KIND
        tracemalloc.start()
        requests = server.advance(from_disk(requests))
        peak = tracemalloc.get_traced_memory()[1] if inputs else peak
        tracemalloc.stop()
    assert vector < peak < 8 * vector
    assert cohort.is_right(server.result)


@given(st.lists(st.binary(max_size=9), max_size=6), st.lists(st.binary(max_size=9), max_size=6))
def test_a_header_is_all_that_a_signature_covers_and_binds_every_part(one: list[bytes], other: list[bytes]) -> None:
    """No part, order of parts or number of parts can be changed under a signature. (None is one empty part.)"""
    header = Header(bytes(32), 2, "c1", b"", b"", b"")
    said, unsaid = envelope(identity("c1"), header, one), envelope(identity("c1"), header, other)
    said.open(roster(5), bytes(32), Step.INPUT, "c1")
    assert len(said.signed.header) < 100
    if (one or [b""]) == (other or [b""]):
        assert said.signed == unsaid.signed
        return
    with pytest.raises(Forged):
        Envelope(said.signed, unsaid.parts).open(roster(5), bytes(32), Step.INPUT, "c1")


def test_an_entry_of_the_key_list_binds_header_and_signature() -> None:
    entries = {key_list_entry(Signed(header, word)) for header in (b"", b"a", b"ab") for word in (b"", b"b", b"ab")}
    assert len(entries) == 9 and {len(entry) for entry in entries} == {32}


def test_a_whole_round_of_headers_is_as_long_as_ever_however_many_parts_they_bind() -> None:
    """One root binds all: what travels on as proof does not grow with the cohort."""
    sizes = {
        len(decode(clean_run(make("secagg", count)).replies[Step.SHARES, "c1"], Envelope).signed.header)
        for count in (3, 9)
    }
    assert len(sizes) == 1 and max(sizes) < 200
