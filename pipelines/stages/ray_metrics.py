"""What Prometheus sees of a job while it scores, through Ray's metrics. Labels never hold texts."""

from __future__ import annotations

import threading
import time
from typing import Any

from ray.util.metrics import Counter, Gauge

# A gauge of Ray's disappears some twenty seconds after it was last written.
_WRITTEN_EVERY_S = 10.0
_KEYS = ("job_output",)


class JobMeter:
    """Counts finished units, and while its `with` block runs says how long ago the last one was.

    `output` is the job's output; only its last part is told.
    """

    def __init__(self, output: str, units: int) -> None:
        self._tags = {"job_output": output.rstrip("/").rpartition("/")[2]}
        self._left, self._last_s = units, time.monotonic()
        self._units = _count("rerank_job_units", "Finished units.")
        self._pairs = _count("rerank_job_pairs", "Scored pairs.")
        self._tokens = _count("rerank_job_tokens", "Tokens that the model read.")
        self._aside = _count("rerank_job_pairs_set_aside", "Pairs in quarantine.")
        self._retries = _count("rerank_job_retries", "Attempts at units that died or came late.")
        self._units_left = _gauge("rerank_job_units_left", "Units without a record.")
        self._age = _gauge("rerank_job_last_unit_age_seconds", "Since a unit was finished.")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="job metrics")

    def __enter__(self) -> JobMeter:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def count(self, line: dict[str, Any]) -> None:
        """Count what a line of the scoring stage says."""
        self._left -= 1
        self._last_s = time.monotonic()
        self._units.inc(1, self._tags)
        counts = line.get("counts", {})
        aside = counts.get("pairs_quarantined", 0)
        for metric, value in (
            (self._pairs, counts.get("pairs_in", 0) - aside),
            (self._tokens, counts.get("tokens", 0)),
            (self._aside, aside),
            (self._retries, line.get("retries", 0) + (not line.get("published", True))),
        ):
            if value:
                metric.inc(value, self._tags)

    def _loop(self) -> None:
        self._write()
        while not self._stop.wait(_WRITTEN_EVERY_S):
            self._write()
        self._write()

    def _write(self) -> None:
        self._units_left.set(max(0, self._left), self._tags)
        self._age.set(time.monotonic() - self._last_s, self._tags)


def _count(name: str, what: str) -> Counter:
    return Counter(name, what, tag_keys=_KEYS)


def _gauge(name: str, what: str) -> Gauge:
    return Gauge(name, what, tag_keys=_KEYS)
