from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocols.aggregation import apply
from protocols.aggregation.apply import Applied
from protocols.aggregation.messages import ApplyRequest, DecryptRequest, Envelope, Header, Refusal
from protocols.aggregation.session import Step
from protocols.base import Messages, Replies
from protocols.delivery.client import give
from protocols.delivery.messages import (
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    SealModelRequest,
    catch_up,
    key_setup,
)
from protocols.encoding.ckks import CKKSKey
from protocols.encoding.rlwe import narrowest
from protocols.wire import decode, encode, kind
from securefl import Client, Server, keyholder
from securefl.errors import RoundFailed
from securefl.round import enrol
from tests.securefl.federation import NAMES, RUN, client, clients, direct, enrolled, random_bytes, server


def models(owners: list[Client]) -> set[bytes]:
    found = [owner.model(RUN) for owner in owners]
    assert all(model is not None for model in found)
    return {model.tobytes() for model in found if model is not None}


def test_all_clients_hold_the_same_model_to_the_bit_and_the_server_none() -> None:
    coordinator, owners = enrolled("ckks")
    for _ in range(2):
        coordinator.round(direct(owners))
    assert len(models(owners)) == 1
    assert coordinator.model() is None


def test_a_client_that_missed_a_sum_catches_up_before_the_next_round() -> None:
    coordinator, owners = enrolled("ckks")
    first = coordinator.round(direct([owner for owner in owners if owner.name != "cyd"]))
    assert first.dropped == {"cyd": "exchange 0"}
    assert owners[2].model_round(RUN) == 0
    second = coordinator.round(direct(owners))
    assert "cyd" in second.contributors
    assert len(models(owners)) == 1


def test_a_client_that_went_back_in_time_says_so_and_catches_up(tmp_path: Path) -> None:
    """Its disk is restored from a backup taken two rounds ago; the server does not know until it asks."""
    coordinator, owners = server("ckks"), clients(folder=tmp_path)
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    backup = (tmp_path / "dan.store").read_bytes()
    for _ in range(2):
        coordinator.round(direct(owners))
    (tmp_path / "dan.store").write_bytes(backup)
    owners[3] = client("dan", folder=tmp_path)
    owners[3].pin({owner.name: owner.public_key for owner in owners}, coordinator.plan)
    assert coordinator.round(direct(owners)).dropped["dan"] == "refused: behind"
    assert "dan" in coordinator.round(direct(owners)).contributors
    assert len(models(owners)) == 1


class Between:
    """Stands between server and one client, and changes the sum that is handed down."""

    def __init__(self, victim: Client, change: Callable[[bytes], bytes]) -> None:
        self.name = victim.name
        self._victim = victim
        self._change = change

    def handle(self, request: bytes) -> bytes:
        if kind(request) != ApplyRequest.KIND:
            return self._victim.handle(request)
        apply = decode(request, ApplyRequest)
        return self._victim.handle(encode(msgspec.structs.replace(apply, total=self._change(apply.total))))


def flipped(total: bytes) -> bytes:
    return bytes([total[0] ^ 1]) + total[1:]


