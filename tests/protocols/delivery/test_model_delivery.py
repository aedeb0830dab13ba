"""The server's side of a catch-up: one checkpoint for all who missed a model, from whichever giver has a good one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from protocols.aggregation.apply import model_tag
from protocols.aggregation.messages import Envelope, Refusal
from protocols.aggregation.session import Step
from protocols.base import ClientId, drive
from protocols.delivery.checkpoint import CaughtUp, ModelDelivery, Wanted
from protocols.delivery.messages import InstallModelRequest, SealModelRequest, catch_up
from protocols.errors import ProtocolError
from protocols.wire import decode, encode
from tests.protocols.cohort import names
from tests.protocols.delivery.parties import Line
from tests.protocols.delivery.test_checkpoint import (
    MODEL,
    ROSTER,
    SESSION,
    TAG,
    TAG_KEY,
    opened,
    resigned,
    sealed,
    signed,
)

WANTED = Wanted(
    SESSION,
    TAG,
    len(MODEL) + 1024,
    SealModelRequest("run", 3, b"key id"),
    lambda checkpoint: InstallModelRequest("run", 3, checkpoint, ()),
)


@dataclass
class Client:
    """One client: with this model, or without one until a checkpoint has the wanted tag."""

    name: ClientId
    model: bytes = b""

    def handle(self, request: bytes) -> bytes:
        if request[3] == SealModelRequest.KIND:
            tag = model_tag(TAG_KEY, "run", 3, self.model)
            return encode(sealed(self.name, self.model, tag) if self.model else Refusal("behind"))
        try:
            model = opened(decode(request, InstallModelRequest).checkpoint)
        except ProtocolError:
            return encode(Refusal("protocol"))
        if model_tag(TAG_KEY, "run", 3, model) != TAG:
            return encode(Refusal("protocol"))
        self.model = model
        return encode(signed(self.name, Step.INSTALL_MODEL, TAG))


BEHIND = {"c3", "c4"}
GIVERS = names(3)


@pytest.fixture
def clients() -> dict[ClientId, Client]:
    """c0, c1 and c2 have the model, c3 and c4 missed it."""
    return {name: Client(name, MODEL if name in GIVERS else b"") for name in names(5)}


def server(
    kept: Envelope | None = None, behind: Sequence[ClientId] = tuple(BEHIND), givers: Sequence[ClientId] = GIVERS
) -> ModelDelivery:
    return ModelDelivery(ROSTER, WANTED, behind, givers, kept)


def asked(line: Line) -> list[set[ClientId]]:
    return [set(requests) for requests in line.asked]


def useless(name: ClientId = "c0") -> Envelope:
    """By its tag the wanted checkpoint, but no client can open it."""
    return resigned(name, salt=bytes(32))


def test_who_is_behind_gets_the_model_that_the_first_giver_sealed(clients: dict[ClientId, Client]) -> None:
    line = Line(clients)
    caught_up = drive(server(), line)
    assert (set(caught_up.holders), caught_up.faults) == (BEHIND, {})
    assert all(client.model == MODEL for client in clients.values())
    assert caught_up.checkpoint is not None and opened(caught_up.checkpoint) == MODEL
    assert asked(line) == [{"c0"}, BEHIND]


def test_a_kept_checkpoint_is_used_without_asking_anybody_for_one(clients: dict[ClientId, Client]) -> None:
    kept = sealed("c2")
    line = Line(clients)
    assert drive(server(kept), line) == CaughtUp(("c3", "c4"), kept, {})
    assert asked(line) == [BEHIND]


@pytest.mark.parametrize("kept", [None, sealed()])
@pytest.mark.parametrize("silent", [{"c3"}, BEHIND])
def test_silent_receivers_do_not_make_it_ask_another_giver(
    clients: dict[ClientId, Client], kept: Envelope | None, silent: set[ClientId]
) -> None:
    line = Line(clients, dict.fromkeys(silent, 0))
    caught_up = drive(server(kept), line)
    assert set(caught_up.holders) == BEHIND - silent and caught_up.faults == {}
    assert caught_up.checkpoint is not None
    assert asked(line) == ([BEHIND] if kept else [{"c0"}, BEHIND])


@pytest.mark.parametrize("kept", [None, useless("c4")])
def test_a_checkpoint_that_receivers_refuse_is_followed_by_the_next_givers(
    clients: dict[ClientId, Client], kept: Envelope | None
) -> None:
    line = Line(clients, {}, {} if kept else {(0, "c0"): encode(useless())})
    caught_up = drive(server(kept), line)
    assert set(caught_up.holders) == BEHIND and all(client.model == MODEL for client in clients.values())
    assert caught_up.checkpoint is not None and opened(caught_up.checkpoint) == MODEL
    assert asked(line) == ([BEHIND, {"c0"}, BEHIND] if kept else [{"c0"}, BEHIND, {"c1"}, BEHIND])


def test_one_receiver_that_says_it_could_use_a_checkpoint_does_not_speak_for_the_others(
    clients: dict[ClientId, Client],
) -> None:
    """Giver and one receiver may lie together, and keep an honest one from the model: it is handed another giver's."""
    line = Line(clients, {}, {(1, "c4"): encode(Refusal("protocol"))})
    caught_up = drive(server(), line)
    assert caught_up.holders == ("c3", "c4") and set(caught_up.faults) == {"c4"}
    assert caught_up.checkpoint is not None and asked(line) == [{"c0"}, BEHIND, {"c1"}, {"c4"}]


