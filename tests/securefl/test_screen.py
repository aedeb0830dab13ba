"""What is shown while a round goes on."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from threading import Thread

import pytest
from rich.console import Console

from protocols.aggregation.messages import Refusal
from securefl import display, job
from securefl.job import Job, file
from securefl.progress import PRESENCE, Stage
from securefl.records import RoundRecord
from securefl.screen import WORDS, Screen
from securefl.transcript import KINDS


@pytest.fixture
def checked(toml: str) -> Job:
    return job.checked(file.parse(toml))


def log() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, highlight=False)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=40, color_system="standard")


def text(console: Console) -> str:
    """What was written, without colours."""
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def test_every_stage_has_words() -> None:
    assert set(WORDS) == {PRESENCE, *KINDS.values()} - {KINDS[Refusal.KIND]}


def test_the_line_says_round_stage_and_how_many_answered(checked: Job) -> None:
    screen = Screen(log())
    assert screen.doing(checked, 3) == "round 3 of 10"
    screen.stage(Stage(3, "masked-input", 5, 2))
    assert screen.doing(checked, 3) == "round 3 of 10: training, then masked input, 2 of 5 answered"
    assert screen.doing(checked, 4) == "round 4 of 10"  # what was heard is of the round before
    screen.stage(Stage(4, PRESENCE, 5, 0))
    assert screen.doing(checked, 4) == "round 4 of 10: looking who can be asked"
    screen.stage(Stage(0, "make-key", 1, 0))
    assert screen.doing(checked, 1) == "before round 1: CKKS key (one makes it), 0 of 1 answered"
    assert screen.doing(checked, 11) == "last evaluation"
    screen.stage(Stage(10, "seal-model", 1, 0))
    assert screen.doing(checked, 11) == "model (sealing), 0 of 1 answered"


def test_without_masks_nobody_is_said_to_mask(toml: str) -> None:
    screen = Screen(log())
    screen.stage(Stage(1, "masked-input", 5, 0))
    plain = job.checked(file.parse(toml + '[protection]\nkind = "plain"\n'))
    assert screen.doing(plain, 1) == "round 1 of 10: training, then update, 0 of 5 answered"


def test_what_holds_on_is_one_line_however_often_it_is_told() -> None:
    console = log()
    screen = Screen(console)
    for what in ("waiting for b", "waiting for b", "connected: [bold]b[/]", "waiting for b"):
        screen.tell(what)
    assert text(console).splitlines() == ["waiting for b", "connected: [bold]b[/]", "waiting for b"]


def test_a_log_has_a_line_for_each_message_and_none_for_a_stage(checked: Job, records: list[RoundRecord]) -> None:
    console = log()
    screen = Screen(console)

    def coming() -> Iterator[RoundRecord]:
        for record in records[:2]:
            screen.stage(Stage(record.round, "keys", 5, 0))
            screen.tell("waiting for hospital-2 to be reached")
            screen.stage(Stage(record.round, "unmask", 5, 5))
            yield record

    display.follow(console, checked, [], coming(), screen)
    lines = text(console).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "waiting for hospital-2 to be reached",
        "round 1 of 10",
        "round 2 of 10",
    ]
    assert isinstance(console.file, io.StringIO) and "\x1b" not in console.file.getvalue()


def test_a_terminal_shows_the_stage_below_the_table_and_messages_above_it(
    checked: Job, records: list[RoundRecord]
) -> None:
    console = terminal()
    screen = Screen(console)

    def coming() -> Iterator[RoundRecord]:
        screen.stage(Stage(1, "masked-input", 5, 2))
        teller = Thread(target=screen.tell, args=("the job at the server has ended; another is started",))
        teller.start()
        teller.join()
        until = time.monotonic() + 10
        while "answered" not in text(console) and time.monotonic() < until:
            time.sleep(0.02)  # it is painted eight times a second
        yield records[0]

    display.follow(console, checked, [], coming(), screen)
    shown = text(console)
    assert "round 1 of 10: training, then masked input, 2 of 5 answered" in shown
    assert "the job at the server has ended; another is started" in shown
    assert f"{records[0].accuracy:.3f}" in shown.rpartition("round")[2]


def test_what_was_shown_stays_when_the_person_interrupts_within_a_round(
    checked: Job, records: list[RoundRecord]
) -> None:
    console = terminal()
    screen = Screen(console)

    def coming() -> Iterator[RoundRecord]:
        yield records[0]
        screen.stage(Stage(2, "masked-input", 5, 2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        display.follow(console, checked, [], coming(), screen)
    last = text(console).rpartition("round")[2]
    assert f"{records[0].accuracy:.3f}" in last and "answered" not in last


def test_who_tells_goes_on_when_nobody_reads_any_more() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("gone")

    Screen(Console(file=Gone(), force_terminal=False)).tell("connected")