def shifted(total: bytes) -> bytes:
    """Adds 2**-7 to the first value, which needs no key: a constant polynomial is the same number in all residues."""
    p = narrowest(22, 8.0, 5)
    residues = p.ring.unpack(total, len(total) // p.ring.item_bytes).copy() + np.uint64(p.scale / 128)
    p.ring.reduce(residues)
    return p.ring.pack(residues)


@pytest.mark.parametrize("change", [flipped, shifted])
def test_a_client_that_was_handed_another_sum_decrypts_nothing_and_is_caught_up(
    change: Callable[[bytes], bytes],
) -> None:
    coordinator, owners = enrolled("ckks")
    outcome = coordinator.round(direct([*owners[:4], Between(owners[4], change)]))  # type: ignore[list-item]
    assert outcome.dropped == {"eve": "agrees to another sum"} and not outcome.void
    assert outcome.contributors == NAMES and owners[4].model_round(RUN) == 0
    assert coordinator.round(direct(owners)).contributors == NAMES
    assert len(models(owners)) == 1


@pytest.mark.attack("another sum to each half of the clients")
def test_a_server_that_hands_out_two_sums_has_neither_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers like whom tells on which side of a border of its choice the sum lies, for each border one bit.

    Where clients decrypt what they are handed, without asking what others were, the server reads from equal tags and
    from who says void whether a coordinate, or the noise that hides the key, exceeds what it chose.
    """

    def split(change: Callable[[bytes], bytes]) -> set[tuple[bytes, bool]]:
        coordinator, owners = enrolled("ckks")
        said: list[Applied] = []

        def watched(name: str, reply: bytes) -> bytes:
            if msgspec.msgpack.decode(decode(reply, Envelope).signed.header, type=Header).step == Step.APPLY:
                said.append(applied(reply))
            return reply

        halves = [Between(owner, change) if owner.name in NAMES[:2] else owner for owner in owners]
        with suppress(RoundFailed):
            coordinator.round(direct(halves, watched))  # type: ignore[arg-type]
        return {(each.tag, each.void) for each in said}

    with monkeypatch.context() as weak:
        weak.setattr(apply._Turn, "agreed", property(lambda turn: tuple(sorted(turn.words))))
        weak.setattr(apply.ApplyServer, "_same", lambda self, reply: b"")
        weak.setattr(keyholder, "check_agreed", lambda *anything: None)
        assert {void for _, void in split(flipped)} == {True, False}  # the server chose who would say it
        assert len(split(shifted)) == 2

    for change in (flipped, shifted):
        assert len(split(change)) <= 1  # only who was handed what most were decrypts it


def test_a_client_that_comes_to_another_model_is_in_the_minority_and_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A faulty machine: it decrypts what all do, takes another step, and is not asked whose fault it is."""
    coordinator, owners = enrolled("ckks")
    honest = keyholder.strategy.step

    class Drifting(Between):
        def handle(self, request: bytes) -> bytes:
            if kind(request) != DecryptRequest.KIND:
                return self._victim.handle(request)
            with monkeypatch.context() as faulty:
                faulty.setattr(keyholder.strategy, "step", lambda *step: honest(*step) + np.float32(1e-3))
                return self._victim.handle(request)

    outcome = coordinator.round(direct([*owners[:4], Drifting(owners[4], flipped)]))  # type: ignore[list-item]
    assert outcome.dropped == {"eve": "exchange 5"} and outcome.contributors == NAMES
    assert owners[4].model_round(RUN) == 1 and len(models(owners)) == 2
    assert coordinator.round(direct(owners)).contributors == NAMES
    assert len(models(owners)) == 1


def test_a_client_that_is_not_invited_follows_the_model_all_the_same() -> None:
    coordinator, owners = enrolled("ckks")
    assert coordinator.round(direct(owners), without={"eve"}).contributors == NAMES[:4]
    assert owners[4].model_round(RUN) == 1 and len(models(owners)) == 1
    assert coordinator.round(direct(owners)).contributors == NAMES


def test_no_client_decrypts_what_too_few_were_handed() -> None:
    coordinator, owners = enrolled("ckks")

    class Lonely(Between):
        def handle(self, request: bytes) -> bytes:
            if kind(request) == DecryptRequest.KIND:
                asked = decode(request, DecryptRequest)
                request = encode(msgspec.structs.replace(asked, agreed=asked.agreed[:2]))
            return self._victim.handle(request)

    outcome = coordinator.round(direct([*owners[:4], Lonely(owners[4], flipped)]))  # type: ignore[list-item]
    assert outcome.dropped == {"eve": "refused: protocol"}
    assert owners[4].errors == ["2 clients were handed this sum, 3 are needed"]
    assert owners[4].model_round(RUN) == 0
    assert "eve" in coordinator.round(direct(owners)).contributors


def test_who_restarts_between_the_two_halves_of_the_exchange_is_caught_up(tmp_path: Path) -> None:
    owners, coordinator = clients(folder=tmp_path), server("ckks")
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))

    class Restarted(Between):
        def handle(self, request: bytes) -> bytes:
            if kind(request) != DecryptRequest.KIND:
                return self._victim.handle(request)
            reborn = client("eve", folder=tmp_path)
            reborn.pin({owner.name: owner.public_key for owner in owners}, coordinator.plan)
            owners[4] = reborn
            return reborn.handle(request)

    outcome = coordinator.round(direct([*owners[:4], Restarted(owners[4], flipped)]))  # type: ignore[list-item]
    assert outcome.dropped == {"eve": "refused: behind"}
    assert coordinator.round(direct(owners)).contributors == NAMES
    assert len(models(owners)) == 1


