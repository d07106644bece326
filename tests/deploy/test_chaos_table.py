"""The table of `make chaos`: a row per test, with its verdict and figures, on the page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.chaos_table import END, HEADER, START, with_table

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

@pytest.mark.chaos
def test_a_killed_replica_costs_nothing(record_property):
    record_property("requests", 2000)
    record_property("failed", 0)

@pytest.mark.chaos
@pytest.mark.parametrize("seed", [7])
def test_a_lost_node_costs_nothing(seed):
    assert False

@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(4))
def test_twenty_kills_lose_nothing(seed):
    pass

def test_calm():
    pass
"""


def test_passed_and_failed_tests_have_a_row_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = chaos\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-m", "chaos", "-p", "tests.deploy.chaos_table"]
    command += ["--rootdir", str(tmp_path), "-c", str(tmp_path / "pytest.ini"), str(tmp_path)]
    run = subprocess.run(
        [*command, "--chaos-page", str(page)],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = "\n".join(
        [
            HEADER,
            "| a killed replica costs nothing | passed | requests 2000; failed 0 | 0 |",
            "| a lost node costs nothing (7) | failed | - | 0 |",
            "| twenty kills lose nothing (4 cases) | passed | - | 0 |",
        ]
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert rows in run.stdout
    assert page.read_text(encoding="utf-8") == f"before\n{START}\n\n{rows}\n\n{END}\nafter\n"


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="has no"):
        with_table("nothing", "table")
