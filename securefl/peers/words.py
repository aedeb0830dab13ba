"""Who can see what where there is no server: whoever acts as one is a client, and has what a client has."""

from __future__ import annotations

from securefl.plan import Protection


def visibility(kind: Protection) -> str:
    """In a sentence, as a protection's own ``visibility``. Of "secagg" and "ckks" only: no other allows peers."""
    key = ", for it holds the clients' key" if kind == "ckks" else ""
    return (
        f"{kind}, without a server: the client that acts as one reads the sum of the updates and the model{key}; "
        "no party reads another's update. That client counts as one of the n_C."
    )
