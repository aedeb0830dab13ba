from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import shamir
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Dealt, KeysRequest, SharePair, SharesRequest
from protocols.aggregation.sharing import Shares
from protocols.aggregation.states import Cohort
from protocols.aggregation.summing import Inputs
from protocols.base import Messages, Replies
from protocols.primitives import AgreementKey
from protocols.wire import encode, kind
from securefl import DPSGD, Client, Ledger, SecAgg, Store
from securefl.account import load_identity
from securefl.engines.local import Corruption, LocalEngine, Silence
from securefl.errors import BadInput, BudgetExceeded, RoundFailed
from securefl.privacy.accountant import epsilon
from securefl.privacy.ledger import Owner
from securefl.privacy.mechanism import Budget
from securefl.round import LeftOut, enrol, federate
from securefl.transcript import Crossing, Transcript
from tests.securefl.federation import (
    CELLS,
    NAMES,
    client,
    clients,
    direct,
    enrolled,
    final_model,
    model,
    records,
    server,
)

PRIVATE = DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=3)


@pytest.mark.parametrize("cell", CELLS)
def test_every_protection_reaches_the_model_of_plain_averaging(cell: str) -> None:
    coordinator, owners = server(cell), clients()
    records = list(federate(coordinator, owners, 3))
    assert [record.round for record in records] == [1, 2, 3]
    assert records[-1].accuracy is not None and records[-1].accuracy > 0.8
    np.testing.assert_allclose(final_model(coordinator, owners), reference(3), atol=1e-5)


