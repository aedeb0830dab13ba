"""The session vectors: everything that a second implementation needs to follow the pinned session, and its end."""

from __future__ import annotations

import msgspec

from protocols.aggregation.secrets import pair_mask, self_mask_key
from protocols.primitives import AgreementKey
from tests.vectors.session import DROPPED, ENCODING, NAMES, UPDATES, WEIGHTS, Json, Transcript, identity, record, terms


def session() -> Json:
    made, agreed = record(), terms()
    total = made.server.result.sum
    return {
        "context": msgspec.structs.asdict(agreed.context) | hexes(agreed.context),
        "rules": msgspec.to_builtins(agreed.rules),
        "encoding": msgspec.structs.asdict(ENCODING),
        "clients": {name: secrets(made, name) for name in NAMES},
        "exchanges": [
            {
                "requests": {name: data.hex() for name, data in requests.items()},
                "replies": {name: data.hex() for name, data in replies.items()},
            }
            for requests, replies in zip(made.requests, made.replies, strict=True)
        ],
        "layout digest": agreed.layout.digest.hex(),
        "session id": agreed.session.hex(),
        "key list digest": made.keys.hex(),
        "membership digest": made.members.hex(),
        "self mask keys": {name: self_mask_key(agreed, name, made.random[name].draws[2]).hex() for name in NAMES},
        "pair mask keys": pair_keys(made),
        "dropped": DROPPED,
        "sum": total.total.tolist(),
        "decoded": ENCODING.decode(total.total, total.uploads).tolist(),
    }


def hexes(value: object) -> Json:
    """The fields of a record that are bytes, in hex."""
    fields = msgspec.structs.asdict(value)  # type: ignore[arg-type]
    return {name: content.hex() for name, content in fields.items() if isinstance(content, bytes)}


def secrets(made: Transcript, name: str) -> Json:
    """``draws``: all random bytes of this client, in order; see section 2 of docs/secagg.md."""
    return {
        "identity secret": identity(name).secret.hex(),
        "identity public": identity(name).public.hex(),
        "draws": [draw.hex() for draw in made.random[name].draws],
        "witness": f"witness of {name}".encode().hex(),
        "update": UPDATES[name],
        "weight": WEIGHTS[name],
    }


def pair_keys(made: Transcript) -> dict[str, str]:
    keys = {name: AgreementKey(made.random[name].draws[0]) for name in NAMES}
    return {
        f"{low}, {high}": pair_mask(terms(), keys[low], low, high, keys[high].public).key.hex()
        for low in NAMES
        for high in NAMES
        if low < high
    }
