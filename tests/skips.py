"""Pytest plugin: where CI is set, a skip for a reason that CI can mend fails the run.

It knows nothing of the tests but the reasons that they give.
"""

from __future__ import annotations

import os
import re

import pytest

# What a machine of CI may lack. Everything else is set up by `make test`.
ALLOWED = re.compile(
    "needs (a )?CUDA|kubectl is not installed|RAY_RERANK_TWO_NODES|azurite is not installed"
)


class SkipsThatCount:
    """Collects the skips that should not be, and fails the run for them."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a test that was skipped when it ran or was set up."""
        self._keep(report.nodeid, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep a file that was skipped whole."""
        self._keep(report.nodeid, report)

    def _keep(self, node: str, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.outcome != "skipped" or hasattr(report, "wasxfail"):
            return
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not ALLOWED.search(reason):
            self.found.append(f"{node}: {reason}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a run that is otherwise green red."""
        if self.found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which, and what to do."""
        if self.found:
            terminalreporter.section("skipped although CI can run it", red=True)
            for line in self.found:
                terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Join the run where CI is set."""
    if os.environ.get("CI"):
        config.pluginmanager.register(SkipsThatCount(), "skips-that-count")