def reference(rounds: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Federated averaging without any protocol."""
    from securefl import LocalOptimizer, training, vector
    from tests.securefl.federation import WHOLE
    from tests.securefl.federation import records as data

    module = vector.build(model, 0)
    for _ in range(rounds):
        updates = [training.train(module, data(seed), WHOLE, LocalOptimizer(0.5)) for seed in range(len(NAMES))]
        vector.load(module, (vector.flatten(module) + np.mean(updates, axis=0, dtype=np.float64)).astype(np.float32))
    return vector.flatten(module)


@pytest.mark.parametrize("cell", CELLS)
def test_weights_are_declared_constants_that_count_in_the_mean(cell: str) -> None:
    coordinator, owners = server(cell, weights={"ada": 0.01, "bob": 0.01, "cyd": 0.01, "dan": 0.01}), clients()
    list(federate(coordinator, owners, 1))
    alone = server("plain")
    list(federate(alone, clients(), 1))
    only_eve = server("plain", weights=dict.fromkeys(NAMES[:4], 1e-6))
    list(federate(only_eve, clients(), 1))
    moved, equal, eve = final_model(coordinator, owners), final_model(alone, []), final_model(only_eve, [])
    assert np.abs(moved - eve).max() < 0.2 * np.abs(equal - eve).max()


@settings(max_examples=12)
@given(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5), max_size=3))
def test_any_dropouts_that_leave_enough_give_the_sum_of_the_rest(silent: dict[str, int]) -> None:
    silences = [Silence(name, exchange, 1) for name, exchange in silent.items()]
    models = {}
    for cell in ("plain", "secagg", "ckks"):
        coordinator, owners = server(cell), clients()
        if not _enough(silent, cell):
            start = coordinator.model()
            with pytest.raises(RoundFailed):
                list(federate(coordinator, owners, 1, faults=silences))
            assert coordinator.round_number == 0
            assert start is None or start.tobytes() == final_model(coordinator, owners).tobytes()
            continue
        (record,) = federate(coordinator, owners, 1, faults=silences)
        assert list(record.contributors) == [name for name in NAMES if silent.get(name, 9) > 2]
        models[cell] = final_model(coordinator, owners)
    for one, other in itertools.combinations(models.values(), 2):
        np.testing.assert_allclose(one, other, atol=1e-5)


def _enough(silent: dict[str, int], cell: str) -> bool:
    """Whether the cohort of exchange 0 meets minimum (4 of 5), threshold and, to settle a model, majority."""
    left = [sum(silent.get(name, 9) > exchange for name in NAMES) for exchange in range(6)]
    threshold = 2 * left[0] // 3 + 1
    if left[0] < 4 or left[2] < max(threshold, 4):
        return False
    masked = left[1] >= max(threshold, 4) and left[4] >= threshold
    return {"plain": True, "secagg": masked, "ckks": masked and left[5] >= max(threshold, 3)}[cell]


def test_a_silent_client_is_back_in_the_second_attempt() -> None:
    coordinator, owners = enrolled()
    start = coordinator.model()
    answers = itertools.count()
    # ada and bob answer exchange 0 and are then silent: three of five are left, four are needed
    exchange = direct(owners, lambda name, reply: None if name in ("ada", "bob") and next(answers) in (2, 3) else reply)
    with pytest.raises(RoundFailed, match=r"ada \(exchange 1\); bob \(exchange 1\).*The model is unchanged"):
        coordinator.round(exchange)
    assert start is not None and start.tobytes() == final_model(coordinator, owners).tobytes()
    outcome = coordinator.round(exchange)
    assert (outcome.round, outcome.attempt, len(outcome.contributors)) == (1, 2, 5)


def test_epsilon_is_counted_over_rounds_engines_and_runs(tmp_path: Path) -> None:
    """The field's classic fault: a new privacy engine each round, and epsilon starts again."""
    budget = Budget(5.0, 1e-5)
    once = list(federate(server(mechanism=PRIVATE), clients(budget=budget, folder=tmp_path), 2))
    again = list(federate(server(mechanism=PRIVATE, run="second"), clients(budget=budget, folder=tmp_path), 2))
    whole = list(federate(server(mechanism=PRIVATE), clients(budget=budget), 4))
    assert once[1].epsilon == whole[1].epsilon
    assert again[1].epsilon == whole[3].epsilon


TWO_ROUNDS = epsilon([PRIVATE] * 2, 1e-5) + 0.01


def spend_elsewhere(owner: Client) -> None:
    """What another run releases meanwhile of the same data, one round."""
    owner.account.ledger.charge("elsewhere", 1, 1, (PRIVATE,), owner.account.fingerprint, simulated=False)


def test_a_run_of_which_not_all_rounds_fit_is_refused_before_the_first() -> None:
    owners = clients(budget=Budget(TWO_ROUNDS, 1e-5))
    with pytest.raises(BudgetExceeded, match=r"ada: budget refused: spent epsilon 0\.000, 3 more rounds") as refusal:
        next(federate(server(mechanism=PRIVATE, rounds=3), owners))
    assert refusal.value.rounds_left == 2
    assert [owner.account.ledger.entries() for owner in owners] == [()] * 5


def test_a_budget_that_was_spent_meanwhile_ends_the_run_with_the_owner_s_figures() -> None:
    owners = clients(budget=Budget(TWO_ROUNDS, 1e-5))
    rounds = federate(server(mechanism=PRIVATE, rounds=2), owners)
    next(rounds)
    for owner in owners:
        spend_elsewhere(owner)
    with pytest.raises(BudgetExceeded, match="ada: budget refused") as refusal:
        next(rounds)
    assert refusal.value.after > TWO_ROUNDS >= refusal.value.spent == owners[0].epsilon()
    assert refusal.value.rounds_left == 0


def test_one_owner_s_spent_budget_does_not_stop_the_others() -> None:
    owners = [client("ada", Budget(TWO_ROUNDS, 1e-5)), *clients(NAMES[1:], Budget(9.0, 1e-5))]
    rounds = federate(server(mechanism=PRIVATE, rounds=2), owners)
    next(rounds)
    spend_elsewhere(owners[0])
    record = next(rounds)
    assert record.dropped == {"ada": "refused: budget"}
    assert record.epsilon["ada"] == epsilon([PRIVATE] * 2, 1e-5)


def test_an_aborted_attempt_stays_charged() -> None:
    owners = clients(budget=Budget(9.0, 1e-5))
    silences = [Silence(name, 3, 1) for name in NAMES[:3]]
    with pytest.raises(RoundFailed):
        list(federate(server(mechanism=PRIVATE), owners, 1, faults=silences))
    assert [len(owner.account.ledger.entries()) for owner in owners] == [2] * 5


def test_two_clients_of_one_name_are_refused() -> None:
    with pytest.raises(BadInput, match="same name"):
        enrol(server(), [client("ada"), client("ada"), client("bob")])


def test_fewer_than_three_clients_are_refused() -> None:
    with pytest.raises(BadInput, match="below the minimum of 3"):
        enrol(server(), clients(NAMES[:2]))


def test_the_transcript_has_every_message_and_no_payload() -> None:
    crossings: list[Crossing] = []
    (record,) = federate(server(), clients(), 1, transcript=Transcript(crossings.append))
    up = [crossing for crossing in crossings if crossing.direction == "up"]
    assert sum(crossing.bytes for crossing in up) == sum(record.upload_bytes.values())
    assert [crossing.kind for crossing in up if crossing.client == "ada"] == [
        "keys",
        "shares",
        "masked-input",
        "consistency",
        "unmask",
    ]
    assert all(len(crossing.sha256) == 64 for crossing in crossings)


def test_a_corrupted_reply_is_a_named_fault_and_not_in_the_sum() -> None:
    coordinator, owners = enrolled()

    def flip(name: str, reply: bytes) -> bytes:
        return reply[:-1] + bytes([reply[-1] ^ 1]) if name == "dan" else reply

    outcome = coordinator.round(direct(owners, flip))
    assert set(outcome.dropped) == {"dan"}
    assert outcome.contributors == ("ada", "bob", "cyd", "eve")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("exchange", range(6))
def test_a_reply_that_is_garbled_at_any_exchange_is_a_dropout_there(cell: str, exchange: int) -> None:
    masked, sealed = CELLS[cell].masked, CELLS[cell].sealed
    if (exchange in (1, 3, 4) and not masked) or (exchange == 5 and not sealed):
        exchange = 2  # this protection has no such exchange
    (record,) = federate(server(cell), clients(), 1, faults=[Corruption("cyd", exchange, 1)])
    assert "cyd" in record.dropped
    assert ("cyd" in record.contributors) == (exchange > 2)


def test_a_ledger_passed_to_two_runs_is_one_ledger() -> None:
    budget, store = Budget(9.0, 1e-5), Store()
    ledger = Ledger(":memory:", load_identity(store), Owner("ada", "toy"), budget)
    for run in ("first", "second"):
        ada = Client("ada", records(0), model, budget=budget, ledger=ledger, store=store)
        owners = [ada, *clients(NAMES[1:], budget)]
        list(federate(server(mechanism=PRIVATE, run=run), owners, 1))
    assert len(ledger.entries()) == 2


def test_clients_that_are_behind_are_asked_again(tmp_path: Path) -> None:
    """Three of five disks go back in time: the first attempt fails, the second finds them caught up."""
    owners = clients(folder=tmp_path)
    coordinator = server("ckks")
    list(federate(coordinator, owners, 1))
    backups = {name: (tmp_path / f"{name}.store").read_bytes() for name in NAMES[2:]}
    list(federate(coordinator, owners, 2))
    for name, backup in backups.items():
        (tmp_path / f"{name}.store").write_bytes(backup)
    (record,) = federate(coordinator, clients(folder=tmp_path), 3)
    assert record.contributors == NAMES
    assert record.attempt == 4


def test_bytes_of_all_attempts_at_a_round_are_counted() -> None:
    crossings: list[Crossing] = []
    owners = clients()
    answer, answers = owners[0].handle, itertools.count()

    def once_silent(request: bytes) -> bytes:
        return b"lost" if next(answers) == 1 else answer(request)

    owners[0].handle = once_silent  # type: ignore[method-assign]
    silences = [Silence("dan", 1, 1)]  # with ada's second answer lost, the first attempt has three of five
    (record,) = federate(server(), owners, 1, faults=silences, transcript=Transcript(crossings.append))
    assert record.attempt == 2
    up = sum(crossing.bytes for crossing in crossings if crossing.direction == "up")
    assert sum(record.upload_bytes.values()) == up
    assert [crossing.kind for crossing in crossings if crossing.client == "bob"].count("keys") == 4


@pytest.mark.parametrize("cell", CELLS)
def test_no_sum_is_formed_of_fewer_than_the_minimum(cell: str) -> None:
    coordinator, owners = server(shield=msgspec.structs.replace(CELLS[cell], minimum=5)), clients()
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    exchange = LocalEngine({owner.name: owner for owner in owners}, [Silence("eve", 2, 1)]).exchange(1)
    with pytest.raises(RoundFailed, match="4 clients are left after exchange 2, 5 are needed"):
        coordinator.round(exchange)


def test_an_attempt_is_on_the_server_s_disk_before_anything_is_sent(tmp_path: Path) -> None:
    """Else a crashed server would ask for the same session twice, and clients would refuse it for ever."""
    owners = clients()
    first = server(folder=tmp_path)
    enrol(first, owners)

    def crash(requests: Messages) -> Replies:
        direct(owners)(requests)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.round(crash)
    second = server(folder=tmp_path)
    enrol(second, owners)
    outcome = second.round(direct(owners))
    assert (outcome.attempt, outcome.contributors) == (2, NAMES)


def test_who_refused_is_not_asked_again_in_the_next_attempt() -> None:
    crossings: list[Crossing] = []
    owners = [client("ada", Budget(TWO_ROUNDS, 1e-5)), *clients(NAMES[1:], Budget(9.0, 1e-5))]
    rounds = federate(server(mechanism=PRIVATE, rounds=2), owners, transcript=Transcript(crossings.append))
    next(rounds)
    spend_elsewhere(owners[0])
    answer, answers = owners[1].handle, itertools.count()
    owners[1].handle = lambda request: b"lost" if next(answers) == 0 else answer(request)  # type: ignore[method-assign]
    record = next(rounds)
    assert (record.attempt, record.contributors) == (3, NAMES[1:])
    keys = [crossing for crossing in crossings if (crossing.kind, crossing.direction) == ("keys", "down")]
    assert [(crossing.round, crossing.client) for crossing in keys].count((2, "ada")) == 1


@pytest.mark.parametrize(
    ("cell", "exchange", "refusal"),
    [
        ("secagg", 1, "4 clients dealt shares, 5 are needed"),
        ("secagg", 2, "a survivor set of 4 is below the 5 that a sum needs"),
        ("ckks-unmasked", 2, "a sum of 4 from a cohort of 5 is not one this client accepts"),
    ],
)
def test_clients_refuse_a_sum_below_the_minimum_that_a_server_allows(
    cell: str, exchange: int, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (Shares, Inputs):  # the server's own check: the least sum is the threshold, whatever was agreed
        lenient = property(lambda stage: stage.cohort.graph.threshold, lambda stage, least: None)
        monkeypatch.setattr(stage, "needed", lenient, raising=False)
    coordinator, owners = server(shield=msgspec.structs.replace(CELLS[cell], minimum=5)), clients()
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    with pytest.raises(RoundFailed):
        coordinator.round(LocalEngine({o.name: o for o in owners}, [Silence("eve", exchange, 1)]).exchange(1))
    assert all(refusal in owner.errors for owner in owners[:4])


def test_each_record_counts_its_own_round_s_bytes() -> None:
    crossings: list[Crossing] = []
    for record in federate(server(), clients(), 2, transcript=Transcript(crossings.append)):
        for direction, counted in (("up", record.upload_bytes), ("down", record.download_bytes)):
            mine = [c.bytes for c in crossings if (c.round, c.direction) == (record.round, direction)]
            assert sum(counted.values()) == sum(mine)


def test_who_dealt_shares_of_no_secret_is_named_and_left_out_of_the_next_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owners = clients()
    answer = owners[3].handle

    def dealing_badly(request: bytes) -> bytes:
        if kind(request) != SharesRequest.KIND:
            return answer(request)
        with monkeypatch.context() as patch:  # shares that fit their commitments, but no polynomial
            patch.setattr(shamir, "split", lambda _s, _t, points, random: {x: b"\0" + random(32) for x in points})
            return answer(request)

    owners[3].handle = dealing_badly  # type: ignore[method-assign]
    (record,) = federate(server(), owners, 1)
    assert (record.attempt, record.contributors) == (2, ("ada", "bob", "cyd", "eve"))


@pytest.mark.slow
def test_more_than_a_hundred_clients_reach_the_model_that_they_reach_in_the_clear() -> None:
    many = [f"site-{i:03d}" for i in range(110)]
    gone = [Silence(name, 2, 1) for name in many[:5]]
    models = {}
    for cell in ("plain", "secagg", "ckks"):
        owners = [client(name, data=records(number, 8)) for number, name in enumerate(many)]
        coordinator = server(cell)
        (record,) = federate(coordinator, owners, 1, faults=gone)
        assert record.contributors == tuple(many[5:])
        assert record.recovered == (() if cell == "plain" else tuple(many[:5]))
        models[cell] = final_model(coordinator, owners)
    assert SecAgg().rules(110).degree_for(110) < 50
    for cell in ("secagg", "ckks"):
        assert np.abs(models[cell] - models["plain"]).max() < 1e-4


def dealing_badly_to(owner: Client, receivers: Collection[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this owner's client deal shares that do not open to some, in every round."""
    answer = owner.handle

    class Dealing(AggregationClient):
        def _deal(self, key: AgreementKey, cohort: Cohort, receiver: str, pair: SharePair) -> bytes:
            dealt = super()._deal(key, cohort, receiver, pair)
            if receiver not in receivers:
                return dealt
            return msgspec.msgpack.encode(
                msgspec.structs.replace(msgspec.msgpack.decode(dealt, type=Dealt), sealed=bytes(99))
            )

    def dishonest(request: bytes) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr("securefl.client.AggregationClient", Dealing)
            return answer(request)

    owner.handle = dishonest  # type: ignore[method-assign]


def test_a_dealer_cannot_keep_others_out_of_more_than_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten, two shares that do not open prove nothing; but every dispute has a liar, and who is in most goes."""
    many = [f"site-{i}" for i in range(10)]
    owners = [client(name, data=records(number)) for number, name in enumerate(many)]
    dealing_badly_to(owners[0], many[8:], monkeypatch)
    first, second, third = federate(server(), owners, 3)
    assert first.contributors == tuple(many[:8])
    assert first.dropped["site-0"] == "disputed: site-8, site-9 cannot open its shares"
    for later in (second, third):
        assert later.contributors == tuple(many[1:])
        assert later.dropped == {"site-0": "left out: disputed: site-8, site-9 cannot open its shares"}


def test_who_is_named_costs_one_attempt_in_a_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = clients()
    dealing_badly_to(owners[3], NAMES, monkeypatch)
    kept = list(federate(server(), owners, 3))
    assert [record.attempt for record in kept] == [2, 3, 4]
    for record in kept:
        assert record.contributors == ("ada", "bob", "cyd", "eve")
        assert record.dropped["dan"].startswith("left out: blamed: its shares do not open, say 4")


def test_nobody_is_left_out_whom_a_round_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four, three are needed: of two in dispute, one may go."""
    owners = clients(NAMES[:4])
    dealing_badly_to(owners[0], ["dan"], monkeypatch)
    first, second = federate(server(), owners, 2)
    assert first.contributors == ("ada", "bob", "cyd")
    assert len(second.contributors) == 3
    assert len([why for why in second.dropped.values() if why.startswith("left out")]) == 1


def test_a_reply_that_nobody_asked_for_is_written_down_and_ends_nothing() -> None:
    crossings: list[Crossing] = []
    transcript = Transcript(crossings.append)

    def exchange(requests: Messages) -> Replies:
        yield "bob", b"late"
        yield from ((name, b"late") for name, _ in requests.items())

    replies = transcript.recording(exchange, 1)({"ada": encode(KeysRequest(b""))})
    assert list(replies) == [("bob", b"late"), ("ada", b"late")]
    assert [(c.client, c.kind, c.direction) for c in crossings] == [
        ("bob", "unasked", "up"),
        ("ada", "keys", "down"),
        ("ada", "keys", "up"),
    ]


def test_two_liars_have_one_honest_client_left_out_and_then_go_themselves() -> None:
    plan = msgspec.structs.replace(enrolled()[0].plan, clients=tuple(f"site-{i}" for i in range(10)), minimum=4)
    left_out, liars = LeftOut(), {"site-8", "site-9"}
    left_out.learn(plan, {"site-0": "disputed: they cannot open its shares"}, {"site-0": liars})
    assert left_out.reasons() == {"site-0": "left out: disputed: they cannot open its shares"}
    left_out.learn(plan, {"site-1": "disputed: they cannot open its shares"}, {"site-1": liars})
    assert set(left_out.names) == {"site-0", "site-1", *liars}
    left_out.learn(plan, {"site-2": "blamed: wrong", "site-3": "blamed: wrong", "site-4": "blamed: wrong"}, {})
    assert len(left_out.names) == 6 and {"site-2", "site-3", "site-4"} <= set(left_out.names)
