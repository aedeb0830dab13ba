"""What a person sees, on a terminal and in a log."""

from __future__ import annotations

import io
from collections.abc import Iterator

import msgspec
import pytest
from rich.console import Console

from protocols.encoding.rlwe import narrowest
from securefl import display, job
from securefl.job import Job, file
from securefl.precision import facts
from securefl.records import RoundRecord, Summary
from securefl.report.hazards import hazard

ENCODING = facts(narrowest(62, 8.0, 5))


@pytest.fixture
def checked(toml: str) -> Job:
    return job.checked(file.parse(toml))


def log() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, highlight=False)


def terminal(height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=height, color_system="standard")


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_has_one_line_a_round_and_no_control_characters(checked: Job, records: list[RoundRecord]) -> None:
    console = log()
    display.follow(console, checked, records[:2], iter(records[2:]))
    lines = text(console).splitlines()
    assert len(lines) == 10
    assert lines[2].startswith("round 3 of 10: 4 of 5 contributed, hospital-3 dropped (exchange 2) -> recovered")
    assert "\x1b" not in text(console)


def test_where_only_owners_know_what_is_spent_no_figure_is_made_up(checked: Job, records: list[RoundRecord]) -> None:
    away = msgspec.structs.replace(records[0], epsilon={})
    assert "epsilon at the sites" in display.line(checked, away)
    console = terminal()
    display.follow(console, checked, [], iter([away]))
    assert "at the sites" in text(console) and "0.00 of" not in text(console)


def test_the_first_line_says_who_can_see_what(checked: Job) -> None:
    console = log()
    display.opening(console, checked, "secagg: the server reads only the sum", ENCODING)
    assert text(console).splitlines()[0] == "Who can see what under secagg: the server reads only the sum"
    assert "Single updates stay hidden against a server on its own (n_C = 0;" in text(console)
    assert "a sum is of at least 4 clients" in text(console)
    assert "Encoding: CKKS of degree 4096, 48-bit prime, 256-bit security (HE standard): 1 x 4096" in text(console)
    assert "at most epsilon 3 at delta 1e-05" in text(console)


def test_a_void_round_is_said_to_be_one(checked: Job, records: list[RoundRecord]) -> None:
    void = msgspec.structs.replace(records[0], void=True, accuracy=None)
    assert "VOID: the sum could not be decrypted, the model is unchanged" in display.line(checked, void)
    assert "VOID" in str(void) and "VOID" not in str(records[0])
    console = terminal()
    display.follow(console, checked, [], iter([void]))
    assert "VOID" in text(console)


def test_the_opening_names_the_colluders_that_masks_withstand_and_claims_nothing_without_masks(toml: str) -> None:
    withstood = job.checked(file.parse(toml + "[protection]\ncolluders = 1\n"))
    console = log()
    display.opening(console, withstood, "secagg: ...", ENCODING)
    assert "hidden against a server and up to 1 of the clients together (n_C = 1)" in text(console)
    console = log()
    display.opening(console, job.checked(file.parse(toml + '[protection]\nkind = "plain"\n')), "plain: ...", ENCODING)
    assert "n_C" not in text(console)


def test_the_last_lines_say_what_it_came_to(checked: Job, summary: Summary) -> None:
    console = log()
    display.closing(console, checked, summary)
    for words in (
        "accuracy: 0.947 on the public test set, by the model after round 10; "
        "trained centrally on all records, without privacy: 0.974",
        "hospital-3 2.93",
        "each allows 3 at delta 1e-05",
        "49 updates among them; it could read 0 updates, 10 sums, 10 models",
        "hazard: scaling constants computed from these records",
        "report.html",
    ):
        assert words in text(console)


def test_on_a_terminal_the_whole_table_stays_when_all_is_done(checked: Job, records: list[RoundRecord]) -> None:
    console = terminal(height=12)
    display.follow(console, checked, [], iter(records))
    last = text(console).rpartition("round")[2]
    for record in records:
        assert f"{record.accuracy:.3f}" in last
    assert "recovered" in last


def test_rounds_that_were_shown_stay_when_the_person_interrupts(checked: Job, records: list[RoundRecord]) -> None:
    def stopped() -> Iterator[RoundRecord]:
        yield records[0]
        raise KeyboardInterrupt

    console = terminal()
    with pytest.raises(KeyboardInterrupt):
        display.follow(console, checked, [], stopped())
    assert f"{records[0].accuracy:.3f}" in text(console).rpartition("round")[2]


def test_without_differential_privacy_every_line_says_so(toml: str, records: list[RoundRecord]) -> None:
    public = job.checked(file.parse(toml.replace("[privacy]", "[privacy]\nenabled = false")))
    assert "no DP" in display.line(public, records[0])
    console = log()
    display.opening(console, public, "plain: ...", ENCODING)
    assert "differential privacy is off" in text(console)


def test_a_job_that_writes_markup_writes_text(checked: Job, summary: Summary) -> None:
    named = msgspec.structs.replace(checked, job=msgspec.structs.replace(checked.job, name="[bold]x[/bold] [link=a]"))
    console = log()
    display.opening(console, named, "plain: [red]all[/red]", ENCODING)
    display.closing(console, named, msgspec.structs.replace(summary, hazards=(hazard("other", "a [bold]hazard[/]"),)))
    assert "[bold]x[/bold] [link=a]" in text(console)
    assert "[red]all[/red]" in text(console)
    assert "a [bold]hazard[/]" in text(console)
