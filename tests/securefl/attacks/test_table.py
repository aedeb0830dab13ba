"""The table of attacks: run through its command, and shown as a page, as JSON and in Markdown."""

from __future__ import annotations

import base64
import importlib
import io
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from securefl import cli
from securefl.attacks import markdown, page, table
from securefl.attacks.cell import Cell, Figure, Picture
from securefl.attacks.settings import SETTINGS

SQUARE = Picture("original", ((0.0, 1.0), (0.5, 2.0)))


def made() -> table.Table:
    """One attack with a variant, in red and in green, with pictures."""
    figures = (Figure("PSNR", 61.25, "dB"), Figure("identified", 0.0002, "share"))
    cells = (
        Cell("inversion", "plain", "red", figures, "the server <reads> updates", "masks", (SQUARE, SQUARE)),
        Cell("inversion", "secagg", "green", figures, "masks hide it", "", (SQUARE, SQUARE)),
        Cell("inversion, with a policy", "secagg", "none", (), "there is nothing left to do"),
    )
    row = table.Row("inversion", "someone, 2018", "a server", cells, 1.5)
    return table.Table({one.name: one.title for one in SETTINGS}, (row,), "quick", 1.5, {"securefl": "0"})


def test_the_command_runs_an_attack_and_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["attack", "--quick", "--only", "collusion", "--out", str(tmp_path / "out"), "--json"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert "collusion with one key holder" in printed.err.replace("\n", " ") or "collusion" in printed.err
    said = msgspec.json.decode(printed.out.strip().splitlines()[-1])
    found = msgspec.json.decode(Path(said["table"]).read_bytes(), type=table.Table)
    (row,) = found.rows
    assert [cell.setting for cell in row.cells] == [setting.name for setting in SETTINGS]
    verdicts = {cell.setting: cell.verdict for cell in row.cells}
    assert verdicts["ckks-unmasked"] == "red" and verdicts["client-dp"] == "green"
    text = Path(said["page"]).read_text(encoding="utf-8")
    assert "collusion with one key holder" in text and "<script" not in text
    assert "**red**" in (tmp_path / "out" / "attacks.md").read_text(encoding="utf-8")


def test_an_attack_that_is_not_there_is_named_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["attack", "--only", "telepathy"]) == 2
    assert "unknown attack telepathy: choose of inversion, gradient-matching" in capsys.readouterr().err


@pytest.mark.parametrize("module", table.MODULES)
def test_every_attack_says_who_and_after_whom(module: str) -> None:
    attack = importlib.import_module(f"securefl.attacks.{module}")
    assert attack.NAME and attack.SOURCE and attack.ADVERSARY and callable(attack.cells)


def test_the_page_escapes_words_and_shows_pictures() -> None:
    text = page.html(made())
    assert "the server &lt;reads&gt; updates" in text
    assert text.count("data:image/png;base64,") == 4
    assert "1 times it succeeds" in text and "1 times it fails" in text and "1 times it does not apply" in text
    assert "PSNR 61.2 dB" in text and "identified &lt; 0.1 %" in text


def test_a_picture_is_enlarged_and_cut_off_at_white() -> None:
    data = base64.b64decode(page.data_url(SQUARE).partition(",")[2])
    image = Image.open(io.BytesIO(data))
    assert image.size == (96, 96)
    assert [image.getpixel(place) for place in ((0, 0), (95, 0), (0, 95), (95, 95))] == [0, 255, 128, 255]


def test_markdown_has_a_line_for_each_variant() -> None:
    lines = markdown.markdown(made()).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| **inversion**, PSNR | **red** 61.2 dB | green 61.2 dB |")
    assert "| n/a |" in lines[3]


def test_a_strip_has_a_column_for_each_setting_with_pictures() -> None:
    image = Image.open(io.BytesIO(markdown.strip(made(), "inversion")))
    assert image.size == (2 * 96 + 8, 2 * 96 + 8)
