"""A client that lies about shares, in a federation: no sum is wrong, and it is named."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from protocols import shamir
from protocols.aggregation.recovery import Recovery
from protocols.aggregation.summing import Unmask
from securefl.attacks.settings import setting
from securefl.attacks.shares import LIES, WRONG, Ending, Liar, cell, ending, verdict


def takes_any_share(weak: pytest.MonkeyPatch) -> None:
    """Weak: a server that rebuilds secrets from whatever comes, and asks nobody whether they are right."""

    def join(shares: Mapping[int, bytes], lagrange: Mapping[int, int]) -> bytes:
        value = sum(lagrange[x] * int.from_bytes(share, "big") for x, share in shares.items()) % shamir.PRIME
        return (value % (1 << 256)).to_bytes(32, "big")

    weak.setattr(shamir, "join", join)
    weak.setattr(Unmask, "_check", lambda *given: None)
    weak.setattr(Recovery, "_verified", lambda recovery, dealer, secret: secret)


@pytest.mark.attack("a federation with a client that forges shares")
@pytest.mark.parametrize("lie", [lie for said, lie in LIES.items() if said != "deals what does not open"])
def test_a_wrong_share_spoils_no_sum_and_names_its_sender(lie: type[Liar], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as weak:
        takes_any_share(weak)
        spoiled = ending(setting("secagg"), lie)
        assert spoiled.error is not None and spoiled.error > WRONG and not spoiled.named
    met = ending(setting("secagg"), lie)
    assert met.named and (met.error is None or met.error < 1e-6)


def test_no_setting_with_masks_takes_a_wrong_sum() -> None:
    found = cell(setting("client-dp"))
    assert found.verdict == "green" and found.figures[-1].value == len(LIES)


def test_verdicts_tell_wrong_sums_from_unnamed_liars() -> None:
    right, unnamed, wrong = Ending(0.0, True), Ending(None, False), Ending(9.0, True)
    assert [verdict(endings) for endings in ([right], [right, unnamed], [unnamed, wrong])] == ["green", "amber", "red"]
