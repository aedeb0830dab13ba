from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.parametrize("kind", [CKKS, CKKSUnmasked])
@pytest.mark.parametrize("bits", [16, 24])
def test_ciphertexts_have_no_width_to_choose(kind: type[Protection], bits: int) -> None:
    with pytest.raises(BadInput, match="ciphertexts of fixed width"):
        kind(bits=bits)


def parties(shield: Protection, folder: Path) -> tuple[Server, list[Client]]:
    """All parties with what they keep in files: called again, they are restarted."""
    store = Store(folder / "server.store")
    owners = clients(folder=folder)
    return Server(model, shield, WHOLE, LocalOptimizer(0.5), run=RUN, store=store), owners


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
