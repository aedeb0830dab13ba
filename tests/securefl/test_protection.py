from __future__ import annotations

import subprocess
import sys

import pytest

from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import CKKSParameters
from protocols.errors import ConfigurationError
from securefl import protection
from securefl.errors import BadInput
from securefl.protection import KINDS
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
