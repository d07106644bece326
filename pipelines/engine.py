"""What stages need wherever they run: the job's context, and what an engine can do.

It knows no engine: Ray Data is one, a loop in the protocol's tests another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipelines.columns import Shape
from pipelines.commits.records import JobFolder, lean_json
from pipelines.config import RerankJobConfig
from pipelines.growing.kept import NONE_KNOWN, Known
from pipelines.inputs.joins import Texts
from pipelines.inputs.listing import InputFile
from pipelines.inputs.units import Slice
from rerank_core import Scorer, ScorerConfig
from rerank_core.calibration import Calibration

LoadScorer = Callable[[ScorerConfig], Scorer]


@dataclass(frozen=True, slots=True)
class JobContext:
    """What every worker needs to know of the job."""

    folder: JobFolder
    config: RerankJobConfig
    shape: Shape
    buckets: int  # 0: no merge of queries over units follows
    joined: bool = False  # texts were looked up: they are not part of the output
    calibration: Calibration | None = None
    schema: pa.Schema | None = None  # of what is read, the same for all files
    known: Known = NONE_KNOWN  # scores that a former job has
    first_new: int = 0  # the units before this one are those of a finished output that grows


class Tasks(Protocol):
    """Runs a step's tasks somewhere."""

    def run_tasks(
        self, items: list[dict[str, Any]], task: Callable[[dict[str, Any]], dict[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Run the task on each item; yield its line when it is done."""
        ...


class Engine(Tasks, Protocol):
    """Runs the stages somewhere: Ray Data in production, one process in the protocol's tests."""

    def score_units(
        self,
        context: JobContext,
        slices: list[Slice],
        files: list[InputFile],
        texts: Texts | None,
        load: LoadScorer,
    ) -> Iterator[dict[str, Any]]:
        """Read and score the slices' units; yield a line for each when it is done."""
        ...

    def gpus_per_replica(self, config: RerankJobConfig) -> float:
        """Return how many GPUs each copy of the model takes, 0 on CPUs."""
        ...


@dataclass(frozen=True, slots=True)
class Nearby:
    """Does a step's only task in this process, and leaves several to the workers.

    For small jobs: until a worker has started for it, such a task is long done.
    """

    workers: Tasks

    def run_tasks(
        self, items: list[dict[str, Any]], task: Callable[[dict[str, Any]], dict[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Run the task on each item; yield its line when it is done."""
        if len(items) == 1:
            yield lean_json(task(items[0])["line"])
        else:
            yield from self.workers.run_tasks(items, task)
