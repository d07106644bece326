"""Where CI is set, a skip that CI can mend fails the run; elsewhere it is only named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_runs():
    pass

@pytest.mark.skipif(True, reason="needs CUDA")
def test_on_a_gpu():
    pass

@pytest.fixture
def browser():
    pytest.skip("no chromium here")

def test_the_page(browser):
    pass
"""


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_skip_without_a_good_reason_fails_a_run_of_ci(tmp_path, ci, code):
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.skips", "--rootdir", tmp_path]
    run = subprocess.run(
        [*command, "-c", tmp_path / "pytest.ini", tmp_path],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout + run.stderr
    assert ("test_it.py::test_the_page: " in run.stdout) == bool(ci)
    assert "test_on_a_gpu: " not in run.stdout
