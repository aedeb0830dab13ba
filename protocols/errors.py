"""What can go wrong in protocols, as types.

ProtocolError                 everything below; any bytes from outside lead to this and nothing else
├── MalformedMessage          bytes that are not the message that was expected
├── Forged                    a signature, hash, commitment, tag or ciphertext that does not verify
│   └── BadDealers                secrets that cannot be rebuilt, and whose fault that is
├── Inconsistent              authentic, but not what this party agreed to: another session, cohort or survivor set
├── SessionSpent              this session has ended, or failed before; start a new attempt
├── UpdateRejected            the own input cannot be encoded (NaN, infinity, wrong length)
├── DecryptionFailed          a decrypted sum is out of range; says nothing more on purpose
├── Behind                    this client missed a sum and needs the model before it can go on
└── RoundAborted              too few clients are left; nothing was revealed and nothing changed
ConfigurationError            parameters that could fail later, refused at construction (a ValueError)
"""

from __future__ import annotations

from collections.abc import Mapping


class ProtocolError(Exception):
    """Base of everything that foreign bytes or absent peers can cause."""


class MalformedMessage(ProtocolError):
    """The bytes do not decode to the expected message."""


class Forged(ProtocolError):
    """Something does not verify."""


class BadDealers(Forged):
    """The secrets of some clients cannot be rebuilt: what they dealt is not what they committed to. ``blamed``: why."""

    def __init__(self, blamed: Mapping[str, str]) -> None:
        super().__init__("; ".join(blamed.values()))
        self.blamed = blamed


class Inconsistent(ProtocolError):
    """A message is authentic but contradicts what this party knows or demands."""


class SessionSpent(ProtocolError):
    """A session answers each request once, and nothing after an error or after its last step."""


class UpdateRejected(ProtocolError):
    """The vector to be contributed cannot be encoded."""


class DecryptionFailed(ProtocolError):
    """The decrypted sum is not a possible sum. One uniform error: details would be an oracle."""


class Behind(ProtocolError):
    """The client's model is not the one that the message builds on; it needs a catch-up."""


class RoundAborted(ProtocolError):
    """Too few clients were left. ``faults`` maps clients to what was wrong with their messages.

    ``disputes`` maps those whose shares are in dispute to those who say that they do not open.
    """

    def __init__(
        self,
        message: str,
        faults: dict[str, str],
        dropped: dict[str, str],
        disputes: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.faults = faults
        self.dropped = dropped
        self.disputes = disputes or {}


class ConfigurationError(ValueError):
    """Parameters under which a protocol could fail or overflow later."""
