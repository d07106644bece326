"""One run's record on disk, its sizes and its time. It does not know what is measured."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. `rounds_s`: seconds that one figure's repetitions may take."""

    layers: int
    hidden: int
    heads: int
    pool_tokens: int
    documents: tuple[int, ...]
    document_tokens: tuple[int, ...]
    table: tuple[tuple[int, int], ...]
    batch_sizes: tuple[int, ...]
    matmul: int
    rounds_s: float


FULL = Sizes(
    layers=24,
    hidden=1024,
    heads=16,
    pool_tokens=1_000_000,
    documents=(1, 10, 30, 100),
    document_tokens=(100, 400),
    table=((10, 512), (20, 1024), (5, 8192)),
    batch_sizes=(32, 128, 256, 512),
    matmul=8192,
    rounds_s=2.0,
)
# Every line of the benchmark runs, in seconds and on a CPU; its figures mean nothing.
DRY = Sizes(
    layers=2,
    hidden=64,
    heads=4,
    pool_tokens=600,
    documents=(1, 3),
    document_tokens=(20,),
    table=((2, 64), (1, 128)),
    batch_sizes=(2, 4),
    matmul=128,
    rounds_s=0.0,
)


@dataclass(frozen=True, slots=True)
class Session:
    """Where figures go and what they are taken on.

    `file` holds every figure so far. `until_s` is the time (of `time.time`) at which the part
    under way must have ended; `work` a folder for checkpoints that parts share.
    """

    file: Path
    work: Path
    device: str
    until_s: float
    sizes: Sizes = FULL

    @property
    def dry(self) -> bool:
        """Whether this is a dry run."""
        return self.sizes is DRY

    @property
    def dtype(self) -> str:
        """The precision that a GPU serves in; a CPU's own in a dry run."""
        return "bfloat16" if self.device.startswith("cuda") else "float32"

    @property
    def left_s(self) -> float:
        """Seconds that the part under way still has."""
        return self.until_s - time.time()

    def record(self, part: str, name: str, figures: Any) -> None:
        """Write figures to the file, at once: what comes later may not end."""
        result = read(self.file)
        result.setdefault("parts", {}).setdefault(part, {})[name] = figures
        write(self.file, result)
        print(f"{part}: {name}: {json.dumps(figures)}", flush=True)

    def attempt(self, part: str, name: str, measure: Callable[[], Any], need_s: float = 0) -> None:
        """Record what `measure` returns; where it fails or lacks time, why.

        One thing that a machine cannot do must not cost the figures behind it.
        """
        if self.left_s < need_s:
            self.record(part, name, {"skipped": f"it needs {need_s:.0f} s; {self.left_s:.0f} left"})
            return
        try:
            figures = measure()
        except Exception as error:
            line = (str(error).strip().splitlines() or [""])[0]
            # What says that it is not for this machine has not failed. By name: importing it takes
            # what a machine may have only once its wheels are unpacked.
            refused = type(error).__name__ == "ModelUnavailable"
            kind, said = ("refused", "") if refused else ("failed", f"{type(error).__name__}: ")
            figures = {kind: f"{said}{line[:300]}"}
        self.record(part, name, figures)


def read(file: Path) -> dict[str, Any]:
    """Return the figures so far."""
    if not file.exists():
        return {}
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


def write(file: Path, result: dict[str, Any]) -> None:
    """Replace the file in one step, so that a killed run leaves a whole one."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, file)
