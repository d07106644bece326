"""The job's command line with a scorer that obeys markers in the documents. Run by the tests.

@@exit ends the process, @@segv kills it, @@hang never returns, @@full finds no room on the disk.
DEADLY_PAUSE_S slows every call, DEADLY_LOG gets a line per call. The reader of the unit
DEADLY_READ ends its process at its first DEADLY_READS attempts.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from pipelines.commits.store import StorageFull
from pipelines.rerank_job import main
from pipelines.stages import ray_engine
from pipelines.stages.ray_pool import attempts_before
from rerank_core import load_scorer


class DeadlyScorer:
    def __init__(self, config, pause_s, log):
        self.inner = load_scorer(config)
        self.info = self.inner.info
        self.pause_s, self.log = pause_s, log

    def score(self, pairs):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()} {len(pairs)}\n")
        time.sleep(self.pause_s)
        for pair in pairs:
            if "@@exit" in pair.document:
                os._exit(1)
            if "@@segv" in pair.document:
                ctypes.string_at(0)  # in this thread: a signal sent would let it go on for a while
            if "@@full" in pair.document:
                raise StorageFull("no space left")
            if "@@hang" in pair.document:
                time.sleep(1000)
        return self.inner.score(pairs)


class LoadDeadly:
    """Built in the driver, so that the workers get its environment."""

    def __init__(self):
        self.pause_s = float(os.environ.get("DEADLY_PAUSE_S", "0"))
        self.log = os.environ.get("DEADLY_LOG", "")

    def __call__(self, config):
        return DeadlyScorer(config, self.pause_s, self.log)


class DeadlyRead:
    """Reads as the engine does, up to the first row, and ends its process."""

    def __init__(self):
        self.read = ray_engine._read
        self.unit, self.deaths = (
            os.environ.get("DEADLY_READ", ""),
            int(os.environ.get("DEADLY_READS", "0")),
        )

    def __call__(self, batch, context, texts):
        rows = self.read(batch, context, texts)
        first = next(rows)
        given_up = first["failure"][0].as_py()
        if (
            batch["name"][0].as_py() == self.unit
            and attempts_before() < self.deaths
            and not given_up
        ):
            os._exit(1)
        yield first
        yield from rows


if __name__ == "__main__":
    if "DEADLY_READ" in os.environ:
        ray_engine._read = DeadlyRead().__call__
    sys.exit(main(sys.argv[1:], LoadDeadly()))
