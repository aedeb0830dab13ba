"""securefl: federated learning whose privacy claims can be checked. Names load when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from securefl.client import Client as Client
    from securefl.data import Dataset as Dataset
    from securefl.plan import LocalOptimizer as LocalOptimizer
    from securefl.policy import Policy as Policy
    from securefl.privacy.ledger import Ledger as Ledger
    from securefl.privacy.mechanism import DPSGD as DPSGD
    from securefl.privacy.mechanism import SGD as SGD
    from securefl.privacy.mechanism import Budget as Budget
    from securefl.protection import CKKS as CKKS
    from securefl.protection import CKKSUnmasked as CKKSUnmasked
    from securefl.protection import Plain as Plain
    from securefl.protection import SecAgg as SecAgg
    from securefl.round import federate as federate
    from securefl.server import Server as Server
    from securefl.store import Store as Store

_HOME = {
    "Client": "securefl.client",
    "Dataset": "securefl.data",
    "LocalOptimizer": "securefl.plan",
    "Policy": "securefl.policy",
    "Ledger": "securefl.privacy.ledger",
    "DPSGD": "securefl.privacy.mechanism",
    "SGD": "securefl.privacy.mechanism",
    "Budget": "securefl.privacy.mechanism",
    "CKKS": "securefl.protection",
    "CKKSUnmasked": "securefl.protection",
    "Plain": "securefl.protection",
    "SecAgg": "securefl.protection",
    "federate": "securefl.round",
    "Server": "securefl.server",
    "Store": "securefl.store",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'securefl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
