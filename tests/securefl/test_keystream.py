from __future__ import annotations

from protocols.primitives import Engine
from securefl.keystream import fastest, gigabytes_per_second


def test_the_probe_names_an_engine_and_every_engine_can_be_measured() -> None:
    assert fastest() in Engine
    assert all(gigabytes_per_second(engine, mebibytes=1) > 0 for engine in Engine)
