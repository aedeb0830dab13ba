"""The test vectors: our code gives the pinned bytes and the named errors, and docs/secagg.md is enough to do the same.

The second half uses tests/protocols/reference.py, which was written from the document and imports nothing of ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from protocols import errors
from protocols.aggregation.collect import collect
from protocols.aggregation.disputes import suspects
from protocols.aggregation.messages import Envelope
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.stage import Stage
from protocols.errors import ProtocolError, RoundAborted, SessionSpent
from protocols.wire import decode
from tests.protocols import reference
from tests.vectors import generate
from tests.vectors.messagepack import pack, unpack
from tests.vectors.session import ANNOUNCEMENT, NAMES, Pinned, client, stages, terms

FOLDER = Path(generate.__file__).parent


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


SESSION, REFUSED, FAULTS = load("session"), load("refused"), load("faults")
EXCHANGES = SESSION["exchanges"]


def request(exchange: int, name: str) -> bytes:
    return bytes.fromhex(EXCHANGES[exchange]["requests"][name])


def replies(exchange: int) -> dict[str, bytes]:
    return {name: bytes.fromhex(data) for name, data in EXCHANGES[exchange]["replies"].items()}


# ---- our code


@pytest.mark.parametrize("name", generate.FILES)
def test_our_code_gives_the_pinned_vectors(name: str) -> None:
    """If this fails, the protocol has changed: see docs/secagg.md, section 13."""
    assert generate.written(generate.FILES[name]()) == (FOLDER / f"{name}.json").read_text(encoding="utf-8")


def test_the_vectors_are_small_and_complete() -> None:
    files = {path.stem: path.stat().st_size for path in FOLDER.glob("*.json")}
    assert files.keys() == generate.FILES.keys()
    assert sum(files.values()) < 300_000


@pytest.mark.parametrize("case", REFUSED["cases"], ids=lambda case: case["wrong"])
def test_a_client_refuses_what_it_must_with_the_named_error_and_is_spent(case: Mapping[str, Any]) -> None:
    victim = client(case["to"], Pinned(f"{case['to']}, attempt 1"))
    for exchange in range(case["after"]):
        victim.handle(request(exchange, case["to"]))
    for message in case["then"]:
        victim.handle(bytes.fromhex(message))
    with pytest.raises(ProtocolError) as refusal:
        victim.handle(bytes.fromhex(case["message"]))
    assert type(refusal.value) is getattr(errors, case["error"])
    with pytest.raises(SessionSpent):
        victim.handle(request(min(case["after"], 4), case["to"]))


def test_a_client_complains_about_a_dealer_who_signed_what_is_no_share() -> None:
    case = REFUSED["complaint"]
    victim = client(case["to"], Pinned(f"{case['to']}, attempt 1"))
    for exchange in range(case["after"]):
        victim.handle(request(exchange, case["to"]))
    assert victim.handle(bytes.fromhex(case["message"])).hex() == case["reply"]


def stage_after(exchanges: int) -> Stage:
    """The server's stage once it has taken in the replies of so many exchanges."""
    *_, stage = stages([replies(exchange) for exchange in range(exchanges)])
    return stage


def fold(stage: Stage, given: Mapping[str, bytes]) -> None:
    for name, data in given.items():
        stage.fold(name, decode(data, Envelope))


@pytest.mark.parametrize("case", FAULTS["cases"], ids=lambda case: case["wrong"])
def test_the_server_takes_a_faulty_reply_for_none_and_a_good_one_after_it(case: Mapping[str, Any]) -> None:
    stage, sender = stage_after(case["after"]), case["from"]
    good = replies(case["after"])
    fold(stage, {name: data for name, data in good.items() if name != sender})
    with pytest.raises(ProtocolError) as refusal:
        fold(stage, {sender: bytes.fromhex(case["reply"])})
    assert type(refusal.value) is getattr(errors, case["error"])
    assert sender not in stage.accepted
    if case["wrong"] == "a complaint":  # one that stands: who complains contributes nothing
        with pytest.raises(errors.Inconsistent):
            fold(stage, {sender: good[sender]})
    else:
        fold(stage, {sender: good[sender]})
        assert sender in stage.accepted


