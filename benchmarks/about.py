"""What is measured and on what: this checkout's commit, this machine's CPU."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from pathlib import Path


def commit() -> str | None:
    """Return the commit of this checkout in full, or None where there is none to ask for."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError):
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or None
    return None


def measured_on() -> dict[str, str | None]:
    """Return what every result says of itself: `commit`, and the CPUs as `machine`."""
    return {"commit": commit(), "machine": f"{os.cpu_count()} x {cpu()}"}


def cpu() -> str:
    """Return the name of the CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
