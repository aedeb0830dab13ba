"""The report says what the run folder says, needs nothing else, and runs nothing that a job file smuggles in."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from securefl import report
from securefl.errors import NotARun

Writer = Callable[..., Path]


class Tags(HTMLParser):
    """Every tag with its attributes, and whether all that were opened were closed."""

    VOID = frozenset({"meta", "br", "hr", "img", "path", "use", "stop"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rendered(folder: Path) -> str:
    path = report.render(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


def test_the_headline_figures_are_those_of_the_run(write_run: Writer) -> None:
    html = rendered(write_run())
    for words in ("0.947", "0.974 when trained centrally", "2.93", "of 3, at delta 1e-05", "0 of 49", "1 of 1"):
        assert words in html


def test_every_hazard_is_listed(write_run: Writer) -> None:
    assert "scaling constants computed from these records" in rendered(write_run())


def test_the_page_needs_nothing_but_itself(write_run: Writer) -> None:
    html = rendered(write_run())
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    for tag, attributes in parsed(html).found:
        assert tag not in {"script", "link", "iframe", "object", "embed", "img"}
        for name in ("src", "href", "data"):
            assert (attributes.get(name) or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)


def test_identifiers_are_unique(write_run: Writer) -> None:
    names = re.findall(r'\bid="([^"]+)"', rendered(write_run()))
    assert len(names) == len(set(names))


def test_three_plots_carry_words_for_those_who_do_not_see_them(write_run: Writer) -> None:
    plots = [attributes for tag, attributes in parsed(rendered(write_run())).found if tag == "svg"]
    assert [bool(plot.get("aria-label")) for plot in plots] == [True, True, True]


def test_a_script_in_a_job_name_stays_text(write_run: Writer, toml: str) -> None:
    html = rendered(write_run(toml.replace("five hospitals", "<script>alert(1)</script>")))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html


def test_an_unfinished_run_is_called_unfinished(write_run: Writer) -> None:
    html = rendered(write_run(rounds=4))
    assert "unfinished" in html
    assert "in 4 of 10 rounds" in html
    assert "1 of 1" in html


def test_a_run_without_a_single_round_still_has_a_report(write_run: Writer) -> None:
    assert "No round is complete yet" in rendered(write_run(rounds=0))


def test_without_differential_privacy_the_page_says_so(write_run: Writer, toml: str) -> None:
    html = rendered(write_run(toml.replace("[privacy]", "[privacy]\nenabled = false"), rounds=4))
    assert "no differential privacy" in html
    assert "dp-accounting), over all rounds" not in html


def test_the_silent_client_is_shown_in_its_round(write_run: Writer) -> None:
    html = rendered(write_run())
    assert html.count('<td><span class="mark recovered"') == 1
    assert html.count('<td><span class="mark contributed"') == 49


@pytest.mark.parametrize("kind", ["plain", "secagg", "ckks-unmasked", "ckks"])
def test_each_protection_has_its_own_table_of_who_sees_what(write_run: Writer, toml: str, kind: str) -> None:
    html = rendered(write_run(f'{toml}[protection]\nkind = "{kind}"\n'))
    assert f'<code style="font-size:inherit">{kind}</code>' in html
    assert ("reads each one" in html) == (kind in {"plain", "ckks-unmasked"})


def test_the_report_of_the_same_folder_is_the_same_to_the_byte(write_run: Writer) -> None:
    folder = write_run()
    assert rendered(folder) == rendered(folder)


def test_weights_that_differ_are_printed(write_run: Writer, toml: str) -> None:
    assert "hospital-2 0.25" in rendered(write_run(f"{toml}[weights]\nhospital-2 = 0.25\n"))


def test_a_last_line_that_a_crash_cut_short_is_left_out(write_run: Writer) -> None:
    folder = write_run(rounds=4)
    with (folder / "history.jsonl").open("ab") as file:
        file.write(b'{"round":5,"att')
    assert "in 4 of 10 rounds" in rendered(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARun, match=r"no job\.toml"):
        report.render(tmp_path)


@pytest.mark.parametrize("name", ["job.toml", "plan.json", "history.jsonl", "transcript.jsonl", "summary.json"])
def test_a_damaged_file_is_named(write_run: Writer, name: str) -> None:
    folder = write_run()
    (folder / name).write_text('{"half\n', encoding="utf-8")
    with pytest.raises(NotARun, match=f"{name} is damaged"):
        report.render(folder)
    assert not (folder / "report.html").exists()
