"""What a client puts in beside its update: noise in the ring, and what it shows to all others at the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.aggregation.messages import Advertised, Envelope
from protocols.aggregation.server import AggregationServer
from protocols.aggregation.session import Step
from protocols.base import ClientId, drive
from protocols.encoding.ckks import CKKS
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import Inconsistent, MalformedMessage, ProtocolError, RoundAborted, UpdateRejected
from protocols.wire import decode
from tests.protocols.cohort import CELLS, MASKED, Cohort, Wire, make, names

EVERY_CELL = pytest.mark.parametrize("cell", CELLS)


def step_of(cohort: Cohort) -> float:
    coder = cohort.encoding
    assert isinstance(coder, FixedPoint | CKKS)
    return coder.step if isinstance(coder, FixedPoint) else coder.parameters.step


def on_the_grid(cohort: Cohort, seed: int = 1) -> dict[ClientId, NDArray[np.float64]]:
    """Updates that no rounding moves."""
    generator = np.random.default_rng(seed)
    return {name: generator.integers(-1000, 1000, 6) * step_of(cohort) for name in cohort.clients}


def with_noise(cohort: Cohort, noise: Mapping[ClientId, NDArray[np.int64] | None]) -> list[str]:
    """Has the clients add noise; returns what they were asked for, in order, as it goes on."""
    asked: list[str] = []
    inputs = on_the_grid(cohort)

    def says(word: str, value: object) -> object:
        asked.append(word)
        return value

    for name, client in cohort.clients.items():
        client._contribution = replace(
            client._contribution,
            update=lambda name=name: says(f"update {name}", inputs[name]),  # type: ignore[misc]
            noise=lambda name=name: says(f"noise {name}", noise.get(name)),  # type: ignore[misc]
        )
    cohort.inputs = inputs
    return asked


def noises(cohort: Cohort, largest: int) -> dict[ClientId, NDArray[np.int64]]:
    generator = np.random.default_rng(2)
    return {name: generator.integers(-largest, largest, 6) for name in cohort.clients}


# ---- noise in the ring


@EVERY_CELL
def test_a_sum_holds_everybodys_noise_to_the_step(cell: str) -> None:
    cohort = make(cell)
    noise = noises(cohort, 10**6)
    with_noise(cohort, noise)
    aggregate = cohort.run(Wire(cohort.clients))
    expected = sum(cohort.inputs.values()) + sum(noise.values()) * step_of(cohort)
    np.testing.assert_array_equal(cohort.decoded(aggregate), expected)


@EVERY_CELL
def test_noise_is_not_cut_off_at_the_bound_and_may_be_negative(cell: str) -> None:
    cohort = make(cell)
    beyond = np.array([3, -3, 0, 1, -1, 2]) * round(4.0 / step_of(cohort)) // 2
    with_noise(cohort, {"c1": beyond})
    aggregate = cohort.run(Wire(cohort.clients))
    expected = sum(cohort.inputs.values()) + beyond * step_of(cohort)
    np.testing.assert_array_equal(cohort.decoded(aggregate), expected)


@EVERY_CELL
def test_noise_is_asked_for_once_after_the_update_and_has_no_weight(cell: str) -> None:
    cohort = make(cell, weights=dict.fromkeys(names(5), 0.5))
    noise = noises(cohort, 1000)
    asked = with_noise(cohort, noise)
    aggregate = cohort.run(Wire(cohort.clients))
    assert asked == [f"{what} {name}" for name in names(5) for what in ("update", "noise")]
    off = cohort.decoded(aggregate) / step_of(cohort) - sum(noise.values())
    weighted = sum(cohort.inputs.values()) / 2 / step_of(cohort)
    assert np.abs(off - weighted).max() < 5  # what rounding halves does


@pytest.mark.parametrize("cell", MASKED)
def test_who_drops_out_before_its_input_is_not_asked_for_noise(cell: str) -> None:
    cohort = make(cell)
    noise = noises(cohort, 1000)
    asked = with_noise(cohort, noise)
    aggregate = cohort.run(Wire(cohort.clients, silent={"c3": Step.INPUT}))
    assert not [word for word in asked if word.endswith("c3")]
    left = [name for name in names(5) if name != "c3"]
    expected = sum(cohort.inputs[name] + noise[name] * step_of(cohort) for name in left)
    np.testing.assert_array_equal(cohort.decoded(aggregate), expected)


@EVERY_CELL
def test_noise_of_another_length_is_rejected_before_anything_leaves(cell: str) -> None:
    cohort = make(cell)
    with_noise(cohort, {"c1": np.zeros(7, np.int64)})
    wire = Wire(cohort.clients)
    aggregate = cohort.run(wire)
    assert isinstance(wire.refusals["c1"], UpdateRejected)
    assert "c1" not in aggregate.contributors and (Step.INPUT, "c1") not in wire.replies


def test_noise_is_no_part_of_what_is_printed() -> None:
    cohort = make("secagg")
    with_noise(cohort, {"c1": np.full(6, 4711)})
    assert "lambda" not in repr(cohort.clients["c1"]._contribution)
    assert "noise" not in repr(cohort.clients["c1"]._contribution)


# ---- what a client shows, and who sees it


def heads(cohort: Cohort) -> dict[ClientId, dict[ClientId, bytes]]:
    """Has every client show a head of its own, and note those that it is shown."""
    seen: dict[ClientId, dict[ClientId, bytes]] = {}
    for name, client in cohort.clients.items():
        client._contribution = replace(
            client._contribution,
            witness=f"head of {name}".encode(),
            witnessed=lambda shown, name=name: seen.__setitem__(name, dict(shown)),  # type: ignore[misc]
        )
    return seen


@pytest.mark.parametrize("cell", MASKED)
def test_every_client_sees_what_all_others_showed_before_it_deals_a_share(cell: str) -> None:
    cohort = make(cell)
    seen = heads(cohort)
    wire = Wire(cohort.clients, silent=dict.fromkeys(names(5), int(Step.INPUT)))
    with pytest.raises(RoundAborted):
        cohort.run(wire)
    assert seen == {
        name: {other: f"head of {other}".encode() for other in names(5) if other != name} for name in names(5)
    }


@pytest.mark.parametrize("cell", ["plain", "ckks-unmasked"])
def test_without_masks_only_the_server_sees_what_clients_show(cell: str) -> None:
    cohort = make(cell)
    seen, admitted = heads(cohort), {}
    drive(server(cohort, lambda client, shown: admitted.__setitem__(client, shown)), Wire(cohort.clients))
    assert seen == {}
    assert admitted == {name: f"head of {name}".encode() for name in names(5)}


def test_a_server_cannot_show_a_client_another_head_than_its_owner_signed() -> None:
    """Else it could hide, or invent, a ledger that was set back."""
    cohort = make("secagg")
    seen = heads(cohort)
    before = dict(seen)

    def falsified(step: Step, name: ClientId, data: bytes) -> bytes:
        return data.replace(b"head of c2", b"HEAD of c2") if (step, name) == (Step.SHARES, "c1") else data

    wire = Wire(cohort.clients, on_request=falsified)
    aggregate = cohort.run(wire)
    assert isinstance(wire.refusals["c1"], ProtocolError)
    assert "c1" not in seen and "c1" not in before and "c1" not in aggregate.contributors
    assert seen["c3"]["c2"] == b"head of c2"


# ---- whom the server admits


def server(cohort: Cohort, admit: object) -> AggregationServer:
    return AggregationServer(cohort.terms, dict.fromkeys(cohort.clients, b""), admit=admit)  # type: ignore[arg-type]


def leaves_out(name: ClientId, error: Exception) -> object:
    def admit(client: ClientId, shown: bytes) -> None:
        if client == name:
            raise error

    return admit


@pytest.mark.parametrize("error", [Inconsistent("set back to an older copy"), MalformedMessage("no head of a ledger")])
@EVERY_CELL
def test_who_is_not_admitted_is_left_out_by_name_from_the_first_exchange_on(cell: str, error: Exception) -> None:
    cohort = make(cell)
    wire = Wire(cohort.clients)
    aggregate = drive(server(cohort, leaves_out("c2", error)), wire)
    assert dict(aggregate.faults) == {"c2": str(error)}
    assert dict(aggregate.dropped) == {"c2": "exchange 0"}
    assert cohort.is_right(aggregate) and "c2" not in aggregate.contributors
    assert {step for step, name in wire.requests if name == "c2"} == {Step.KEYS}
    assert "c2" not in cohort.asked_for_update


@EVERY_CELL
def test_by_default_everybody_is_admitted_whatever_it_shows(cell: str) -> None:
    cohort = make(cell)
    for client in cohort.clients.values():
        client._contribution = replace(client._contribution, witness=b"anything at all")
    aggregate = cohort.run(Wire(cohort.clients))
    assert not aggregate.faults and aggregate.contributors == names(5)


def test_a_server_that_admits_too_few_ends_the_attempt_and_says_whom_it_left_out() -> None:
    cohort = make("secagg")

    def admit(client: ClientId, shown: bytes) -> None:
        if client in ("c1", "c2", "c4"):
            raise Inconsistent("set back")

    with pytest.raises(RoundAborted, match="2 clients are left after exchange 0") as caught:
        drive(server(cohort, admit), Wire(cohort.clients))
    assert dict(caught.value.faults) == dict.fromkeys(("c1", "c2", "c4"), "set back")
    assert cohort.asked_for_update == []


def test_only_what_its_owner_signed_is_brought_before_the_server_s_memory() -> None:
    """Else anybody on the way could have a client left out for good."""
    cohort, admitted = make("secagg"), []

    def falsified(step: Step, name: ClientId, data: bytes) -> bytes:
        if (step, name) != (Step.KEYS, "c2"):
            return data
        assert msgspec.msgpack.decode(decode(data, Envelope).parts[0], type=Advertised).witness == b"ledger head"
        return data.replace(b"ledger head", b"LEDGER HEAD")

    wire = Wire(cohort.clients, on_reply=falsified)
    aggregate = drive(server(cohort, lambda client, shown: admitted.append((client, shown))), wire)
    assert set(aggregate.faults) == {"c2"}
    assert admitted == [(name, b"ledger head") for name in names(5) if name != "c2"]
