"""Progress of a job for people: one line that updates in a terminal, a line now and then in logs.

It counts what it is told and does not know where it comes from.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_TERMINAL_S = 0.5


class Progress:
    """Counts finished units; while its `with` block runs, says how far the job is.

    A thread writes, so that a long first unit does not look like a job that hangs.
    """

    def __init__(self, rows: int, done_rows: int, out: TextIO, every_s: float) -> None:
        self._rows, self._done_rows, self._out = rows, done_rows, out
        self._terminal = out.isatty()
        self._every_s = _TERMINAL_S if self._terminal else every_s
        self._started_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="progress")
        self._new_rows = 0
        self.pairs = self.tokens = self.quarantined = self.retries = 0

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show("\n")

    def add(self, line: dict[str, Any], again: bool = False) -> None:
        """Count one finished unit; `again` if it was counted and another attempt came late."""
        self.retries += line["retries"] + (not line["published"])
        if again:
            return
        counts = line["counts"]
        self._new_rows += counts["rows_in"]
        self.pairs += counts["pairs_in"] - counts["pairs_quarantined"]
        self.tokens += counts["tokens"]
        self.quarantined += counts["pairs_quarantined"]

    def _loop(self) -> None:
        while not self._stop.wait(self._every_s):
            self._show("" if self._terminal else "\n")

    def _show(self, end: str) -> None:
        elapsed_s = max(1e-3, time.monotonic() - self._started_s)
        done = self._done_rows + self._new_rows
        share = 100 * done / max(1, self._rows)
        left_s = (self._rows - done) * elapsed_s / self._new_rows if self._new_rows else None
        text = (
            f"{share:5.1f} %  {done:,} of {self._rows:,} rows"
            f"  {self.pairs / elapsed_s:,.0f} pairs/s  {self.tokens / elapsed_s:,.0f} tokens/s"
            f"  {_span(elapsed_s)} gone, {_span(left_s)} left  {self.quarantined:,} set aside"
        )
        if self.retries:
            text += f"  {self.retries:,} retries"
        self._out.write(("\r\x1b[2K" if self._terminal else "") + text + end)
        self._out.flush()


class Steps:
    """Says now and then how far the steps around scoring are, so that no phase is silent."""

    def __init__(self, out: TextIO, every_s: float, what: str) -> None:
        self._out, self._every_s, self._what = out, every_s, what
        self._last_s = time.monotonic()

    def __call__(self, step: str, done: int, of: int) -> None:
        """Take note that so many of the step's tasks are done."""
        now_s = time.monotonic()
        if now_s - self._last_s >= self._every_s:
            self._last_s = now_s
            self._out.write(f"{self._what}, {step}: {done:,} of {of:,}\n")
            self._out.flush()


@contextmanager
def waiting(out: TextIO, every_s: float, what: str) -> Iterator[None]:
    """Say now and then that the block, which can tell nothing of itself, goes on."""
    ended, began_s = threading.Event(), time.monotonic()

    def say() -> None:
        while not ended.wait(every_s):
            out.write(f"{what}: {_span(time.monotonic() - began_s)} gone\n")
            out.flush()

    thread = threading.Thread(target=say, daemon=True, name="waiting")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
