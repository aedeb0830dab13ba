"""Keys that are replaced, clients that come later, models that are missed: what the server relays and cannot read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from protocols.aggregation.messages import DecryptRequest, Header, KeysRequest, Refusal, envelope
from protocols.aggregation.session import Step
from protocols.base import Exchange, Messages, Replies
from protocols.delivery.client import open_model, seal_model
from protocols.delivery.messages import (
    InstallModelRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    catch_up,
    key_setup,
)
from protocols.delivery.messages import ShareKeyRequest as Share
from protocols.wire import decode, encode, kind
from securefl import CKKS, CKKSUnmasked, Client, Server, Store
from securefl.deliveries import share_key
from securefl.engines.local import Silence
from securefl.errors import RoundFailed
from securefl.keyholder import KeyHolder
from securefl.protection import Protection
from securefl.round import enrol, federate
from tests.securefl.federation import NAMES, RUN, TEST, clients, direct, enrolled, model, records, server

EVERY_ROUND = CKKS(key_rounds=1)


class Crash(BaseException):
    """The process is gone."""


def watched(exchange: Exchange, seen: list[int], die_at: int | None = None) -> Exchange:
    """The same exchange, that writes down what kind of request was sent, one a request, and may die at one of them."""

    def watching(requests: Messages) -> Replies:
        for name, request in requests.items():
            seen.append(kind(request))
            if len(seen) == die_at:
                raise Crash
            yield from exchange({name: request})

    return watching


def begun(folder: Path | None = None, shield: Protection = EVERY_ROUND, there: int = 5) -> tuple[Server, list[Client]]:
    """A run whose key is made, in the presence of the first ``there`` clients."""
    coordinator, owners = server("ckks", folder=folder, shield=shield), clients(folder=folder)
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners[:there]))
    return coordinator, owners


def keys(owners: list[Client]) -> set[bytes]:
    return {keyholder(owner)._held.record.keys[0].key_id for owner in owners}


def keyholder(owner: Client) -> KeyHolder:
    return owner._keyholder(RUN)


def one_model(owners: list[Client]) -> bool:
    found = [owner.model(RUN) for owner in owners]
    return all(model is not None and np.array_equal(model, found[0]) for model in found)


# ---- keys that are replaced


@pytest.mark.parametrize("shield", [EVERY_ROUND, CKKSUnmasked(key_rounds=1)])
def test_a_key_is_replaced_after_as_many_sums_as_it_may_decrypt(shield: Protection) -> None:
    coordinator, owners = begun(shield=shield)
    used = []
    for _ in range(3):
        coordinator.round(direct(owners))
        (key,) = keys(owners)
        used.append(key)
    assert len(set(used)) == 3 and one_model(owners)


def test_by_default_a_key_serves_a_thousand_answers_of_all_clients_together() -> None:
    coordinator, owners = enrolled("ckks")
    assert coordinator.plan.key_rounds == 1024 // 5
    before = keys(owners)
    coordinator.round(direct(owners))
    assert keys(owners) == before


def test_a_rotation_changes_the_key_and_not_the_model() -> None:
    """The same training with and without: two runs of five rounds end in one model, to the bit."""
    ends = []
    for shield in (CKKS(), EVERY_ROUND):
        coordinator, owners = begun(shield=shield)
        for _ in range(5):
            coordinator.round(direct(owners))
        assert one_model(owners)
        ends.append(owners[0].model(RUN))
    # Rounding is random, to a step of 2**-25: equal up to what five rounds of it can do.
    assert np.abs(ends[0] - ends[1]).max() < 1e-5


def test_a_client_takes_part_no_longer_once_its_key_is_used_up() -> None:
    """Whatever the server says: one that never has a key replaced gets no more decryptions, and costs no privacy."""
    coordinator, owners = begun()
    coordinator.round(direct(owners))
    coordinator._kept.save(key_round=1)  # as if it were new
    with pytest.raises(RoundFailed, match="refused: policy"):
        coordinator.round(direct(owners))
    assert "the run's key has decrypted its 1 sums" in owners[0].errors[-1]


def test_whoever_misses_a_rotation_gets_the_new_key_and_takes_part_again() -> None:
    coordinator, owners = begun()
    coordinator.round(direct(owners))
    assert coordinator.round(direct(owners[:4])).contributors == NAMES[:4]
    assert coordinator.round(direct(owners)).contributors == NAMES
    assert len(keys(owners)) == 1 and one_model(owners)


def test_too_few_for_a_new_key_leave_everybody_with_the_old_one_and_the_run_goes_on_later() -> None:
    coordinator, owners = begun()
    coordinator.round(direct(owners))
    before = keys(owners)
    with pytest.raises(RoundFailed, match="2 clients joined and 0 hold one CKKS key and the model, 4 are needed"):
        coordinator.round(direct(owners[:2]))
    assert keys(owners) == before
    assert coordinator.round(direct(owners)).contributors == NAMES
    assert len(keys(owners)) == 1


@pytest.mark.parametrize("dead", [{"ada"}, {"ada", "bob"}])
def test_when_the_client_that_makes_the_key_dies_the_next_takes_over_under_a_new_one(dead: set[str]) -> None:
    coordinator, owners = server("ckks", shield=CKKS(minimum=3)), clients()
    enrol(coordinator, owners)
    makers: list[str] = []

    def exchange(requests: Messages) -> Replies:
        for name, request in requests.items():
            if kind(request) == MakeKeyRequest.KIND:
                makers.append(name)
                if name in dead:
                    continue
            yield from direct(owners)({name: request})

    coordinator.set_up(exchange)
    assert makers == [*sorted(dead), NAMES[len(dead)]]
    assert coordinator.round(direct(owners)).contributors == NAMES


def test_a_maker_that_dies_after_some_have_its_key_is_followed_by_the_next_and_its_key_is_never_used() -> None:
    coordinator, owners = server("ckks"), clients()
    enrol(coordinator, owners)
    given: list[str] = []

    def exchange(requests: Messages) -> Replies:
        for name, request in requests.items():
            if kind(request) == ReceiveKeyRequest.KIND:
                given.append(name)
                if 2 < len(given) <= 5:  # the first two receive the first key, nobody else
                    continue
            yield from direct(owners)({name: request})

    coordinator.set_up(exchange)
    first = keyholder(owners[0])._held.record.key
    assert coordinator.round(direct(owners)).contributors == NAMES
    assert len(keys(owners)) == 1 and keyholder(owners[0])._held.record.key != first


@pytest.mark.parametrize("place", range(1, 17))
def test_a_rotation_goes_on_after_a_crash_of_everything_at_any_message(tmp_path: Path, place: int) -> None:
    """5 joins, 1 maker, 5 receivers, then a round begins: server and clients die at each, and start from disk."""
    coordinator, owners = begun(tmp_path)
    coordinator.round(direct(owners))
    with pytest.raises(Crash):
        coordinator.round(watched(direct(owners), [], place))
    again, reborn = server("ckks", folder=tmp_path, shield=EVERY_ROUND), clients(folder=tmp_path)
    enrol(again, reborn)
    again.set_up(direct(reborn))
    outcome = again.round(direct(reborn))
    assert (outcome.round, outcome.contributors) == (2, NAMES)
    assert len(keys(reborn)) == 1 and one_model(reborn)


def test_a_rotation_cannot_be_replayed_to_bring_a_key_back() -> None:
    """Packages are sealed to one-use keys: the same bytes again open nothing, also in the very next rotation."""
    coordinator, owners = begun()
    coordinator.round(direct(owners))
    packages: dict[str, bytes] = {}

    def recording(requests: Messages) -> Replies:
        for name, request in requests.items():
            if kind(request) == ReceiveKeyRequest.KIND:
                packages[name] = request
            yield from direct(owners)({name: request})

    coordinator.round(recording)
    used = keys(owners)
    coordinator.round(direct(owners))
    for owner in owners:
        assert decode(owner.handle(packages[owner.name]), Refusal).reason == "protocol"
    assert keys(owners).isdisjoint(used)
    assert coordinator.round(direct(owners)).contributors == NAMES


def test_a_rotation_that_falls_due_while_clients_are_behind_waits_until_they_are_not() -> None:
    """Only who has the model can sign for it under a new key: they are caught up under the old one first."""
    coordinator, owners = begun()
    lost_sum = []

    def without_dans_decryption(requests: Messages) -> Replies:
        for name, request in requests.items():
            if (name, kind(request)) == ("dan", DecryptRequest.KIND):
                lost_sum.append(name)
            elif name != "eve":
                yield from direct(owners)({name: request})

    assert coordinator.round(without_dans_decryption).round == 1 and lost_sum
    assert coordinator.round(direct(owners)).contributors == NAMES
    assert one_model(owners) and len(keys(owners)) == 1


def test_a_rotation_does_not_take_the_run_back_to_what_most_clients_restored(tmp_path: Path) -> None:
    """Three of five disks come back from before the round: together they could sign for a key, and for an old model."""
    coordinator, owners = begun(tmp_path, CKKS(minimum=3, key_rounds=1))
    backups = {name: (tmp_path / f"{name}.store").read_bytes() for name in NAMES[2:]}
    coordinator.round(direct(owners))
    tag, model = coordinator._state.tag, owners[0].model(RUN)
    for name, backup in backups.items():
        (tmp_path / f"{name}.store").write_bytes(backup)
    owners = clients(folder=tmp_path)
    for owner in owners:
        owner.pin({each.name: each.public_key for each in owners}, coordinator.plan)
    with pytest.raises(RoundFailed, match="5 clients joined and 2 hold one CKKS key and the model, 3 are needed"):
        coordinator.round(direct(owners))
    assert coordinator._state.tag == tag and np.array_equal(owners[0].model(RUN), model)
    assert coordinator.round(direct(owners)).round == 2 and one_model(owners)


def test_a_key_that_someone_on_the_wire_had_made_is_replaced_by_one_that_the_server_knows() -> None:
    """Requests are not signed: he drives a whole rotation by himself. It costs an attempt, and no more."""
    coordinator, owners = begun(shield=CKKS())
    coordinator.round(direct(owners))
    before = coordinator._state
    coordinator._relay._new_key(direct(owners))
    forged = coordinator._announcement(2)
    coordinator._kept.save(**{name: getattr(before, name) for name in before.__struct_fields__})
    for owner in owners:
        owner.handle(encode(KeysRequest(forged.encoded())))
    assert before.key_id not in keys(owners)
    with pytest.raises(RoundFailed, match="refused: behind"):
        coordinator.round(direct(owners))
    assert coordinator.round(direct(owners)).contributors == NAMES


def test_holders_that_never_help_are_not_asked_first_for_ever() -> None:
    """Three of six honest in training and silent when a key or a model is wanted of them."""
    names = ("ada", "bob", "cyd", "dan", "eve")
    coordinator, owners = begun(shield=CKKS(minimum=3), there=4)

    def unhelpful(requests: Messages) -> Replies:
        for name, request in requests.items():
            if not (name in names[:3] and kind(request) in (Share.KIND, SealModelRequest.KIND)):
                yield from direct(owners)({name: request})

    for _ in range(2):
        coordinator.round(direct(owners[:4]))
    found = [coordinator.round(unhelpful).contributors for _ in range(4)]
    assert "eve" in found[-1]


def test_a_word_that_is_none_costs_its_sender_the_key_and_stops_nobody() -> None:
    coordinator, owners = server("ckks"), clients()
    enrol(coordinator, owners)

    def garbled(requests: Messages) -> Replies:
        for name, request in requests.items():
            for sender, reply in direct(owners)({name: request}):
                if (name, kind(request)) == ("ada", ReceiveKeyRequest.KIND):
                    session = key_setup(RUN, coordinator.plan.digest(), coordinator._known_roster(), 0)
                    header = Header(session, Step.RECEIVE_KEY, "ada", b"", b"", b"")
                    reply = encode(envelope(owners[0]._identity, header, [b"nonsense"]))
                yield sender, reply

    coordinator.set_up(garbled)
    assert coordinator.round(direct(owners)).contributors == NAMES


def test_the_checkpoint_of_a_finished_run_opens_for_others_or_another_one_is_made() -> None:
    coordinator, owners = begun(shield=CKKS())
    coordinator.round(direct(owners))
    coordinator._kept.save(attempt=len(NAMES))  # ada is asked first
    bad, session = owners[0], catch_up(RUN, coordinator.plan.digest(), coordinator._known_roster(), 1)
    spoilt = seal_model("ada", bad._identity, session, bytes(32), coordinator._state.tag, bytes(88), os.urandom)

    def spoiling(requests: Messages) -> Replies:
        for name, request in requests.items():
            if (name, kind(request)) == ("ada", SealModelRequest.KIND):
                yield name, encode(spoilt)
            else:
                yield from direct(owners)({name: request})

    coordinator.finish(spoiling)
    kept = coordinator._kept.sealed
    assert kept is not None and kept != spoilt
    tag_key = keyholder(owners[1])._held.record.keys[0].tag_key
    assert open_model(session, coordinator._known_roster(), tag_key, kept) == keyholder(owners[1])._held.model


def test_a_key_that_was_replaced_never_comes_back() -> None:
    """Else a server could have the count of its sums begin anew, for ever: rotate, hand the old one round, announce it.

    One client that is kept from the rotation still has the old key, and gives it to the others in good faith.
    """
    coordinator, owners = begun()
    coordinator.round(direct(owners))
    (old,) = keys(owners)
    coordinator.round(direct(owners[:4]))  # a new key; eve is not asked
    (new,) = keys(owners[:4])
    assert old in keys(owners[4:]) and old != new
    coordinator._kept.save(key_id=old, behind=NAMES[:4], evidence=())
    announced, roster = coordinator._announcement(2), coordinator._known_roster()
    shared = share_key(announced, roster, ["eve"], NAMES[:4], direct(owners))
    assert shared.replies == {}
    assert all("the package holds a key that was replaced before" in owner.errors for owner in owners[:4])


def test_a_key_is_taken_up_when_enough_have_signed_for_it_and_not_on_the_servers_word() -> None:
    """The one in use is erased for it: a server could leave every client with another key."""
    coordinator, owners = begun()
    coordinator.round(direct(owners))
    (old,) = keys(owners)
    coordinator._relay._new_key(direct(owners))
    evidence = coordinator._state.evidence
    for few in ((), evidence[:2]):
        coordinator._kept.save(evidence=few)
        with pytest.raises(RoundFailed, match="refused: protocol"):
            coordinator.round(direct(owners))
        assert keys(owners) == {old}
    coordinator._kept.save(evidence=evidence)
    assert coordinator.round(direct(owners)).contributors == NAMES
    assert old not in keys(owners)


# ---- clients that come later


def test_a_client_that_was_away_when_the_key_was_made_gets_it_before_the_first_round() -> None:
    coordinator, owners = begun(shield=CKKS(), there=4)
    seen: list[int] = []
    assert coordinator.round(watched(direct(owners), seen)).contributors == NAMES
    # The first model is public: there is nothing to hand over but the key.
    assert Share.KIND in seen and SealModelRequest.KIND not in seen


def test_a_client_that_joins_later_gets_the_current_key_only_and_the_model_by_catch_up() -> None:
    coordinator, owners = begun(there=4)
    for _ in range(3):
        coordinator.round(direct(owners[:4]))
    old = keys(owners[:4])
    seen: list[int] = []
    assert coordinator.round(watched(direct(owners), seen)).contributors == NAMES
    held = keyholder(owners[4])._held
    assert {key.key_id for key in held.record.keys} == keys(owners[:4])
    assert old.isdisjoint({key.key_id for key in held.record.keys})
    assert InstallModelRequest.KIND in seen and one_model(owners)


def test_a_client_whose_disk_is_lost_in_the_middle_of_a_run_is_brought_back(tmp_path: Path) -> None:
    """With its identity, which its owner has a copy of: without, it is another client."""
    coordinator, owners = begun(tmp_path, CKKS())
    for _ in range(2):
        coordinator.round(direct(owners))
    identity = owners[4]._store.get("identity")
    assert identity is not None
    (tmp_path / "eve.store").unlink()
    store = Store()
    store.put({"identity": identity})
    owners[4] = Client("eve", records(4), model, test=TEST, store=store)
    owners[4].pin({owner.name: owner.public_key for owner in owners}, coordinator.plan)
    assert coordinator.round(direct(owners)).dropped == {"eve": "refused: behind"}
    assert coordinator.round(direct(owners)).contributors == NAMES
    assert one_model(owners)


def test_nobody_but_the_roster_is_given_a_key() -> None:
    coordinator, owners = begun(shield=CKKS())
    stranger = clients(("bob", "cyd", "dan"))[0]  # another identity under a member's name
    stranger.pin({**{owner.name: owner.public_key for owner in owners}, "bob": stranger.public_key}, coordinator.plan)
    seen: list[int] = []
    coordinator._kept.save(behind=("bob",))
    coordinator._relay.catch_up(watched(direct([owners[0], stranger, *owners[2:]]), seen))
    assert Share.KIND not in seen and coordinator._state.behind == ("bob",)


def test_a_key_is_given_under_its_own_name_or_not_at_all() -> None:
    """A holder that hands out another key than the run's is passed over, and its receivers keep what they had."""
    coordinator, owners = begun(there=4)
    liar = owners[0]

    class Lying:
        name = liar.name

        def handle(self, request: bytes) -> bytes:
            if kind(request) != Share.KIND:
                return liar.handle(request)
            asked = decode(request, Share)
            return liar.handle(encode(MakeKeyRequest(asked.run, asked.round, asked.joined)))

    team = [Lying(), *owners[1:]]
    assert coordinator.round(direct(team)).contributors == NAMES  # type: ignore[arg-type]
    assert len(keys(owners)) == 1