@pytest.mark.parametrize("case", FAULTS["ends"], ids=lambda case: case["wrong"])
def test_the_server_names_who_makes_an_attempt_fail_and_who_is_in_dispute(case: Mapping[str, Any]) -> None:
    server = AggregationServer(terms(), dict.fromkeys(NAMES, ANNOUNCEMENT))
    server.open()
    for exchange in range(case["after"]):
        server.advance(replies(exchange).items())
    with pytest.raises(RoundAborted) as aborted:
        server.advance((name, bytes.fromhex(data)) for name, data in case["replies"].items())
    assert type(aborted.value) is getattr(errors, case["error"])
    assert suspects(aborted.value.disputes) == set(case["suspects"])
    assert [name for name, why in sorted(aborted.value.faults.items()) if why.startswith("blamed: ")] == case["blamed"]


def test_a_reply_above_the_limit_is_a_fault_and_one_below_is_read() -> None:
    for exchange, largest in enumerate(FAULTS["limits"]):
        good = replies(exchange)["ash"]
        short = good + bytes(largest - len(good))  # MessagePack with zeros behind it: read, and then refused
        for data, found in (
            (short + b"\0", f"a reply of {largest + 1} bytes"),
            (short, "the bytes are not a Envelope"),
        ):
            faults: dict[str, str] = {}
            collect([("ash", data)], stage_after(exchange), faults)
            assert faults["ash"].startswith(found)


# ---- the document


def test_the_document_suffices_for_the_primitives() -> None:
    known = load("primitives")
    for case in known["digest"]:
        assert reference.digest(case["label"], *unhexed(case["parts"])).hex() == case["is"]
    for case in known["derive"]:
        secret, context = bytes.fromhex(case["secret"]), unhexed(case["context"])
        assert reference.derive(secret, case["label"], *context, length=case["length"]).hex() == case["is"]
    assert reference.commitment(bytes.fromhex(known["commitment"]["of"])).hex() == known["commitment"]["is"]
    sealed, signed, agreed = known["seal"], known["signature"], known["agreement"]
    assert reference.seal(*unhexed([sealed["key"], sealed["plaintext"], sealed["associated"]])).hex() == sealed["is"]
    assert reference.sign(*unhexed([signed["secret"], signed["of"]])).hex() == signed["is"]
    assert reference.agree(*unhexed([agreed["secret"], agreed["peer"]])).hex() == agreed["is"]
    for case in known["marks"]:
        assert reference.marks(range(case["members"]), case["chosen"]).hex() == case["is"]


