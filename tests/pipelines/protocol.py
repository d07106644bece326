"""Runs jobs in this process, without Ray, and kills them at any file operation."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from pipelines.config import RerankJobConfig
from pipelines.engine import Engine, JobContext, LoadScorer
from pipelines.inputs.joins import Texts
from pipelines.inputs.listing import InputFile
from pipelines.inputs.paths import open_filesystem
from pipelines.inputs.units import Slice
from pipelines.rerank_job import run_job
from pipelines.stages.failures import read_line
from pipelines.stages.read import read_slice, slice_row
from pipelines.stages.score import ScoreUnits
from rerank_core import ScorerConfig, load_scorer

LEXICAL = ScorerConfig(model="lexical")


class InProcess:
    """The engine without Ray: one actor, one thread, units in plan order."""

    def score_units(
        self,
        context: JobContext,
        slices: list[Slice],
        files: list[InputFile],
        texts: Texts | None,
        load: LoadScorer,
    ) -> Iterator[dict[str, Any]]:
        actor = ScoreUnits(context, load)
        for piece in slices:
            batch = pa.Table.from_pylist([slice_row(piece, files[piece.file])])
            for unit in read_slice(batch, context.config, texts, context.schema):
                yield read_line(actor(unit)["line"][0].as_py())

    def gpus_per_replica(self, config: RerankJobConfig) -> float:
        return config.gpus_per_replica or 0.0

    def run_tasks(
        self, items: list[dict[str, Any]], task: Callable[[dict[str, Any]], dict[str, str]]
    ) -> Iterator[dict[str, Any]]:
        for item in items:
            yield read_line(task(item)["line"])


class Stop(Exception):
    """The machine is gone."""


class StopAfter(InProcess):
    """Stops when so many units are scored."""

    def __init__(self, units: int) -> None:
        self.units = units

    def score_units(self, *arguments: Any) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(super().score_units(*arguments)):
            yield line
            if number + 1 == self.units:
                raise Stop


class Counting:
    """Loads a scorer that counts the pairs it is given."""

    def __init__(self) -> None:
        self.pairs = 0

    def __call__(self, config: ScorerConfig) -> Any:
        scorer: Any = load_scorer(config)
        plain = scorer.score

        def score(pairs: list[Any]) -> Any:
            self.pairs += len(pairs)
            return plain(pairs)

        scorer.score = score
        return scorer


def job(
    folder: Path,
    out: Path | str,
    load: LoadScorer = load_scorer,
    *,
    engine: Engine | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Run a job to its end or its death; return the manifest."""
    options: dict[str, Any] = {"scorer": LEXICAL, "unit_pairs": 100} | changes
    config = RerankJobConfig(input=(str(folder),), output=str(out), **options)
    return run_job(config, load, io.StringIO(), engine or InProcess())


def rows_of(out: Path | str) -> list[dict[str, Any]]:
    """All result rows as any reader sees them, sorted."""
    filesystem, path = open_filesystem(str(out))
    rows = pads.dataset(path, filesystem=filesystem).to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["query_id"], row["doc_id"], row["rank"]))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Killed(BaseException):
    """The process is dead: nothing that it tries to do to a file afterwards happens."""


class KillSwitch:
    """Counts changes to files under a folder, and from the n-th on lets none happen."""

    def __init__(self, kill: Callable[[], None] | None = None) -> None:
        self._folder, self._left, self._kill = "", -1, kill
        self._error: BaseException = Killed()
        self.count = 0
        sys.addaudithook(self._audit)

    def arm(self, folder: Path, after: int = -1, error: BaseException | None = None) -> None:
        self._folder, self._left, self.count = str(folder), after, 0
        self._error = error or Killed()

    def disarm(self) -> None:
        self._folder = ""

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._folder or event not in {
            "open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"
        }:  # fmt: skip
            return
        if event == "open" and not (
            isinstance(arguments[1], str) and set(arguments[1]) & set("wxa")
        ):
            return
        if not str(arguments[0]).startswith(self._folder) or "heartbeats" in str(arguments[0]):
            return
        if isinstance(self._error, OSError) and event in {"os.remove", "os.rmdir", "shutil.rmtree"}:
            return  # a full disk still deletes
        self.count += 1
        if 0 <= self._left < self.count:
            if self._kill:
                self._kill()
            raise self._error


def forget_owner(out: Path) -> None:
    """As if the process that held the folder were gone."""
    for folder in (out, out.with_name(f".{out.name}.next")):
        shutil.rmtree(folder / "_job" / "heartbeats", ignore_errors=True)
