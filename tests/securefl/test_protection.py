from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import CKKSParameters
from protocols.errors import ConfigurationError
from securefl import CKKS, CKKSUnmasked, Client, LocalOptimizer, Plain, SecAgg, Server, Store, federate, protection
from securefl.errors import BadInput
from securefl.protection import KINDS, Protection
from tests.securefl.federation import RUN, WHOLE, clients, model
from tests.securefl.test_plan import plan


@pytest.mark.parametrize("kind", KINDS)
def test_each_protection_is_named_in_its_plan_and_says_who_sees_what(kind: str) -> None:
    chosen = protection.protection_of(plan(protection=kind))
    assert chosen.kind == kind
    assert chosen.visibility.startswith(f"{kind}: ")
    assert isinstance(protection.parameters(plan(protection=kind)), CKKSParameters if "ckks" in kind else FixedPoint)


def test_an_unknown_protection_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown protection 'rot13'"):
        protection.protection_of(plan(protection="rot13"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", [float("inf"), 0.0, -1.0])
def test_a_bound_under_which_a_sum_could_wrap_is_refused(kind: str, bound: float) -> None:
    with pytest.raises(ConfigurationError):
        protection.layout(plan(protection=kind, bound=bound))


@pytest.mark.parametrize(
    "kind",
    [
        "secagg",
        "ckks",
    ],
)
def test_the_smallest_bounds_are_refused_or_taken_and_nothing_else(kind: str) -> None:
    """A plan is a server's word: an owner's check of it may raise nothing else either."""
    for bound in (1e-300, 5e-324):
        with suppress(ConfigurationError):
            protection.layout(plan(protection=kind, bound=bound))


@pytest.mark.parametrize("kind", ["plain", "secagg"])
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_the_plan_s_width_is_the_ring_s(kind: str, bits: int) -> None:
    chosen = protection.parameters(plan(protection=kind, bits=bits))
    assert isinstance(chosen, FixedPoint)
    assert (chosen.bits, chosen.layout.ring.bits) == (bits, bits)


def test_the_plan_s_colluders_are_what_clients_demand_of_a_cohort() -> None:
    rules = protection.rules(plan(protection="secagg", minimum=7, threshold=8, colluders=2))
    assert (rules.minimum, rules.threshold, rules.colluders) == (7, 8, 2)
    with pytest.raises(ConfigurationError, match="2 colluders"):
        protection.rules(plan(protection="secagg", minimum=6, colluders=2))


@pytest.mark.parametrize("kind", [Plain, CKKSUnmasked])
def test_who_masks_nothing_withstands_no_colluder(kind: type[Protection]) -> None:
    with pytest.raises(BadInput, match="withstands no colluding client"):
        kind(colluders=1)


@pytest.mark.parametrize("kind", ["ckks", "ckks-unmasked"])
@pytest.mark.parametrize("bits", [32, 40, 48, 54])
def test_under_ckks_the_plan_s_width_is_the_prime_s(kind: str, bits: int) -> None:
    chosen = protection.parameters(plan(protection=kind, bits=bits))
    assert isinstance(chosen, CKKSParameters)
    assert (chosen.bits, chosen.layout.ring.modulus.bit_length()) == (bits, bits)


@pytest.mark.parametrize(("kind", "bits"), [("ckks", 16), ("ckks", 24), ("ckks-unmasked", 33), ("secagg", 40)])
def test_a_width_that_a_kind_does_not_have_is_refused(kind: str, bits: int) -> None:
    with pytest.raises(ConfigurationError, match=r"16, 24 or 32|32, 40, 48, 54"):
        protection.parameters(plan(protection=kind, bits=bits))


@pytest.mark.parametrize("clients", [3, 5, 40, 300])
def test_without_a_width_ckks_takes_the_fewest_bits_that_keep_the_precision(clients: int) -> None:
    widths = (32, 40, 48, 54)
    for precision in (1.0, 1e-2, 1e-4, 1e-6):
        chosen = CKKS(precision=precision).parameters(1, clients)
        assert chosen.step <= precision
        for fewer in widths[: widths.index(chosen.bits)]:
            assert not keeps(CKKS(bits=fewer), clients, precision)


def keeps(shield: Protection, clients: int, precision: float) -> bool:
    try:
        return shield.parameters(1, clients).step <= precision
    except ConfigurationError:
        return False


def test_without_width_and_precision_ckks_is_finer_than_float32_and_fixed_point_has_32_bits() -> None:
    assert CKKS().parameters(1, 5).step <= 8.0 * 2**-24
    assert SecAgg().parameters(1, 5).bits == 32


def test_a_precision_that_no_width_keeps_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"ask for 3\.01e-08 at the finest"):
        CKKS(precision=1e-12).parameters(1, 5)


@pytest.mark.parametrize("kind", [Plain, SecAgg])
@pytest.mark.parametrize("values", [{"precision": 1e-3}, {"key_rounds": 3}])
def test_who_has_no_key_has_neither_precision_nor_key_rounds(kind: type[Protection], values: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="has no key and takes its precision from bits"):
        kind(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", [0.0, -1.0, float("inf"), float("nan")])
def test_a_precision_that_is_none_is_refused(precision: float) -> None:
    with pytest.raises(BadInput, match="finite number above 0"):
        CKKS(precision=precision)


def test_a_precision_and_a_width_at_once_are_refused() -> None:
    with pytest.raises(BadInput, match="in place of bits"):
        CKKS(bits=40, precision=1e-3)


@given(st.sampled_from([CKKS, CKKSUnmasked]), st.integers(3, 5000), st.integers(1, 5000))
def test_all_clients_together_answer_at_most_1024_times_under_one_key(
    kind: type[Protection], clients: int, asked: int
) -> None:
    """A quarter of the secret's 4096 coefficients; every key decrypts one sum at least."""
    most = kind().key_rounds_of(clients)
    assert most == max(1, 1024 // clients)
    if asked <= most:
        assert kind(key_rounds=asked).key_rounds_of(clients) == asked
    else:
        with pytest.raises(BadInput, match=f"{clients} clients decrypt at most {most} sums under one key"):
            kind(key_rounds=asked).key_rounds_of(clients)


@pytest.mark.parametrize("kind", [Plain, SecAgg])
def test_where_there_is_no_key_no_sums_are_counted(kind: type[Protection]) -> None:
    assert kind().key_rounds_of(5) == 0


@pytest.mark.parametrize("rounds", [0, -1])
def test_a_key_that_decrypts_nothing_is_refused(rounds: int) -> None:
    with pytest.raises(BadInput, match="at least one sum"):
        CKKS(key_rounds=rounds)


def test_the_plan_s_key_rounds_are_the_protection_s() -> None:
    chosen = protection.protection_of(plan(protection="ckks", key_rounds=7))
    assert (chosen.key_rounds, chosen.key_rounds_of(5)) == (7, 7)
    with pytest.raises(BadInput, match="has no key"):
        protection.protection_of(plan(protection="secagg", key_rounds=7))


def parties(shield: Protection, folder: Path) -> tuple[Server, list[Client]]:
    """All parties with what they keep in files: called again, they are restarted."""
    store = Store(folder / "server.store")
    owners = clients(folder=folder)
    return Server(model, shield, WHOLE, LocalOptimizer(0.5), rounds=10, run=RUN, store=store), owners


@pytest.mark.parametrize("shield", [SecAgg(bits=24), SecAgg(bits=16), Plain(bits=24)], ids=str)
def test_fewer_bits_reach_the_same_model_on_fewer_bytes_also_after_a_restart(
    shield: Protection, tmp_path: Path
) -> None:
    """Two rounds, a restart, two more: what differs is the rounding of four sums."""
    found, sent = {}, {}
    for name, one in (("fewer", shield), ("reference", type(shield)())):
        (tmp_path / name).mkdir()
        coordinator, owners = parties(one, tmp_path / name)
        assert len(list(federate(coordinator, owners, 2))) == 2
        coordinator, owners = parties(one, tmp_path / name)
        records = list(federate(coordinator, owners, 4))
        assert [record.round for record in records] == [3, 4]
        vector = coordinator.model()
        assert vector is not None
        found[name], sent[name] = vector, records[-1].upload_bytes["ada"]
    step = FixedPoint(22, 8.0, 5, shield.bits).step
    # A round adds less than a step to each coordinate of the mean; descent on a convex loss does not lengthen the rest.
    assert 0 < np.linalg.norm(found["fewer"] - found["reference"]) < 1.01 * 4 * step * 22**0.5
    assert sent["reference"] - sent["fewer"] == 22 * (32 - shield.bits) // 8


def test_a_client_without_a_key_cannot_encode() -> None:
    with pytest.raises(ConfigurationError, match="no CKKS key"):
        protection.encoding(plan(protection="ckks"), None)


def test_a_server_under_ckks_loads_no_seal() -> None:
    program = (
        "import sys, securefl.server, securefl.protection as p\n"
        "from tests.securefl.test_plan import plan\n"
        "p.layout(plan(protection='ckks'))\n"
        "assert not [name for name in sys.modules if 'tenseal' in name], 'the server loaded tenseal'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
