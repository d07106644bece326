"""The part that must pass before any figure means something: the tests with the mark gpu."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.session import Session

ROOT = Path(__file__).parents[2]
TESTS = "tests/rerank_core/scorers/passes"


def gpu_tests(session: Session) -> None:
    """Run them, and record how many passed and what failed with which message."""
    session.attempt("tests", "result", lambda: _run(session))


def _run(session: Session) -> dict[str, Any]:
    report = session.work / "tests.xml"
    command = [
        *(sys.executable, "-m", "pytest", "-q", TESTS, f"--junitxml={report}"),
        *("-m", "gpu", *(["--collect-only"] if session.dry else [])),
        # Another torch has other warnings, and a bare machine none of our plugins.
        *("-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=default"),
        *("-p", "no:cacheprovider"),
    ]
    limit_s = max(1.0, session.left_s - 1)
    paths = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | paths, timeout=limit_s, check=False)
    if session.dry:
        return {"exit": done.returncode}
    return {"exit": done.returncode, **outcome(report)}


def outcome(report: Path) -> dict[str, Any]:
    """Return the counts and the failures' messages of a JUnit report."""
    found: dict[str, Any] = {"passed": 0, "failed": {}, "skipped": {}}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name')}"
        problem = next((c for c in case if c.tag in ("failure", "error", "skipped")), None)
        if problem is None:
            found["passed"] += 1
        else:
            kind = "skipped" if problem.tag == "skipped" else "failed"
            found[kind][name] = (problem.get("message") or "").splitlines()[0][:300]
    return found
