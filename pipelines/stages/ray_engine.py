"""The Ray Data graphs: read and score units, then merge queries that lie in several units.

Ray Data schedules, streams, retries and bounds memory. It carries units in and lines of counts out;
results go to files from the workers. Nothing here knows how a pair is scored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TextIO

import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext, TaskPoolStrategy

from pipelines.config import RerankJobConfig
from pipelines.engine import JobContext, LoadScorer
from pipelines.inputs.joins import Texts
from pipelines.inputs.listing import InputFile
from pipelines.inputs.units import Slice
from pipelines.stages.failures import failure_line, read_line
from pipelines.stages.ray_metrics import JobMeter
from pipelines.stages.ray_pool import (
    pool,
    replica_needs,
    require_machine,
    resources,
    was_restarted,
)
from pipelines.stages.ray_start import connect, disconnect
from pipelines.stages.read import failed_row, read_slice, slice_row
from pipelines.stages.score import CALLS, ScoreUnits
from rerank_core import RerankError

_MOST_TASKS = 1000
# Ray Data's settings while the engine works. Our progress line takes the place of its bars; units
# are never joined into one block; a unit on a slow machine may take longer than half an hour
# without progress, and hanging units have a watchdog of their own.
_SETTINGS: dict[str, Any] = {
    "enable_progress_bars": False,
    "target_max_block_size": 1,
    "execution_no_progress_timeout_s": -1,
}


class RayEngine:
    """Runs the stages on Ray, inside a `with` block; what needs no workers needs no Ray."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._started, self._alone = out, False, False
        self._former: dict[str, Any] = {}

    def __enter__(self) -> RayEngine:
        return self

    def _start(self) -> None:
        """Join the running Ray or the cluster of RAY_ADDRESS, else start one on this machine."""
        if self._former:
            return
        self._started = not ray.is_initialized()
        if self._started:
            self._alone = connect()
        context = DataContext.get_current()
        self._former = {name: getattr(context, name) for name in _SETTINGS}
        for name, value in _SETTINGS.items():
            setattr(context, name, value)
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        for name, value in self._former.items():
            setattr(DataContext.get_current(), name, value)
        if self._started:
            disconnect(self._alone)

    def score_units(
        self,
        context: JobContext,
        slices: list[Slice],
        files: list[InputFile],
        texts: Texts | None,
        load: LoadScorer,
    ) -> Iterator[dict[str, Any]]:
        """Score the units of the slices; yield a line for each as it is done, in any order."""
        self._start()
        gpus, cpus = replica_needs(context.config)
        # Nothing joins the Ray that this command has just started on this machine.
        wait_s = 0.0 if self._alone else context.config.machine_wait_s
        require_machine(gpus, cpus, wait_s, self._out.write)
        cores = int(resources().get("CPU", 1))
        items = [slice_row(piece, files[piece.file]) for piece in slices]
        units = sum(len(piece.units) for piece in slices)
        stream = (
            ray.data.from_items(items, override_num_blocks=len(items))
            # Readers take no CPU slot: on a machine without GPUs the actors hold them all.
            .map_batches(
                partial(_read, config=context.config, texts=ray.put(texts), schema=context.schema),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=1 if gpus else 0,
                compute=TaskPoolStrategy(size=max(1, min(len(items), cores // 2))),
            )
            .map_batches(
                ScoreUnits,
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=cpus,
                num_gpus=gpus,
                compute=pool(context.config, gpus, cpus, units, calls=CALLS),
                fn_constructor_args=(context, load, was_restarted),
            )
        )
        with JobMeter(context.config.output, units) as meter:
            for line in _lines(stream):
                meter.count(line)
                yield line

    def gpus_per_replica(self, config: RerankJobConfig) -> float:
        """Return how many GPUs each copy of the model takes."""
        self._start()
        return replica_needs(config)[0]

    def run_tasks(
        self, items: list[dict[str, Any]], task: Callable[[dict[str, Any]], dict[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Run the task on each item; yield a line for each as it is done."""
        if items:
            self._start()
            blocks = min(len(items), _MOST_TASKS)
            stream = ray.data.from_items(items, override_num_blocks=blocks)
            yield from _lines(stream.map(partial(_guarded, task=task)))


def _read(
    batch: Any, config: RerankJobConfig, texts: Any, schema: pa.Schema | None
) -> Iterator[pa.Table]:
    # One copy of the texts per machine, shared by all readers on it.
    try:
        yield from read_slice(batch, config, ray.get(texts), schema)
    except RerankError as error:
        yield failed_row(error)


def _guarded(
    row: dict[str, Any], task: Callable[[dict[str, Any]], dict[str, str]]
) -> dict[str, str]:
    try:
        return task(row)
    except RerankError as error:
        return {"line": failure_line(error)}


def _lines(stream: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    batches: Iterator[Any] = iter(
        stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    )
    for batch in batches:
        # A block without rows has no columns.
        texts = batch["line"].to_pylist() if "line" in batch.column_names else []
        yield from map(read_line, texts)
