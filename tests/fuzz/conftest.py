"""Says at the end of `make fuzz` how many cases each target had, and fails a run that had fewer than it was told to."""

from __future__ import annotations

import pytest

from tests.fuzz.effort import WANTED, cases


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not WANTED:
        return
    terminalreporter.section("fuzz")
    for name, count in cases.items():
        terminalreporter.write_line(f"{count:>9,}  {name}")
    terminalreporter.write_line(f"{sum(cases.values()):>9,}  cases in all; at least {WANTED:,} were asked for")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if WANTED and exitstatus == pytest.ExitCode.OK and sum(cases.values()) < WANTED:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
