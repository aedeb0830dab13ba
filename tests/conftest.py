"""What all tests share: the data marker, Hypothesis's profiles, and the list of attacks at the end of a run."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

NO_DATA = "SECUREFL_DATA is not set"

# No deadlines: the machines that run this are shared. In CI the examples are fixed, so that a run can be repeated.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``needs_data`` where there is no data; have reports carry the names of attacks."""
    for item in items:
        item.user_properties += [("attack", marker.args[0]) for marker in item.iter_markers("attack")]
    if not os.environ.get("SECUREFL_DATA"):
        for item in items:
            if item.get_closest_marker("needs_data"):
                item.add_marker(pytest.mark.skip(reason=NO_DATA))


@pytest.fixture
def data_folder() -> Path:
    """The folder that SECUREFL_DATA names, for tests marked ``needs_data``."""
    return Path(os.environ["SECUREFL_DATA"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _failed_if_data_is_required(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _failed_if_data_is_required(report)


def _failed_if_data_is_required(report: Report) -> Report:
    """With SECUREFL_REQUIRE_DATA=1 a test that is skipped for want of data fails: CI must not pass by skipping."""
    if report.skipped and "SECUREFL_DATA" in str(report.longrepr) and os.environ.get("SECUREFL_REQUIRE_DATA") == "1":
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped for want of data, and SECUREFL_REQUIRE_DATA is 1"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the attacks that succeeded against a weakened variant and failed against the real one."""
    failed = _attacks(terminalreporter, "failed", "error")
    shown = [name for name in _attacks(terminalreporter, "passed") if name not in failed]
    for said, names in (("shown", shown), ("NOT shown", failed)):
        if names:
            terminalreporter.write_line(f"attacks {said} ({len(names)}): {'; '.join(names)}")


def _attacks(terminalreporter: pytest.TerminalReporter, *outcomes: str) -> list[str]:
    """The names that tests with these outcomes carry, each once."""
    reports = (report for outcome in outcomes for report in terminalreporter.stats.get(outcome, []))
    properties = (pair for report in reports for pair in getattr(report, "user_properties", []))
    return list(dict.fromkeys(value for key, value in properties if key == "attack"))
