"""Progress of a job for people: one line that updates in a terminal, a line now and then in logs.

It counts what it is told and does not know where it comes from.
"""

from __future__ import annotations

import time
from typing import Any, TextIO

_TERMINAL_S = 0.5


class Progress:
    """Counts finished units and says how far the job is and when it may end."""

    def __init__(self, rows: int, done_rows: int, out: TextIO, every_s: float) -> None:
        self._rows, self._done_rows, self._out = rows, done_rows, out
        self._terminal = out.isatty()
        self._every_s = _TERMINAL_S if self._terminal else every_s
        self._started_s = self._last_s = time.monotonic()
        self._new_rows = 0
        self.pairs = self.tokens = self.quarantined = self.units = self.repeated = 0

    def add(self, line: dict[str, Any]) -> None:
        """Count one finished unit and show progress when it is time."""
        counts = line["counts"]
        self.units += 1
        self.repeated += not line["published"]
        self._new_rows += counts["rows_in"]
        self.pairs += counts["pairs_in"] - counts["pairs_quarantined"]
        self.tokens += counts["tokens"]
        self.quarantined += counts["pairs_quarantined"]
        if time.monotonic() - self._last_s >= self._every_s:
            self.show()

    def show(self, end: bool = False) -> None:
        """Write the line now."""
        self._last_s = time.monotonic()
        elapsed_s = max(1e-3, self._last_s - self._started_s)
        done = self._done_rows + self._new_rows
        share = 100 * done / max(1, self._rows)
        left_s = (self._rows - done) * elapsed_s / self._new_rows if self._new_rows else 0.0
        text = (
            f"{share:5.1f} %  {done:,} of {self._rows:,} rows"
            f"  {self.pairs / elapsed_s:,.0f} pairs/s  {self.tokens / elapsed_s:,.0f} tokens/s"
            f"  {_span(left_s)} left  {self.quarantined:,} set aside"
        )
        if self.repeated:
            text += f"  {self.repeated:,} units repeated"
        stop = "\n" if end or not self._terminal else ""
        self._out.write(("\r\x1b[2K" if self._terminal else "") + text + stop)
        self._out.flush()


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
