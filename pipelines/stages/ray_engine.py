"""The engine on Ray Data: reads and scores units, and runs the tasks of the steps behind that.

Ray Data schedules, streams, retries and bounds memory. It carries units in and lines of counts out;
results go to files from the workers. Nothing here knows how a pair is scored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
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
from pipelines.stages.failures import (
    READER,
    DeathWatch,
    failure_line,
    named,
    note_death,
    read_line,
    refuse_more,
)
from pipelines.stages.ray_metrics import JobMeter
from pipelines.stages.ray_pool import (
    attempts_before,
    pool,
    reader_cpus,
    replica_needs,
    require_machine,
    resources,
    restarts,
)
from pipelines.stages.ray_start import ControlStoreWatch, connect, disconnect, in_a_line
from pipelines.stages.read import failed_row, read_slice, slice_row
from pipelines.stages.score import CALLS, ScoreUnits

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
        self._watch: ControlStoreWatch | None = None
        self._batches: Any = None

    def __enter__(self) -> RayEngine:
        return self

    def _start(self) -> None:
        """Join the running Ray or the cluster of RAY_ADDRESS, else start one on this machine."""
        if self._former:
            return
        self._started = not ray.is_initialized()
        if self._started:
            self._alone = connect()
            address = ray.get_runtime_context().gcs_address
            self._watch = ControlStoreWatch(address, self._alone, self._out)
        context = DataContext.get_current()
        self._former = {name: getattr(context, name) for name in _SETTINGS}
        for name, value in _SETTINGS.items():
            setattr(context, name, value)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failed = error and in_a_line(error)
        if self._batches:
            # Left open by an error, it would end after Ray has, and start another one for that.
            self._batches.close()
        for name, value in self._former.items():
            setattr(DataContext.get_current(), name, value)
        if self._watch:
            self._watch.stop()
        if self._started:
            disconnect(self._alone)
        if failed:
            raise failed from error

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
        units = sum(len(piece.units) for piece in slices)
        copies = pool(context.config, gpus, cpus, units, calls=CALLS)
        items = [slice_row(piece, files[piece.file]) for piece in slices]
        readers = max(1, min(len(items), int(resources().get("CPU", 1)) // 2))
        stream = (
            ray.data.from_items(items, override_num_blocks=len(items))
            .map_batches(
                partial(_read, context=context, texts=ray.put(texts)),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=reader_cpus(gpus, cpus, copies.max_size, readers),
                compute=TaskPoolStrategy(size=readers),
            )
            .map_batches(
                ScoreUnits,
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=cpus,
                num_gpus=gpus,
                compute=copies,
                fn_constructor_args=(context, load, restarts),
            )
        )
        places = {READER + item["name"]: f"the reader of {item['where']}" for item in items}
        with (
            JobMeter(context.config.output, units) as meter,
            DeathWatch(context.folder, places, self._out.write) as deaths,
        ):
            for number, line in enumerate(self._lines(stream), 1):
                deaths.add_to(line, last=number >= units)
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
            yield from self._lines(stream.map(partial(_guarded, task=task)))

    def _lines(self, stream: ray.data.Dataset) -> Iterator[dict[str, Any]]:
        self._batches = iter(
            stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        )
        for batch in self._batches:
            # A block without rows has no columns.
            texts = batch["line"].to_pylist() if "line" in batch.column_names else []
            yield from map(read_line, texts)


def _read(batch: Any, context: JobContext, texts: Any) -> Iterator[pa.Table]:
    try:
        if deaths := attempts_before():
            # A note and no row of its own: Ray takes what an attempt sends by its place for what a
            # former one has sent.
            note_death(context.folder, READER + batch["name"][0].as_py(), deaths)
            refuse_more(deaths, batch["where"][0].as_py())
        # One copy of the texts per machine, shared by all readers on it.
        yield from read_slice(batch, context.config, ray.get(texts), context.schema)
    except Exception as error:
        yield failed_row(named(error))


def _guarded(
    row: dict[str, Any], task: Callable[[dict[str, Any]], dict[str, str]]
) -> dict[str, str]:
    try:
        refuse_more(attempts_before(), "a step's task")
        return task(row)
    except Exception as error:
        return {"line": failure_line(named(error))}
