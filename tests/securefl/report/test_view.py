"""What the server of a run saw is counted, and what it could read follows from the protection."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from securefl import report
from securefl.records import ServerView, Summary
from securefl.report.document import View
from tests.securefl.report.runs import JOB, Scene


def test_what_the_server_saw_is_counted_from_the_transcript_and_not_taken_from_its_summary(tmp_path: Path) -> None:
    folder = Scene().write(tmp_path / "run")
    summary = msgspec.json.decode((folder / "summary.json").read_bytes(), type=Summary)
    modest = replace(summary, server_view=ServerView(1, 1, 1, 0, 0, 0))
    (folder / "summary.json").write_bytes(msgspec.json.encode(modest))
    # Ten rounds of five clients: an update and three other messages each, of 180 + 1400 + 310 + 96 bytes.
    assert report.assembled(folder).server_view == View(200, 99_300, 50, 0, 10, 10)


@pytest.mark.parametrize(
    ("kind", "readable"),
    [("plain", (50, 10, 10)), ("secagg", (0, 10, 10)), ("ckks", (0, 0, 0)), ("ckks-unmasked", (0, 0, 0))],
)
def test_what_the_server_could_read_follows_from_the_protection(
    tmp_path: Path, kind: str, readable: tuple[int, int, int]
) -> None:
    view = report.assembled(Scene(f'{JOB}[protection]\nkind = "{kind}"\n').write(tmp_path / "run")).server_view
    assert isinstance(view, View)
    assert (view.updates_readable, view.sums_readable, view.models_readable) == readable