# ---- models that are missed, and kept


def test_the_server_keeps_a_sealed_model_that_later_catch_ups_are_served_from() -> None:
    coordinator, owners = begun(shield=CKKS())
    coordinator.round(direct(owners[:4]))
    coordinator.finish(direct(owners[:4]))
    sealed = coordinator._kept.sealed
    assert sealed is not None
    seen: list[int] = []
    assert coordinator.round(watched(direct(owners), seen)).contributors == NAMES
    assert SealModelRequest.KIND not in seen and InstallModelRequest.KIND in seen
    assert coordinator._kept.sealed is None  # of the model before: no longer the one that is wanted


def test_at_the_end_everybody_who_answers_holds_the_model_and_the_server_a_sealed_copy() -> None:
    coordinator, owners = server("ckks"), clients()
    records = list(federate(coordinator, owners, 3, faults=[Silence("eve", 0, 3)]))
    assert records[-1].dropped == {"eve": "exchange 0"}
    assert one_model(owners) and [owner.model_round(RUN) for owner in owners] == [3] * 5
    assert coordinator._kept.sealed is not None


def test_a_bad_checkpoint_is_followed_by_another_clients() -> None:
    """It is signed and names the right tag: only who opens it can tell."""
    coordinator, owners = begun(shield=CKKS())
    coordinator.round(direct(owners[:4]))
    bad = owners[0]

    class Spoiling:
        name = bad.name

        def handle(self, request: bytes) -> bytes:
            if kind(request) != SealModelRequest.KIND:
                return bad.handle(request)
            session, holder = catch_up(RUN, coordinator.plan.digest(), coordinator._known_roster(), 1), keyholder(bad)
            tag_key, state = holder._held.record.keys[0].tag_key, coordinator._state
            spoilt = bytes(len(holder._held.model))
            return encode(seal_model("ada", bad._identity, session, tag_key, state.tag, spoilt, os.urandom))

    seen: list[int] = []
    coordinator._kept.save(attempt=4)  # of four who have the model, ada is asked first
    team = [Spoiling(), *owners[1:]]
    assert "eve" in coordinator.round(watched(direct(team), seen)).contributors  # type: ignore[arg-type]
    assert seen.count(SealModelRequest.KIND) == 2
    assert "0 clients signed the tag of the model, 3 are needed" in owners[4].errors


