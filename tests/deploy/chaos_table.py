"""Pytest plugin of `make chaos`: one table row per test, with the figures that the test recorded.

It knows nothing of what the tests do: a row is the test's name as a sentence, its verdict, its
seconds, and what it gave to `record_property`. With --chaos-page the table also replaces the one
between the markers of that page.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

START, END = "<!-- chaos table -->", "<!-- end of chaos table -->"
HEADER = "| What was done | Verdict | Figures | s |\n| --- | --- | --- | --- |"


class ChaosTable:
    """Collects the rows of one run."""

    def __init__(self, page: Path | None) -> None:
        self.page = page
        self.rows: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a row for what the test did, or for a fixture that could not be set up."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            figures = "; ".join(f"{name} {value}" for name, value in report.user_properties)
            name, _, case = report.nodeid.rpartition("::")[2].partition("[")
            sentence = name.removeprefix("test_").replace("_", " ")
            shown = f"{sentence} ({case.rstrip(']')})" if case else sentence
            cells = (shown, report.outcome, figures or "-", f"{report.duration:.0f}")
            self.rows[report.nodeid] = "| " + " | ".join(cells) + " |"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and write it into the page."""
        table = "\n".join([HEADER, *self.rows.values()])
        terminalreporter.write_line("\n" + table + "\n")
        if self.page and self.rows:
            old = self.page.read_text(encoding="utf-8")
            self.page.write_text(with_table(old, table), encoding="utf-8")


def with_table(page: str, table: str) -> str:
    """Return the page with this table between its markers."""
    pattern = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no {START} ... {END}; add the two lines where it belongs")
    return pattern.sub(lambda _: f"{START}\n\n{table}\n\n{END}", page)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say where the table goes."""
    parser.addoption("--chaos-page", type=Path, help="page whose table is replaced")


def pytest_configure(config: pytest.Config) -> None:
    """Join the run."""
    config.pluginmanager.register(ChaosTable(config.getoption("--chaos-page")), "chaos-table")
