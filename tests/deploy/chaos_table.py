"""Pytest plugin of `make chaos`: one table row per test, with the figures that the test recorded.

It knows nothing of what the tests do: a row is the test's name as a sentence, its verdict, its
seconds, and what it gave to `record_property`. Cases that differ in nothing else share a row. With
--chaos-page the table also replaces the one between the markers of that page.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

START, END = "<!-- chaos table -->", "<!-- end of chaos table -->"
# More cases than this are counted, not named.
_NAMED = 3
HEADER = "| What was done | Verdict | Figures | s |\n| --- | --- | --- | --- |"


class ChaosTable:
    """Collects the rows of one run."""

    def __init__(self, page: Path | None) -> None:
        self.page = page
        self.rows: dict[str, tuple[str, str, str, str, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a row for what the test did, or for a fixture that could not be set up."""
        if report.when == "call" or (report.when == "setup" and report.failed):
            figures = "; ".join(f"{name} {value}" for name, value in report.user_properties)
            # Of several processes each adds its group to the name.
            node = re.sub(r"@[^]:]*$", "", report.nodeid)
            name, _, case = node.rpartition("::")[2].partition("[")
            sentence = name.removeprefix("test_").replace("_", " ")
            row = (sentence, case.rstrip("]"), report.outcome, figures or "-", report.duration)
            self.rows[node] = row

    def table(self) -> str:
        """Return the rows; cases that differ in their names only become one."""
        alike: dict[tuple[str, ...], list[tuple[str, float]]] = {}
        # Processes end their tests by turns; each file's stand together.
        rows = sorted(self.rows.items(), key=lambda row: row[0].partition("::")[0])
        for _, (sentence, case, *verdict, seconds) in rows:
            alike.setdefault((sentence, *map(str, verdict)), []).append((case, seconds))
        lines = [HEADER]
        for (sentence, *verdict), cases in alike.items():
            names = ", ".join(case for case, _ in cases if case)
            shown = names if len(cases) <= _NAMED else f"{len(cases)} cases"
            total_s = sum(seconds for _, seconds in cases)
            cells = (f"{sentence} ({shown})" if shown else sentence, *verdict, f"{total_s:.0f}")
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and write it into the page."""
        table = self.table()
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
