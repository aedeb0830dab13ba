"""The page says what the report says, needs nothing else, and runs nothing that a job file smuggles in."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from securefl import report
from securefl.errors import NotARun
from securefl.report import endorsements, page
from securefl.report.canonical import canonical
from securefl.report.canonical import read as read_canonical
from securefl.report.document import Report
from securefl.report.hazards import hazard
from securefl.report.page import CHAPTERS
from tests.securefl.report.runs import CLIENT_LEVEL, CLIENTS, IDENTITIES, JOB, NOT_PRIVATE, Scene


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a private run."""
    return rendered(tmp_path_factory.mktemp("page") / "run")


def rendered(folder: Path, scene: Scene = Scene()) -> str:  # noqa: B008
    """The page of a run that ``scene`` describes, written into ``folder``."""
    path = report.render(scene.write(folder))
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


def test_the_headline_figures_are_those_of_the_run(whole: str) -> None:
    for words in ("0.947", "0.974 when trained centrally", "2.99", "of 9, at delta 1e-05", "0 of 50", "1 of 1"):
        assert words in whole


def test_the_page_is_made_from_the_report_alone(folder: Path) -> None:
    made = report.assembled(Scene().write(folder))
    report.write(folder, replace(made, created="a day of its own"))
    for file in folder.iterdir():
        if file.name != report.JSON:
            file.unlink()
    assert "a day of its own" in report.render(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("scene", [Scene(CLIENT_LEVEL), Scene(rounds=2)])
def test_the_page_of_a_report_that_was_read_back_is_the_same(folder: Path, scene: Scene) -> None:
    made = report.assembled(scene.write(folder))
    assert page.html(made) == page.html(read_canonical(canonical(made), Report, "the report"))


def test_the_chapters_are_the_levels_of_the_pyramid_from_its_top(whole: str) -> None:
    tags = parsed(whole).found
    assert [attributes.get("id") for tag, attributes in tags if tag == "h2"] == list(CHAPTERS)
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert links == [f"#{name}" for name in CHAPTERS]


@pytest.mark.parametrize(
    ("scene", "word", "colour"),
    [
        (Scene(), "private", "status "),
        (Scene(NOT_PRIVATE), "not private", "status bad"),
        (Scene(rounds=4), "unfinished", "status warn"),
        (Scene(f"{JOB}[simulation]\nenabled = true\n"), "simulation", "status warn"),
        (Scene(change=lambda statement: replace(statement, run="f" * 32)), "violated", "status bad"),
    ],
)
def test_the_status_is_the_first_thing_that_is_said(folder: Path, scene: Scene, word: str, colour: str) -> None:
    html = rendered(folder, scene)
    assert f'class="{colour}"' in html
    assert f"<strong>{word}</strong>" in html


def test_every_hazard_is_listed_with_its_effect(folder: Path) -> None:
    listed = (hazard("tuning", "recipes tuned on these rows"), hazard("exact-metrics", "exact accuracies"))
    html = rendered(folder, Scene(hazards=listed))
    for one in listed:
        assert one.text in html
        assert one.effect.replace("'", "&#39;") in html


def test_towards_each_audience_the_page_has_the_reports_figure(folder: Path) -> None:
    html = rendered(folder, Scene(f"{CLIENT_LEVEL}[protection]\ncolluders = 1\n"))
    for owner in report.read(folder).owners:
        for claim in owner.claims:
            assert isinstance(claim.epsilon, float) and f"{claim.epsilon:.3f}" in html
            assert claim.why in html


def test_who_signed_is_shown(folder: Path) -> None:
    made = report.assembled(Scene().write(folder))
    assert "Not signed by any client" in page.html(made)
    signed = tuple(endorsements.endorse(made, own, IDENTITIES[own.statement.client]) for own in made.statements[:2])
    html = page.html(replace(made, signatures=signed))
    assert "Signed by hospital-1, hospital-2." in html
    assert html.count("not signed") == len(CLIENTS) - 2


def test_the_page_needs_nothing_but_itself(whole: str) -> None:
    assert "http:" not in whole
    assert "https:" not in whole
    assert "@import" not in whole
    for tag, attributes in parsed(whole).found:
        assert tag not in {"script", "link", "iframe", "object", "embed", "img"}
        for name in ("src", "href", "data"):
            assert (attributes.get(name) or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)


def test_the_browser_is_told_to_load_and_run_nothing(whole: str) -> None:
    """Before anything else that it could load or run."""
    found = [attributes for tag, attributes in parsed(whole).found if tag == "meta"]
    policy = {"http-equiv": "Content-Security-Policy"}
    (said,) = [one["content"] or "" for one in found if policy.items() <= one.items()]
    rules = dict(rule.split(maxsplit=1) for rule in said.split("; "))
    assert rules == {"default-src": "'none'", "style-src": "'unsafe-inline'", "img-src": "data:"}
    assert whole.index("Content-Security-Policy") < whole.index("<style>")


def test_a_figure_cannot_draw_over_the_page(whole: str) -> None:
    (style,) = re.findall(r"\nsvg \{([^}]*)\}", whole)
    assert "overflow: hidden" in style


def test_identifiers_are_unique(whole: str) -> None:
    names = re.findall(r'\bid="([^"]+)"', whole)
    assert len(names) == len(set(names))


def test_three_plots_carry_words_for_those_who_do_not_see_them(whole: str) -> None:
    plots = [attributes for tag, attributes in parsed(whole).found if tag == "svg"]
    assert [bool(plot.get("aria-label")) for plot in plots] == [True, True, True]


def test_a_script_in_a_job_name_stays_text(folder: Path) -> None:
    html = rendered(folder, Scene(JOB.replace("five hospitals", "<script>alert(1)</script>")))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html


def test_a_script_in_a_clients_words_stays_text(folder: Path) -> None:
    def smuggled(text: str) -> Scene:
        return Scene(change=lambda said: replace(said, data=text, doubts=(text,), software={text: text}))

    html = rendered(folder, smuggled("<script>alert(1)</script>"))
    assert html.count("&lt;script&gt;") >= 3 * len(CLIENTS)
    assert "<script" not in html


def test_an_unfinished_run_is_called_unfinished(folder: Path) -> None:
    html = rendered(folder, Scene(rounds=4))
    assert "unfinished" in html
    assert "in 4 of 10 rounds" in html
    assert "1 of 1" in html


def test_a_run_without_a_single_round_still_has_a_report(folder: Path) -> None:
    assert "No round is complete yet" in rendered(folder, Scene(rounds=0))


def test_without_differential_privacy_the_page_says_so(folder: Path) -> None:
    html = rendered(folder, Scene(NOT_PRIVATE))
    assert "no differential privacy" in html
    assert "What each audience can learn" not in html


def test_the_silent_client_is_shown_in_its_round(whole: str) -> None:
    assert whole.count('<td><span class="mark recovered"') == 1
    assert whole.count('<td><span class="mark contributed"') == 49


@pytest.mark.parametrize("kind", ["plain", "secagg", "ckks-unmasked", "ckks"])
def test_each_protection_has_its_own_table_of_who_sees_what(folder: Path, kind: str) -> None:
    html = rendered(folder, Scene(f'{JOB}[protection]\nkind = "{kind}"\n'))
    assert f'<code style="font-size:inherit">{kind}</code>' in html
    assert ("reads each one" in html) == (kind in {"plain", "ckks-unmasked"})
    assert ("accuracy that clients report" in html) == kind.startswith("ckks")


def test_the_report_of_the_same_folder_is_the_same_to_the_byte(folder: Path) -> None:
    html = rendered(folder)
    assert report.render(folder).read_text(encoding="utf-8") == html


def test_weights_that_differ_are_printed(folder: Path) -> None:
    assert "hospital-2 0.25" in rendered(folder, Scene(f"{JOB}[weights]\nhospital-2 = 0.25\n"))


def test_a_last_line_that_a_crash_cut_short_is_left_out(folder: Path) -> None:
    Scene(rounds=4).write(folder)
    with (folder / "history.jsonl").open("ab") as file:
        file.write(b'{"round":5,"att')
    assert "in 4 of 10 rounds" in report.render(folder).read_text(encoding="utf-8")


def test_each_rendering_is_a_file_of_its_own(folder: Path) -> None:
    report.write(folder, report.assembled(Scene().write(folder)))
    before = (folder / report.JSON).read_bytes()
    made = [report.render_json(folder), report.render_registry(folder), report.render_card(folder)]
    assert [path.name for path in made] == ["privacy_report.json", "dp_registry.yaml", "model_card.md"]
    assert all(path.stat().st_size > 1000 for path in made)
    assert (folder / report.JSON).read_bytes() == before


def test_an_unfinished_runs_json_does_not_pass_for_the_report(folder: Path) -> None:
    path = report.render_json(Scene(rounds=4).write(folder))
    assert path.name == "privacy_report.unsigned.json"
    assert read_canonical(path.read_bytes(), Report, "the report").status.word == "unfinished"
    assert not (folder / report.JSON).exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARun, match=r"no job\.toml"):
        report.render(tmp_path)


@pytest.mark.parametrize(
    "name", ["job.toml", "plan.json", "history.jsonl", "transcript.jsonl", "summary.json", "statements.json"]
)
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    Scene().write(folder)
    (folder / name).write_text('{"half\n', encoding="utf-8")
    with pytest.raises(NotARun, match=f"{name} is damaged"):
        report.render(folder)
    assert not (folder / "report.html").exists()
