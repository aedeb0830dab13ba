"""One encoding for each value that is signed: JSON in canonical form (RFC 8785), and its labelled SHA-256.

The only door to ``rfc8785``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeVar

import msgspec
import rfc8785
from msgspec import Struct

from protocols import primitives
from securefl.errors import BadInput, NotARun

T = TypeVar("T", bound=Struct)


class Labelled(Protocol):
    """A Struct that is hashed under a label of its own, so that no digest of one kind can pass for another's."""

    LABEL: ClassVar[str]


def canonical(value: object) -> bytes:
    """The JSON of a Struct in canonical form: keys sorted, no spaces, numbers as ECMAScript writes them.

    Equal values have equal bytes, on every machine. Raises ``BadInput`` for what JSON cannot say: a number that is not
    finite, a whole number beyond 2**53 - 1, text that is not Unicode.
    """
    try:
        return rfc8785.dumps(msgspec.to_builtins(value))
    except (rfc8785.CanonicalizationError, TypeError) as error:
        raise BadInput(f"{type(value).__name__} has no canonical JSON ({error}): report this") from error


def digest(value: Labelled) -> bytes:
    """SHA-256 over the value's label and canonical form, each framed by its length; 32 bytes."""
    return primitives.digest(value.LABEL, canonical(value))


def read(data: bytes, kind: type[T], source: str) -> T:
    """The value that these bytes are the canonical form of. ``source`` names them in the error, ``NotARun``."""
    try:
        value = msgspec.json.decode(data, type=kind)
        same = canonical(value) == data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadInput) as error:
        raise NotARun(f"{source} is damaged: {error}") from error
    if not same:
        raise NotARun(f"{source} is damaged: it is not in canonical form (RFC 8785); restore it as it was written")
    return value


def read_many(data: bytes, kind: type[T], source: str) -> tuple[T, ...]:
    """The same for a JSON array of such values."""
    try:
        values = msgspec.json.decode(data, type=tuple[msgspec.Raw, ...])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotARun(f"{source} is damaged: {error}") from error
    return tuple(read(bytes(value), kind, source) for value in values)


def many(values: Sequence[Struct]) -> bytes:
    """A JSON array of values in canonical form, one a line."""
    return b"[" + b",\n".join(canonical(value) for value in values) + b"]\n"
