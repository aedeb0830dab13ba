"""The server's whole process is searched for anything that decrypts, and for any model: its memory, not its source."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocols.encoding.ntt import transform
from securefl import Client
from securefl.plan import Plan
from tests.securefl import blind
from tests.securefl.federation import NAMES, TEST, records

ROUNDS = 3
# Of a secret so many bytes are looked for: long enough that they are nowhere by chance.
NEEDLE = 24


@dataclass
class Finished:
    """A run whose server is still there, what it reported, and the secrets that its clients had."""

    pid: int
    modules: list[str]
    kinds: list[str]
    tag: bytes
    secrets: dict[str, bytes]


@pytest.fixture(scope="module")
def finished() -> Iterator[Finished]:
    owners = [Client(name, records(seed), blind.model, test=TEST) for seed, name in enumerate(NAMES)]
    roster = {owner.name: owner.public_key for owner in owners}
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=blind.serve, args=(there, roster, ROUNDS))
    process.start()
    plan = msgspec.json.decode(here.recv(), type=Plan)
    for owner in owners:
        owner.pin(roster, plan)
    by_name, secrets = {owner.name: owner for owner in owners}, {}
    while len(message := here.recv()) == 2:
        name, request = message
        here.send(by_name[name].handle(request))
        secrets |= secrets_of(by_name[name])
    yield Finished(process.pid or 0, *message, secrets)
    here.send(None)
    process.join()


def secrets_of(owner: Client) -> dict[str, bytes]:
    """What the server must not have, in every form in which it could have it."""
    held = owner._keyholder(blind.RUN)._held
    if held.empty:
        return {}
    found = {f"model of {owner.name} after round {held.record.round}": held.model}
    if held.record.round == 0:
        found = {}  # the first model is public
    for number, key in enumerate(held.record.keys):
        name = f"key {number} at round {held.record.round}"
        values = transform(4096, 281474976694273).forward(key.coefficients.astype(np.int64))
        found[f"{name}, packed"] = key.to_bytes()
        found[f"{name}, coefficients"] = key.coefficients.tobytes()
        found[f"{name}, values"] = values.tobytes()
        found[f"{name}, for tags"] = key.tag_key
    return found


def memory(pid: int) -> Iterator[bytes]:
    """All that the process can write to: heap, stacks, mapped buffers."""
    with Path(f"/proc/{pid}/mem").open("rb") as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if found:
                start, end = (int(place, 16) for place in found.groups())
                file.seek(start)
                yield file.read(end - start)


def found_in(pid: int, wanted: dict[str, bytes]) -> set[str]:
    """Which of the wanted things lie in a process's memory: their first bytes, or bytes from their middle."""
    needles: dict[bytes, set[str]] = {}  # clients hold the same key and model: each is looked for once
    for name, value in wanted.items():
        middle = len(value) // 2 if len(value) >= 2 * NEEDLE else 0
        for place in {0, middle}:
            needles.setdefault(value[place : place + NEEDLE], set()).add(name)
    return {name for region in memory(pid) for needle, names in needles.items() if needle in region for name in names}


def test_nothing_of_a_client_and_nothing_of_seal_is_loaded(finished: Finished) -> None:
    loaded = set(finished.modules)
    assert "securefl.server" in loaded
    assert not {"tenseal", "protocols.encoding.ckks", "securefl.keyholder", "securefl.client"} & loaded
    assert not [kind for kind in finished.kinds if "CKKSKey" in kind or "seal" in kind.lower().split(".")[0]]
    assert "sealapi" not in Path(f"/proc/{finished.pid}/maps").read_text()


def test_its_memory_holds_no_key_and_no_model(finished: Finished) -> None:
    """ROUNDS rounds, a rotation and a sealed checkpoint: keys in four forms, and every client's model of each round."""
    kinds = {name.rpartition(", ")[2] for name in finished.secrets}
    assert {"packed", "coefficients", "values", "for tags"} < kinds
    assert {f"model of ada after round {number}" for number in range(1, ROUNDS + 1)} <= finished.secrets.keys()
    assert found_in(finished.pid, finished.secrets) == set()


def test_the_search_finds_what_is_there(finished: Finished) -> None:
    """The same search: the model's tag in the server's process, and every secret in this one, where the clients are."""
    assert found_in(finished.pid, {"tag": finished.tag}) == {"tag"}
    control = {name: value for name, value in finished.secrets.items() if "packed" in name}
    assert found_in(multiprocessing.process.current_process().pid or 0, control) == set(control)
