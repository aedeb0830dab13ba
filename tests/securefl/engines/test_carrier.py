"""How a client process reaches other sites: by whichever worker connected last, and not at all without one."""

from __future__ import annotations

import time
from multiprocessing.connection import Pipe as connected
from threading import Thread

from securefl.engines.carrier import Carrier
from securefl.engines.nvflare.frames import Back, Call, Ready, decoded, encoded
from securefl.engines.pipe import Pipe


def attached(carrier: Carrier) -> tuple[Pipe, Thread]:
    """A worker for ada and bob: its end."""
    mine, workers = (Pipe(end) for end in connected())
    serving = Thread(target=carrier.serve, args=(mine, Ready("job", ("ada", "bob"))))
    serving.start()
    return workers, serving


def test_a_letter_is_carried_and_its_reply_brought_back() -> None:
    carrier = Carrier()
    workers, serving = attached(carrier)
    brought: list[bytes | None] = []
    asking = Thread(target=lambda: brought.append(carrier.carry("bob", b"letter", 5.0)))
    asking.start()
    call = decoded(workers.receive(5.0))
    assert isinstance(call, Call) and (call.site, call.letter) == ("bob", b"letter")
    workers.send(encoded(Back(call.number + 1, b"another's")))
    workers.send(encoded(Back(call.number, b"reply")))
    asking.join()
    assert brought == [b"reply"]
    assert carrier.carry("eve", b"letter", 5.0) is None  # who is not in the job
    started = time.monotonic()
    assert carrier.carry("bob", b"letter", 0.3) is None and time.monotonic() - started < 3  # nothing came back
    workers.close()
    serving.join()


def test_a_worker_that_comes_later_takes_over() -> None:
    carrier = Carrier()
    assert carrier.carry("bob", b"letter", 0.1) is None
    first, serving = attached(carrier)
    first.close()
    serving.join()
    assert carrier.carry("bob", b"letter", 0.1) is None
    second, serving = attached(carrier)
    asking = Thread(target=carrier.carry, args=("bob", b"letter", 5.0))
    asking.start()
    call = decoded(second.receive(5.0))
    assert isinstance(call, Call)
    second.send(encoded(Back(call.number, b"reply")))
    asking.join()
    second.close()
    serving.join()


def asked(carrier: Carrier, brought: list[bytes | None], seconds: float = 5.0) -> Thread:
    """Somebody who has a letter carried to bob."""
    asking = Thread(target=lambda: brought.append(carrier.carry("bob", b"letter", seconds)))
    asking.start()
    return asking


def answers(workers: Pipe) -> None:
    call = decoded(workers.receive(5.0))
    assert isinstance(call, Call)
    workers.send(encoded(Back(call.number, b"reply")))


def test_an_older_worker_carries_on_where_the_newest_is_gone() -> None:
    carrier, brought = Carrier(), list[bytes | None]()
    first, serving_first = attached(carrier)
    second, serving_second = attached(carrier)
    asking = asked(carrier, brought)
    assert isinstance(decoded(second.receive(5.0)), Call)
    second.close()  # it took the letter with it
    answers(first)
    asking.join()
    assert brought == [b"reply"]
    first.close()
    for serving in (serving_first, serving_second):
        serving.join()


def test_an_older_worker_is_asked_where_the_newest_brings_nothing_back() -> None:
    carrier, brought = Carrier(), list[bytes | None]()
    first, serving_first = attached(carrier)
    second, serving_second = attached(carrier)
    assert carrier.carry("bob", b"letter", 0.2) is None
    asking = asked(carrier, brought)
    answers(first)
    asking.join()
    assert brought == [b"reply"]
    for workers in (first, second):
        workers.close()
    for serving in (serving_first, serving_second):
        serving.join()


def test_a_worker_that_hangs_keeps_nobody_longer_than_asked_and_goes_when_others_come() -> None:
    carrier, brought = Carrier(), list[bytes | None]()
    hanging, serving = attached(carrier)
    large = bytes(20_000_000)  # more than a socket holds
    asking = [Thread(target=lambda: brought.append(carrier.carry("bob", large, 0.5))) for _ in range(3)]
    for one in asking:
        one.start()
    for one in asking[1:]:
        one.join(5.0)
    assert sum(one.is_alive() for one in asking) <= 1  # whoever was sending as it hung
    later = [attached(carrier) for _ in range(2)]
    for one in (*asking, serving):
        one.join(5.0)
        assert not one.is_alive()
    assert brought == [None, None, None]
    hanging.close()
    for workers, listening in later:
        workers.close()
        listening.join()
