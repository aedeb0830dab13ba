"""A page is what the report gives, and its figures are plain drawings; where their curves lie is not compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from securefl import report
from securefl.report import plots
from securefl.verification import drawing, rendered
from tests.securefl.report.runs import CLIENT_LEVEL, Scene

ROUNDS = tuple(range(1, 40))
FIGURES = {
    "accuracy": plots.accuracy((1, 2, 3), (0.5, 0.6, 0.9), 0.95),
    "epsilon": plots.epsilon(ROUNDS, tuple(0.1 * n for n in ROUNDS), tuple(0.09 * n for n in ROUNDS), 9.0),
    "traffic": plots.traffic((("keys", 180, 900), ("masked-input", 310, 420_000), ("a < b & c", 0, 10))),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = report.render(Scene().write(tmp_path_factory.mktemp("page") / "run"))
    return path.read_text(encoding="utf-8")


def lines(folder: Path, shown: str, page: str) -> list[str]:
    """What is said of a page that shows this in the place of ``page``."""
    (folder / report.HTML).write_text(shown, encoding="utf-8")
    return list(rendered.mismatches(folder, page))


def put(page: str, before: str, after: str) -> str:
    """The first ``before`` in the page's figures becomes ``after``."""
    place = page.index(before, page.index("<svg"))
    return page[:place] + after + page[place + len(before) :]


@pytest.mark.parametrize("scene", [Scene(CLIENT_LEVEL), Scene(rounds=1), Scene(rounds=0)])
def test_a_page_as_it_was_rendered_is_not_accused(tmp_path: Path, scene: Scene) -> None:
    shown = report.render(scene.write(tmp_path / "run")).read_text(encoding="utf-8")
    assert lines(tmp_path, shown, shown) == []


@pytest.mark.parametrize("name", FIGURES)
def test_our_figures_are_plain_drawings(name: str) -> None:
    assert list(drawing.faults(FIGURES[name], name)) == []


def test_another_matplotlib_may_write_fonts_otherwise_and_draw_elsewhere(tmp_path: Path, page: str) -> None:
    """As 3.9 does."""
    font = "font: 9px 'DejaVu Sans', 'Bitstream Vera Sans', sans-serif"
    older = page.replace("font-size: 9px; font-family: inherit", font)
    older = re.sub(r'(<path d="M )(\d+)', r"\g<1>1\2", older)
    assert older != page
    assert lines(tmp_path, older, page) == []
    (skipped,) = rendered.unchecked(tmp_path, page)
    assert skipped.startswith(f"the curves in {report.HTML}")


# What is put in the place of what, in a figure; and what is said of it.
CHANGES: dict[str, tuple[str, str, str]] = {
    "a handler": ("<path ", '<path onclick="alert(1)" ', "onclick on a path element"),
    "a handler in capitals": ("<path ", '<path ONLOAD="alert(1)" ', "ONLOAD on a path element"),
    "a class of the page": ("<path ", '<path class="figures" ', "class on a path element"),
    "a turned group": ("<g ", '<g transform="scale(30)" ', "transform on a g element"),
    "turned words": ('transform="rotate(-0', 'transform="rotate(180', "transform on a text element"),
    "moved words": ('transform="rotate(-0', 'transform="translate(0 -90) rotate(-0', "transform on a text element"),
    "a place on the page": ('style="', 'style="position: fixed; ', "the style 'position: fixed'"),
    "what is loaded": ('style="', 'style="fill: url(https://example.org/a.svg#b); ', "the style 'fill: url(https"),
    "an escaped url": ('style="', 'style="fill: u\\72l(#a); ', "style on a path element"),
    "a filter": ('style="', 'style="filter: blur(9px); ', "the style 'filter: blur(9px)'"),
    "a foreign colour": ("fill: none", "fill: transparent", "the style 'fill: transparent'"),
    "a link elsewhere": ('href="#', 'href="https://example.org/#', "href on a use element"),
    "a script in a link": ('href="#', 'href="javascript:alert(1)//#', "href on a use element"),
    "a link with another name": ("<use ", '<use xlink:href="https://example.org" ', "what is neither"),
    "a shape of another figure": ('href="#', 'href="#traffic-figure_1" id="', "a reference to 'traffic-figure_1'"),
    "an identifier of the page": ('id="', 'id="guarantee" d="', "the identifier 'guarantee'"),
    "a clip from elsewhere": (
        'clip-path="url(#',
        'clip-path="url(https://example.org/#',
        "clip-path on a path element",
    ),
    "an attribute twice": ("<path ", '<path d="" ', "an attribute twice"),
    "an attribute without quotes": ("<path ", "<path onload=alert(1) ", "what is neither"),
    "an element that is not closed": ("</g>", "", "element that is not closed"),
    "a comment": ("</g>", "<!-- --></g>", "what is neither"),
    "character data": ("</g>", "<![CDATA[ ]]></g>", "what is neither"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_figure_that_is_more_than_a_drawing_is_a_mismatch(tmp_path: Path, page: str, name: str) -> None:
    before, after, fault = CHANGES[name]
    found = lines(tmp_path, put(page, before, after), page)
    assert any(f"a figure has {fault}" in line or fault in line for line in found), found


@pytest.mark.parametrize(
    "element",
    [
        "<script>alert(1)</script>",
        '<foreignObject width="900" height="900"></foreignObject>',
        '<image href="#accuracy-figure_1"/>',
        '<a href="#accuracy-figure_1"></a>',
        "<style>main { display: none }</style>",
        '<set attributeName="href" to="javascript:alert(1)"/>',
        "<svg></svg>",
        "<title>another</title>",
        "<p>",
    ],
)
def test_an_element_that_no_figure_has_is_a_mismatch(tmp_path: Path, page: str, element: str) -> None:
    assert lines(tmp_path, put(page, "</svg>", f"{element}</svg>"), page) != []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("viewBox=", 'style="position: fixed" viewBox='),
        ('role="img"', 'role="img" onload="alert(1)"'),
        ("budget 9", "budget 1"),
        ("<text ", "<text >epsilon 0.01</text><text "),
        ("</svg>", "</svg><svg></svg>"),
    ],
)
def test_size_title_and_words_of_a_figure_are_the_reports(tmp_path: Path, page: str, before: str, after: str) -> None:
    assert lines(tmp_path, put(page, before, after), page) != []


def test_words_in_the_place_of_a_figure_are_no_figure(tmp_path: Path, page: str) -> None:
    """Whoever knows how figures are compared cannot write down what is compared."""
    start, end = page.rindex("<svg"), page.rindex("</svg>") + len("</svg>")
    spoken = " ".join(drawing.words(page[start:end]))
    opening = page[start : page.index(">", start)]
    assert lines(tmp_path, f"{page[:start]}{opening} {spoken}{page[end:]}", page) != []


def test_a_page_that_is_missing_is_a_mismatch(tmp_path: Path, page: str) -> None:
    assert list(rendered.mismatches(tmp_path, page)) == [f"{report.HTML}: missing"]