def unhexed(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def test_the_document_suffices_for_hash_trees() -> None:
    known = load("primitives")
    for case in known["trees"]:
        levels = reference.tree([bytes([i]) * i for i in range(case["parts"])])
        assert levels[-1][0].hex() == case["root"]
        assert [reference.path(levels, i).hex() for i in range(case["parts"])] == case["paths"]
    for case in known["long parts"]:
        assert reference.leaf(bytes(i % 251 for i in range(case["bytes"]))).hex() == case["leaf"]


@pytest.mark.parametrize("case", load("keystream"), ids=lambda case: f"{case['modulus']}-{case['length']}")
def test_the_document_suffices_for_keystreams(case: Mapping[str, Any]) -> None:
    vector = reference.elements(bytes.fromhex(case["key"]), case["modulus"], case["length"])
    assert (vector[:4], vector[case["from"] :]) == (case["first"], case["then"])
    assert hashlib.sha256(reference.packed(vector, case["modulus"])).hexdigest() == case["sha256 of packed"]


def test_the_keystream_vectors_have_rejected_words_on_both_sides_of_a_border() -> None:
    """Without them, the vectors would say nothing about the spare stream."""
    case = load("keystream")[-1]
    size = 2**19
    assert case["length"] > size
    for chunk, count in ((0, size), (1, case["length"] - size)):
        words = reference._words(bytes.fromhex(case["key"]), chunk, 2, 54, 8, count)
        assert any(word >= case["modulus"] for word in words)


def test_the_document_suffices_for_shares() -> None:
    for case in load("shamir"):
        shares = {int(x): bytes.fromhex(share) for x, share in case["shares"].items()}
        secret = bytes.fromhex(case["secret"])
        assert reference.split(secret, unhexed(case["draws"]), list(shares)) == shares
        assert reference.join(dict(list(shares.items())[-case["threshold"] :])) == secret


def test_the_document_suffices_for_the_graph() -> None:
    known = load("graph")["list"]
    entries = b"".join(reference.digest("key list entry", name.encode()) for name in known["members"])
    keys = reference.key_list_digest(known["members"], entries)
    order = reference.ring(known["members"], keys)
    assert (keys.hex(), order) == (known["key list digest"], known["ring"])
    for name, near in known["neighbours"].items():
        assert reference.neighbours(order, known["degree"], name) == near


# Exact binomials of more clients take too long; our own code is pinned for those, too.
@pytest.mark.parametrize(
    "case",
    [case for case in load("graph")["cohorts"] if case["n"] <= 1000],
    ids=lambda case: f"{case['n']}-{case['sparse']}",
)
def test_the_document_suffices_for_degree_and_threshold(case: Mapping[str, Any]) -> None:
    n, sparse = case["n"], case["sparse"]
    if n > 100 and case["threshold"] is None and sparse is not None:
        degree, threshold = reference.sparse_graph(n, case["colluders"], *sparse)
        least, quorum = n - -(-n * sparse[1] // 1), 2 * n // 3 + 1
    else:
        degree, threshold = n - 1, case["threshold"] or 2 * n // 3 + 1
        least = quorum = threshold
    expected = {"degree": degree, "t": threshold, "least": max(least, case["minimum"]), "quorum": quorum}
    assert expected == {name: case[name] for name in expected}


def test_the_document_suffices_for_fixed_point() -> None:
    for case in load("fixedpoint"):
        bits, clients, bound = case["bits"], case["clients"], case["bound"]
        key = bytes.fromhex(case["coins key"][0])
        encoded = reference.fixed_point(case["update"], case["weight"], bits, clients, bound, key)
        assert reference.scale(bits, clients, bound) == case["scale"]
        assert encoded == case["encoded"]
        assert reference.packed(encoded, 1 << bits).hex() == case["packed"]
        assert reference.decoded(case["total"], bits, clients, bound) == case["decoded"]


def test_the_document_suffices_for_disputes_and_limits() -> None:
    for case in FAULTS["disputes"]:
        assert sorted(reference.suspects(case["disputes"])) == case["suspects"]
    vector = len(body(2, "ash")[0])
    assert reference.longest_replies(len(SESSION["clients"]) - 1, vector)[:5] == FAULTS["limits"]


# ---- the document: the whole session


def session_from_the_document() -> bytes:
    context = SESSION["context"]
    identities = {name: bytes.fromhex(known["identity public"]) for name, known in SESSION["clients"].items()}
    values = [context["run"], context["round"], context["attempt"], bytes.fromhex(context["configuration"])]
    values += [reference.roster_digest(identities), bytes.fromhex(context["model"]), bytes.fromhex(context["key_id"])]
    layout = reference.layout_digest(*SESSION["encoding"].values())
    return reference.session_id(values, layout, 1, SESSION["rules"])


def member(name: str) -> reference.Member:
    known = SESSION["clients"][name]
    points = {other: place for place, other in enumerate(reference.in_order(SESSION["clients"]), 1)}
    return reference.Member(
        name,
        bytes.fromhex(known["identity secret"]),
        bytes.fromhex(known["witness"]),
        session_from_the_document(),
        points,
        unhexed(known["draws"]),
    )


def encoded(name: str) -> list[int]:
    coder, known = SESSION["encoding"], SESSION["clients"][name]
    coins = bytes.fromhex(known["draws"][-1])
    return reference.fixed_point(
        known["update"], known["weight"], coder["bits"], coder["clients"], coder["bound"], coins
    )


MODULUS = 1 << SESSION["encoding"]["bits"]
SURVIVORS = [name for name in SESSION["clients"] if name != SESSION["dropped"]]


def test_the_document_suffices_for_the_session_id_and_the_key_list() -> None:
    assert session_from_the_document().hex() == SESSION["session id"]
    members, entries, _ = unpack(request(1, "ash")[4:])
    signed = [unpack(replies(0)[name][4:])[0] for name in members]
    assert entries == b"".join(reference.entry(*each) for each in signed)
    keys = reference.key_list_digest(members, entries)
    assert keys.hex() == SESSION["key list digest"]
    shared, _ = unpack(request(2, "ash")[4:])
    assert reference.membership_digest(keys, shared).hex() == SESSION["membership digest"]


@pytest.mark.parametrize("name", SESSION["clients"])
def test_the_document_suffices_for_every_reply_of_a_client_to_the_byte(name: str) -> None:
    mine = member(name)
    assert mine.advertise() == replies(0)[name]
    assert mine.deal(request(1, name), replies(0)[name]) == replies(1)[name]
    if name != SESSION["dropped"]:
        assert mine.mask(request(2, name), encoded(name), MODULUS) == replies(2)[name]
        assert mine.consent(request(3, name)) == replies(3)[name]
        assert mine.unmask() == replies(4)[name]


def test_the_document_suffices_for_mask_keys() -> None:
    session, length = session_from_the_document(), SESSION["encoding"]["dimension"]
    draws = {name: unhexed(known["draws"]) for name, known in SESSION["clients"].items()}
    for name, key in SESSION["self mask keys"].items():
        assert reference.self_mask_key(session, MODULUS, length, draws[name][2], name).hex() == key
    for pair, key in SESSION["pair mask keys"].items():
        for me, peer in (pair.split(", "), reversed(pair.split(", "))):
            theirs = reference.public_key(draws[peer][0])
            assert reference.pair_mask_key(session, MODULUS, length, draws[me][0], me, peer, theirs).hex() == key


def test_the_document_suffices_to_take_the_masks_off_what_the_transcript_holds() -> None:
    """From messages alone: no client's secret is used but those that its shares rebuild."""
    session, length, dropped = session_from_the_document(), SESSION["encoding"]["dimension"], SESSION["dropped"]
    points = member("ash").points
    opened = {name: unpack(body(4, name)[0])[0] for name in SURVIVORS}
    keys = {name: unpack(body(0, name)[0])[0] for name in SESSION["clients"]}
    total = [0] * length
    for name in SURVIVORS:
        total = reference.plus(total, 1, reference.unpacked(body(2, name)[0], MODULUS), MODULUS)
    for place, dealer in enumerate(reference.in_order(SESSION["clients"])):
        secret = reference.join({points[holder]: shares[place] for holder, shares in opened.items()})
        if dealer != dropped:
            assert reference.commitment(secret) == body(1, dealer)[0]
            key = reference.self_mask_key(session, MODULUS, length, secret, dealer)
            total = reference.plus(total, -1, reference.elements(key, MODULUS, length), MODULUS)
            continue
        assert reference.public_key(secret) == keys[dealer]
        for peer in SURVIVORS:
            key = reference.pair_mask_key(session, MODULUS, length, secret, dealer, peer, keys[peer])
            sign = 1 if dealer.encode() < peer.encode() else -1
            total = reference.plus(total, sign, reference.elements(key, MODULUS, length), MODULUS)
    assert total == SESSION["sum"]
    plain = [sum(column) % MODULUS for column in zip(*(encoded(name) for name in SURVIVORS), strict=True)]
    assert total == plain
    coder = SESSION["encoding"]
    assert reference.decoded(total, coder["bits"], coder["clients"], coder["bound"]) == SESSION["decoded"]


def body(exchange: int, name: str) -> list[bytes]:
    parts: list[bytes] = unpack(replies(exchange)[name][4:])[1]
    return parts


@pytest.mark.parametrize(
    "value", [0, 127, 128, 65536, 2**40, 0.1, b"", bytes(300), "é" * 40, None, [1] * 20, {"a": []}]
)
def test_the_naive_messagepack_agrees_with_the_real_one(value: Any) -> None:
    import msgspec

    assert pack(value) == msgspec.msgpack.encode(value)
