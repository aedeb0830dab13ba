"""Whatever bytes come from outside, a reader takes them or raises a ``ProtocolError``: nothing else, ever.

Seeded: the same seed sends the same bytes. ``SECUREFL_FUZZ_SEED`` sets another one.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter

import msgspec
import numpy as np
import pytest

from protocols.aggregation.messages import Envelope, Header
from protocols.aggregation.session import Step
from protocols.errors import ProtocolError, RoundAborted
from protocols.wire import decode
from tests.protocols.cohort import identity, names
from tests.protocols.fuzz.corpus import CELLS, COUNT, VICTIM, messages, recorded, steps
from tests.protocols.fuzz.mutation import mutated, resigned
from tests.protocols.fuzz.readers import FAULT, Reader, readers
from tests.protocols.fuzz.relays import Relay, relays

SEED = int(os.environ.get("SECUREFL_FUZZ_SEED", "1"))
QUICK, MANY, DISHONEST = 60, 1600, 250
READERS = {reader.name: reader for reader in readers()}


def send(reader: Reader, count: int, seed: int) -> Counter[str]:
    """Send so many changed messages. What came of them, by type of error."""
    rng = np.random.default_rng([seed, zlib.crc32(reader.name.encode())])
    others = [data for several in messages().values() for data in several]
    outcomes: Counter[str] = Counter()
    for number in range(count):
        data = mutated(rng, reader.seeds[int(rng.integers(len(reader.seeds)))], others)
        try:
            outcomes[FAULT if reader.read(data) is FAULT else "taken"] += 1
        except ProtocolError as error:
            outcomes[type(error).__name__] += 1
        except BaseException as error:
            error.add_note(f"{reader.name}, seed {seed}, message {number}: {data.hex()}")
            raise
    return outcomes


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_real_messages_are_taken(reader: Reader) -> None:
    """Else the changed ones below would all be refused for one and the same reason."""
    reader.read(reader.seeds[0])


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_changed_messages_are_taken_or_refused_with_a_protocol_error(reader: Reader) -> None:
    assert send(reader, QUICK, SEED).total() == QUICK


def play_dishonest(cell: str, step: Step, rng: np.random.Generator) -> bool:
    """One member signs something else in one exchange, and the server goes on. Whether the exchange survived it."""
    round = recorded(cell)
    honest = round.wire.replies[step, VICTIM]
    server, lie = round.server_at(step), resigned(rng, honest, identity(VICTIM))
    replies = {name: round.wire.replies[step, name] for name in names(COUNT)}
    try:
        dict(server.advance((replies | {VICTIM: lie}).items()))  # requests are made when they are read
    except RoundAborted as aborted:
        assert set(aborted.faults) == {VICTIM}
        return False
    except BaseException as error:
        error.add_note(f"{cell}, exchange {step:d}: {lie.hex()}")
        raise
    assert set(server.faults) <= {VICTIM} and set(server.dropped) <= {VICTIM}
    assert server.faults or speaks_for(lie, step) == speaks_for(honest, step)
    return True


def speaks_for(reply: bytes, step: Step) -> tuple[bytes, int, bytes]:
    """The session, exchange and, once there is one, key list that a reply says it belongs to."""
    header = msgspec.msgpack.decode(decode(reply, Envelope).signed.header, type=Header)
    return header.session, header.step, header.keys if step > Step.KEYS else b""


def relay_dishonest(relay: Relay, rng: np.random.Generator) -> bool:
    """One client signs something else in one exchange of a delivery. Whether the server asked for more."""
    server, lie = relay.server(), resigned(rng, relay.replies[VICTIM], identity(VICTIM))
    try:
        requests = server.advance((relay.replies | {VICTIM: lie}).items())
    except BaseException as error:
        error.add_note(f"{relay.name}: {lie.hex()}")
        raise
    assert set(server.faults) <= {VICTIM}
    return bool(requests)


CASES = [(cell, step) for cell in CELLS for step in steps(recorded(cell).terms)]


def send_lies(count: int, seed: int) -> int:
    rng = np.random.default_rng(seed)
    survived = sum(play_dishonest(cell, step, rng) for cell, step in CASES for _ in range(count))
    return survived + sum(relay_dishonest(relay, rng) for relay in relays() for _ in range(count))


def test_what_a_member_signs_is_at_worst_its_own_fault() -> None:
    assert send_lies(20, SEED) > 0


@pytest.mark.slow
def test_a_hundred_thousand_messages(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes: Counter[str] = Counter()
    for reader in READERS.values():
        outcomes += send(reader, MANY, SEED)
    survived = send_lies(DISHONEST, SEED)
    lies = DISHONEST * (len(CASES) + len(relays()))
    with capsys.disabled():
        print(f"\nfuzz: {outcomes.total() + lies:,} messages with seed {SEED}, to {len(READERS)} readers")
        print("  " + ", ".join(f"{name} {count:,}" for name, count in outcomes.most_common()))
        print(
            f"  {lies:,} rightly signed by a dishonest member: {survived:,} exchanges went on, with no other at fault"
        )
    assert outcomes.total() + lies >= 100_000
    assert {"taken", FAULT, "MalformedMessage", "Forged", "Inconsistent", "SessionSpent"} <= set(outcomes)
