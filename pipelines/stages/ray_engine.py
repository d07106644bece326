"""The Ray Data graphs: read and score units, then merge queries that lie in several units.

Ray Data schedules, streams, retries and bounds memory. It carries units in and lines of counts out;
results go to files from the workers. Nothing here knows how a pair is scored.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from pipelines.config import RerankJobConfig
from pipelines.engine import JobContext, LoadScorer
from pipelines.inputs.joins import Texts
from pipelines.inputs.listing import InputFile
from pipelines.inputs.units import Slice
from pipelines.stages.failures import failure_line, read_line
from pipelines.stages.read import failed_row, read_slice, slice_row
from pipelines.stages.score import ScoreUnits
from rerank_core import InvalidRequest, RerankError

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
    """Runs the stages on Ray, inside a `with` block."""

    def __init__(self) -> None:
        self._started = False
        self._former: dict[str, Any] = {}

    def __enter__(self) -> RayEngine:
        """Join the running Ray or the cluster of RAY_ADDRESS, else start one on this machine."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._started = not ray.is_initialized()
        if self._started:
            # A bare init would join any cluster that happens to run on this machine.
            address = os.environ.get("RAY_ADDRESS", "local")
            with _own_sigterm():
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        context = DataContext.get_current()
        self._former = {name: getattr(context, name) for name in _SETTINGS}
        for name, value in _SETTINGS.items():
            setattr(context, name, value)
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
        return self

    def __exit__(self, *error: object) -> None:
        for name, value in self._former.items():
            setattr(DataContext.get_current(), name, value)
        if self._started:
            ray.shutdown()

    def score_units(
        self,
        context: JobContext,
        slices: list[Slice],
        files: list[InputFile],
        texts: Texts | None,
        load: LoadScorer,
    ) -> Iterator[dict[str, Any]]:
        """Score the units of the slices; yield a line for each as it is done, in any order."""
        gpus, cpus = _replica_needs(context.config)
        cores = int(_resources().get("CPU", 1))
        items = [slice_row(piece, files[piece.file]) for piece in slices]
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
                compute=_pool(
                    context.config, gpus, cpus, sum(len(piece.units) for piece in slices)
                ),
                fn_constructor_args=(context, load),
            )
        )
        yield from _lines(stream)

    def run_tasks(
        self, items: list[dict[str, Any]], task: Callable[[dict[str, Any]], dict[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Run the task on each item; yield a line for each as it is done."""
        if items:
            blocks = min(len(items), _MOST_TASKS)
            stream = ray.data.from_items(items, override_num_blocks=blocks)
            yield from _lines(stream.map(partial(_guarded, task=task)))


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what the program does on SIGTERM: starting Ray sets a handler of Ray's own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


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


def _replica_needs(config: RerankJobConfig) -> tuple[float, float]:
    gpus = config.gpus_per_replica
    if gpus is None:
        gpus = 1.0 if _resources().get("GPU", 0) else 0.0
    return gpus, float(config.cpus_per_replica)


def _resources() -> dict[str, float]:
    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def _pool(config: RerankJobConfig, gpus: float, cpus: float, units: int) -> ActorPoolStrategy:
    """Return the pool that the config asks for, but no more replicas than there are units."""
    resources = _resources()
    room = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / cpus
    if config.replicas == "auto":
        return ActorPoolStrategy(size=max(1, min(int(room), units)))
    low, _, high = config.replicas.partition(":")
    if not high:
        return ActorPoolStrategy(size=min(int(low), units))
    if int(high) < int(low):
        raise InvalidRequest(f"replicas {config.replicas}: the second number is the larger one")
    least, most = min(int(low), units), min(int(high), units)
    start = min(most, max(least, int(room)))
    return ActorPoolStrategy(min_size=least, max_size=most, initial_size=start)