def test_a_crash_after_the_sum_was_formed_hands_out_the_same_bytes_again(tmp_path: Path) -> None:
    owners = clients(folder=tmp_path)
    coordinator = server("ckks", folder=tmp_path)
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    handed_out: list[bytes] = []
    inputs: list[str] = []

    def watched(name: str, reply: bytes) -> bytes:
        inputs.append(name)
        return reply

    class Crash(BaseException):
        pass

    def dying(requests):  # type: ignore[no-untyped-def]
        now = kind(next(iter(requests.values())))
        for count, (name, reply) in enumerate(direct(owners, watched)(requests)):
            if now == ApplyRequest.KIND:
                handed_out.append(requests[name])
            if now == DecryptRequest.KIND and count == 1:
                raise Crash
            yield name, reply

    with pytest.raises(Crash):
        coordinator.round(dying)
    assert [owner.model_round(RUN) for owner in owners].count(1) == 2
    again = server("ckks", folder=tmp_path)
    restarted = clients(folder=tmp_path)
    enrol(again, restarted)
    again.set_up(direct(restarted))
    roster_models = _second_life(again, restarted, handed_out)
    assert roster_models == 1


def _second_life(again: Server, restarted: list[Client], handed_out: list[bytes]) -> int:
    kinds: list[int] = []

    def watching(requests):  # type: ignore[no-untyped-def]
        kinds.extend(kind(request) for request in requests.values())
        if ApplyRequest.KIND in kinds and DecryptRequest.KIND not in kinds:
            assert set(requests.values()) <= set(handed_out)
        return direct(restarted)(requests)

    outcome = again.round(watching)
    assert set(kinds) == {ApplyRequest.KIND, DecryptRequest.KIND}
    assert outcome.round == 1
    return len(models(restarted))


def test_too_few_keys_end_the_set_up() -> None:
    coordinator, owners = server("ckks"), clients()
    enrol(coordinator, owners)
    with pytest.raises(RoundFailed, match="2 clients joined and 0 hold one CKKS key and the model, 4 are needed"):
        coordinator.set_up(direct(owners[:2]))


def test_requests_out_of_turn_are_refused() -> None:
    coordinator, owners = enrolled("ckks")
    coordinator.round(direct(owners))
    sealing = encode(SealModelRequest(RUN, 7, coordinator._state.key_id))
    assert decode(owners[0].handle(sealing), Refusal).reason == "behind"
    fresh = client("ada")
    assert decode(fresh.handle(sealing), Refusal).reason == "policy"
    assert decode(fresh.handle(encode(JoinRequest(b"nonsense"))), Refusal).reason == "protocol"


def probed(victim: Client, request: bytes) -> list[str]:
    """What a client says, to itself, to two sums that are not the one of the round."""
    seen = []
    for change in (flipped, shifted):
        before = len(victim.errors)
        Between(victim, change).handle(request)
        seen.append(victim.errors[-1] if len(victim.errors) > before else "agreed")
    return seen


def test_a_second_sum_of_one_round_is_never_agreed_to() -> None:
    """Whether a decryption is in range is one bit: with many tries the server would read the model by bisection."""
    coordinator, owners = enrolled("ckks")
    victim, probes = owners[4], []

    class Probing(Between):
        def handle(self, request: bytes) -> bytes:
            if kind(request) == ApplyRequest.KIND:
                probes.extend(probed(victim, request))
            return victim.handle(request)

    outcome = coordinator.round(direct([*owners[:4], Probing(victim, flipped)]))  # type: ignore[list-item]
    assert probes == ["agreed", "another sum of round 1 was agreed to before"]
    assert outcome.dropped == {"eve": "refused: protocol"}  # nor to the true one
    assert "eve" in coordinator.round(direct(owners)).contributors  # and it is not lost: it catches up
    assert len(models(owners)) == 1


def test_a_catch_up_to_the_model_that_one_has_buys_no_second_decryption() -> None:
    """Agree, be caught up to the round one already has, agree again: each turn would tell the server something."""
    coordinator, owners = enrolled("ckks")
    coordinator.round(direct(owners))
    victim, probes = owners[4], []

    class Probing(Between):
        def handle(self, request: bytes) -> bytes:
            if kind(request) == ApplyRequest.KIND:
                for _ in range(2):
                    probes.extend(probed(victim, request))
                    coordinator._kept.save(behind=("eve",))
                    coordinator._relay.catch_up(direct(owners))
                    coordinator._relay._hand_model(["eve"], direct(owners))
            return victim.handle(request)

    coordinator.round(direct([*owners[:4], Probing(victim, flipped)]))  # type: ignore[list-item]
    assert probes == ["agreed", *["another sum of round 2 was agreed to before"], "agreed", probes[1]]
    assert victim._keyholder(RUN)._held.record.sums == 2


def applied(reply: bytes) -> Applied:
    return msgspec.msgpack.decode(decode(reply, Envelope).parts[0], type=Applied)