def test_who_refuses_every_checkpoint_costs_no_more_than_the_givers(clients: dict[ClientId, Client]) -> None:
    refusal = encode(Refusal("protocol"))
    line = Line(clients, {}, {(turn, "c4"): refusal for turn in (1, 3, 5)})
    caught_up = drive(server(), line)
    assert caught_up.holders == ("c3",)
    assert asked(line) == [{"c0"}, BEHIND, {"c1"}, {"c4"}, {"c2"}, {"c4"}]


def test_receivers_that_refused_one_checkpoint_and_hear_nothing_of_the_next_are_silent(
    clients: dict[ClientId, Client],
) -> None:
    line = Line(clients, dict.fromkeys(BEHIND, 2))
    assert drive(server(useless()), line).checkpoint is not None
    assert asked(line) == [BEHIND, {"c0"}, BEHIND]


def bad_checkpoints() -> dict[str, bytes]:
    part = sealed().parts[0]
    return {
        "a refusal": encode(Refusal("behind")),
        "garbage": b"\x00",
        "silence": b"",
        "signed by another": encode(sealed("c1")),
        "another exchange's": encode(signed("c0", Step.INSTALL_MODEL, part)),
        "another session's": encode(sealed(session=catch_up("run", b"plan", ROSTER, 2))),
        "another model, by its tag": encode(sealed(tag=b"another")),
        "no checkpoint": encode(signed("c0", Step.SEAL_MODEL, b"")),
        "two": encode(signed("c0", Step.SEAL_MODEL, part, part)),
        "longer than a model": encode(sealed(model=bytes(WANTED.largest + 4096))),
    }


@pytest.mark.parametrize("case", bad_checkpoints())
def test_a_giver_who_seals_something_else_is_at_fault_and_followed_by_the_next(
    clients: dict[ClientId, Client], case: str
) -> None:
    """Nobody who is behind even sees it."""
    line = Line(clients, {}, {(0, "c0"): bad_checkpoints()[case]})
    caught_up = drive(server(), line)
    assert set(caught_up.faults) == ({"c0"} if case != "silence" else set())
    assert set(caught_up.holders) == BEHIND and all(client.model == MODEL for client in clients.values())
    assert asked(line) == [{"c0"}, {"c1"}, BEHIND]


def test_a_model_of_the_expected_length_fits() -> None:
    """An honest reply may be longer than other replies by what ``Wanted`` says, and no longer."""
    for largest, fault in ((len(encode(sealed())) - 4096, None), (len(encode(sealed())) - 4097, "are honest")):
        delivery = ModelDelivery(ROSTER, replace(WANTED, largest=largest), [], ["c0"])
        delivery.open()
        delivery.advance([("c0", encode(sealed()))])
        assert (delivery.result.checkpoint is None) == (fault is not None)
        assert fault is None or fault in delivery.faults["c0"]


def test_with_nobody_behind_it_only_makes_a_checkpoint(clients: dict[ClientId, Client]) -> None:
    line = Line(clients)
    caught_up = drive(server(behind=()), line)
    assert caught_up.holders == () and caught_up.checkpoint is not None and opened(caught_up.checkpoint) == MODEL
    assert asked(line) == [{"c0"}]
    assert server(sealed(), behind=()).open() == {}


def test_when_no_giver_is_left_nobody_holds_it_and_nothing_is_kept(clients: dict[ClientId, Client]) -> None:
    """The round goes on with those who have the model: no exception."""
    line = Line(clients, {}, {(2 * place, name): encode(useless(name)) for place, name in enumerate(GIVERS)})
    caught_up = drive(server(), line)
    assert (caught_up.holders, caught_up.checkpoint, set(caught_up.faults)) == ((), None, BEHIND)
    assert asked(line) == [{"c0"}, BEHIND, {"c1"}, BEHIND, {"c2"}, BEHIND]
    silent = Line(clients, dict.fromkeys(GIVERS, 0))
    assert drive(server(), silent) == CaughtUp((), None, {})
    assert drive(server(givers=()), Line(clients)) == CaughtUp((), None, {})


def test_who_signs_another_tag_or_somebody_elses_word_is_no_holder(clients: dict[ClientId, Client]) -> None:
    for word in (
        signed("c4", Step.INSTALL_MODEL, b"another tag"),
        signed("c3", Step.INSTALL_MODEL, TAG),
        signed("c4", Step.SEAL_MODEL, TAG),
        signed("c4", Step.INSTALL_MODEL, TAG, TAG),
    ):
        lies = {(turn, "c4"): encode(word) for turn in (0, 2, 4, 6)}
        assert drive(server(sealed()), Line(clients, {}, lies)).holders == ("c3",)
