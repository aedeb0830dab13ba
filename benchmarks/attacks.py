"""How many attacks are shown to fail: the tests marked ``attack("name")`` are run, and names counted."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field

import pytest

from benchmarks.peers.process import ROOT


@dataclass
class Tally:
    """A plugin for pytest. A name counts if tests were run under it and all of them passed."""

    named: dict[str, set[str]] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)

    @property
    def shown(self) -> list[str]:
        names = {name for of in self.named.values() for name in of}
        short = {name for test, of in self.named.items() for name in of if test not in self.passed}
        return sorted(names - short)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.named[item.nodeid] = {str(mark.args[0]) for mark in item.iter_markers("attack")}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        elif report.failed:
            self.passed.discard(report.nodeid)  # its teardown, after its call


def shown(where: str = "tests/protocols") -> list[str]:
    """Names of the attacks whose tests pass here and now."""
    tally = Tally()
    options = ["-q", "-m", "attack", "-p", "no:cacheprovider", f"--rootdir={ROOT}", f"--confcutdir={ROOT}"]
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*options, str(ROOT / where)], plugins=[tally])
    return tally.shown