def test_two_runs_on_one_client_s_store_do_not_disturb_each_other() -> None:
    coordinator, owners = enrolled("ckks")
    other = server("ckks", run="other")
    enrol(other, owners)
    other.set_up(direct(owners))
    for each in (coordinator, other, coordinator):
        assert each.round(direct(owners)).contributors == NAMES
    assert {(owner.model_round(RUN), owner.model_round("other")) for owner in owners} == {(2, 1)}


def test_a_client_that_hands_out_nothing_usable_is_passed_over() -> None:
    """The first in line to make the key, or to hand on a model, must not be able to stop everyone."""
    owners = clients()
    bad = owners[0]

    class Useless(Between):
        def handle(self, request: bytes) -> bytes:
            if kind(request) in (MakeKeyRequest.KIND, SealModelRequest.KIND):
                return self._victim.handle(request)[:-1] + b"?"
            return self._victim.handle(request)

    coordinator = server("ckks")
    enrol(coordinator, owners)
    team = [Useless(bad, flipped), *owners[1:]]
    coordinator.set_up(direct(team))  # type: ignore[arg-type]
    coordinator.round(direct(team[:4]))  # type: ignore[arg-type]
    assert "eve" in coordinator.round(direct([*team[:4], owners[4]])).contributors  # type: ignore[list-item]


def test_a_key_that_comes_after_the_first_round_is_refused() -> None:
    coordinator, owners = enrolled("ckks")
    coordinator.round(direct(owners))
    held = [owner.model_round(RUN) for owner in owners]
    again = server("ckks")
    enrol(again, owners)
    with pytest.raises(RoundFailed, match="0 clients joined"):
        again.set_up(direct(owners))
    assert [owner.model_round(RUN) for owner in owners] == held


def test_a_model_that_a_minority_signed_is_not_installed() -> None:
    coordinator, owners = enrolled("ckks")
    coordinator.round(direct(owners[:4]))
    coordinator._kept.save(evidence=coordinator._state.evidence[:2])
    coordinator.round(direct(owners))
    assert any("2 clients signed the tag of the model" in error for error in owners[4].errors)
    assert owners[4].model_round(RUN) == 0


def test_evidence_that_nobody_signed_installs_nothing() -> None:
    coordinator, owners = enrolled("ckks")
    coordinator.round(direct(owners[:4]))
    state = coordinator._state
    unsigned = tuple(
        msgspec.structs.replace(reply, signed=msgspec.structs.replace(reply.signed, signature=bytes(64)))
        for reply in state.evidence
    )
    coordinator._kept.save(evidence=unsigned)
    session = catch_up(RUN, coordinator.plan.digest(), coordinator._known_roster(), 1)
    sealed = decode(owners[0].handle(encode(SealModelRequest(RUN, 1, state.key_id))), Envelope)
    assert sealed.signed.open(coordinator._known_roster(), session, Step.SEAL_MODEL).sender == "ada"
    assert decode(owners[4].handle(encode(InstallModelRequest(RUN, 1, sealed, unsigned))), Refusal).reason == "protocol"
    assert owners[4].model_round(RUN) == 0
    assert owners[4].errors[-1] == "the signature of ada does not verify"
    assert decode(owners[4].handle(encode(InstallModelRequest(RUN, 1, sealed, state.evidence))), Envelope)


def test_a_package_with_another_key_than_it_names_is_refused_and_the_next_client_makes_the_key() -> None:
    owners = clients()

    class Liar(Between):
        def handle(self, request: bytes) -> bytes:
            if kind(request) != MakeKeyRequest.KIND:
                return self._victim.handle(request)
            roster, plan = self._victim._pinned()
            joined = decode(request, MakeKeyRequest).joined
            secret = CKKSKey.generate(random_bytes).to_bytes()
            session = key_setup(RUN, plan.digest(), roster, 0)
            identity = self._victim._identity
            return encode(give(self.name, identity, session, roster, joined, bytes(32), secret, random_bytes))

    coordinator = server("ckks")
    enrol(coordinator, owners)
    coordinator.set_up(direct([Liar(owners[0], flipped), *owners[1:]]))  # type: ignore[list-item]
    assert all("the package holds another key than it says" in owner.errors for owner in owners)
    assert coordinator.round(direct(owners)).contributors == NAMES