# ---- a sum that nobody can decrypt


@pytest.mark.parametrize("cell", ["ckks", "ckks-unmasked"])
def test_a_client_that_sends_noise_in_place_of_a_ciphertext_voids_the_round_and_stops_nothing(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to stop the run for good: no client could decrypt the sum, and it was never formed again."""
    from protocols.encoding import Encoded
    from protocols.encoding.ckks import CKKS as Encoding
    from protocols.masking import expand

    coordinator, owners = enrolled(cell)
    coordinator.round(direct(owners))
    before = owners[0].model(RUN)
    honest = Encoding.encode

    def noisy(self: Encoding, update, weight, session, sender, random, noise):  # type: ignore[no-untyped-def]
        encoded = honest(self, update, weight, session, sender, random, noise)
        if sender != "eve":
            return encoded
        return Encoded(expand(self.layout.ring, random(16), self.layout.length), encoded.seed)

    monkeypatch.setattr(Encoding, "encode", noisy)
    outcome = coordinator.round(direct(owners))
    monkeypatch.undo()
    assert outcome.void and outcome.round == 2 and outcome.accuracy is None
    assert one_model(owners) and np.array_equal(owners[0].model(RUN), before)
    following = coordinator.round(direct(owners))
    assert not following.void and following.contributors == NAMES
    assert not np.array_equal(owners[0].model(RUN), before)
