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