def test_what_was_agreed_to_is_remembered_across_a_restart(tmp_path: Path) -> None:
    owners, coordinator = clients(folder=tmp_path), server("ckks")
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    said: list[str] = []

    class Restarting(Between):
        def handle(self, request: bytes) -> bytes:
            if kind(request) != ApplyRequest.KIND:
                return self._victim.handle(request)
            for _ in range(2):
                reborn = client("eve", folder=tmp_path)
                reborn.pin({owner.name: owner.public_key for owner in owners}, coordinator.plan)
                said.extend(probed(reborn, request))
            return b""

    coordinator.round(direct([*owners[:4], Restarting(owners[4], flipped)]))  # type: ignore[list-item]
    assert said == ["agreed", "another sum of round 1 was agreed to before"] * 2


def test_a_waiting_sum_is_applied_once_clients_that_went_back_in_time_are_caught_up(tmp_path: Path) -> None:
    """Two have applied round 2, three disks come back from before round 1: only a kept earlier model can help them."""
    owners, coordinator = clients(folder=tmp_path), server("ckks")
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    backups = {name: (tmp_path / f"{name}.store").read_bytes() for name in NAMES[2:]}
    coordinator.round(direct(owners))

    def two_apply(requests: Messages) -> Replies:
        applying = kind(next(iter(requests.values()))) == DecryptRequest.KIND
        return direct(owners[:2] if applying else owners)(requests)

    with pytest.raises(RoundFailed, match="The sum of round 2 is kept and handed out again"):
        coordinator.round(two_apply)
    for name, backup in backups.items():
        (tmp_path / f"{name}.store").write_bytes(backup)
    owners = clients(folder=tmp_path)
    for owner in owners:
        owner.pin({each.name: each.public_key for each in owners}, coordinator.plan)
    with pytest.raises(RoundFailed, match="refused: behind"):
        coordinator.round(direct(owners))
    assert coordinator.round(direct(owners)).round == 2
    assert [owner.model_round(RUN) for owner in owners] == [2] * 5
    assert len(models(owners)) == 1


def test_nobody_can_have_a_client_remember_runs_without_end() -> None:
    coordinator, owners = enrolled("ckks")
    for number in range(20):
        request = SealModelRequest(f"run {number}", 1, coordinator._state.key_id)
        assert decode(owners[0].handle(encode(request)), Refusal).reason == "behind"
    long = SealModelRequest("x" * 256, 1, coordinator._state.key_id)
    assert decode(owners[0].handle(encode(long)), Refusal).reason == "protocol"
    assert list(owners[0]._keyholders) == [RUN]
    for _ in range(3000):
        owners[0].handle(b"")
    assert len(owners[0].errors) == 1000


@pytest.mark.parametrize("round", [-1, 2**63])
def test_a_round_that_is_none_is_malformed(round: int) -> None:
    coordinator, owners = enrolled("ckks")
    request = encode(SealModelRequest(RUN, round, coordinator._state.key_id))
    assert decode(owners[0].handle(request), Refusal).reason == "protocol"


def test_more_signatures_than_clients_are_refused_before_any_is_verified() -> None:
    coordinator, owners = enrolled("ckks")
    coordinator.round(direct(owners[:4]))
    evidence, holder = coordinator._state.evidence, owners[4]
    sealed = decode(owners[0].handle(encode(SealModelRequest(RUN, 1, coordinator._state.key_id))), Envelope)
    holder.handle(encode(InstallModelRequest(RUN, 1, sealed, evidence * 2)))
    assert holder.errors[-1] == "8 signed words of 5 clients"


def test_who_pins_anew_trusts_the_new_roster_and_no_longer_the_old_one() -> None:
    coordinator, owners = enrolled("ckks")
    before = owners[0]._keyholder(RUN)
    owners[0].pin({owner.name: owner.public_key for owner in owners}, coordinator.plan)
    assert owners[0]._keyholder(RUN) is not before


def test_a_client_that_was_started_twice_on_one_store_agrees_to_one_sum(tmp_path: Path) -> None:
    owners, coordinator = clients(folder=tmp_path), server("ckks")
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    twin = client("eve", folder=tmp_path)
    twin.pin({owner.name: owner.public_key for owner in owners}, coordinator.plan)
    assert twin.model_round(RUN) == 0  # it has read the store, as it was
    said: list[str] = []

    class Doubled(Between):
        def handle(self, request: bytes) -> bytes:
            if kind(request) == ApplyRequest.KIND:
                self._victim.handle(request)
                said.extend(probed(twin, request))
            return self._victim.handle(request)

    coordinator.round(direct([*owners[:4], Doubled(owners[4], flipped)]))  # type: ignore[list-item]
    assert all("another process has changed" in each for each in said)
