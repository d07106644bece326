"""What a job's plan is, and how it is written to plan.json and read again."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.columns import Shape
from pipelines.config import RerankJobConfig
from pipelines.inputs.listing import InputFile
from pipelines.inputs.units import Slice, slices_from_json


@dataclass(frozen=True, slots=True)
class Plan:
    """Files, slices and units of the job, and its identity.

    `left_out` counts what is not read; `texts` is the hash of the tables that texts are looked up
    in. `former` says of a finished job that this one adds to its identity, and how many of the
    first `units` and `files` are its. `keep_scores` stays what it was when the job was planned:
    it decides which units share a file.
    """

    identity: dict[str, str]
    shape: Shape
    files: list[InputFile]
    slices: list[Slice]
    buckets: int
    pairs: int
    schema: pa.Schema | None = None
    left_out: dict[str, Any] = field(default_factory=dict)
    texts: str = ""
    former: dict[str, Any] = field(default_factory=dict)
    keep_scores: bool = True

    @property
    def former_units(self) -> int:
        """How many of the first units are those of a finished job that this one adds to."""
        return int(self.former.get("units", 0))

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each unit, by its name, in plan order."""
        return {unit.name: unit.rows for piece in self.slices for unit in piece.units}

    @property
    def bad_files(self) -> dict[str, str]:
        """Files whose footer could not be read, with the reason."""
        return {file.given: file.bad for file in self.files if file.bad}


def plan_to_json(plan: Plan, config: RerankJobConfig) -> dict[str, Any]:
    """Return the plan, and the settings that it was made by, as plain values."""
    return {
        "identity": plan.identity,
        "shape": plan.shape,
        "buckets": plan.buckets,
        "pairs": plan.pairs,
        "schema": b64encode(plan.schema.serialize()).decode() if plan.schema else None,
        "config": config.model_dump(mode="json"),
        "left_out": plan.left_out,
        "texts": plan.texts,
        "former": plan.former,
        "files": [file.as_json() for file in plan.files],
        "slices": [asdict(piece) for piece in plan.slices],
    }


def plan_from_json(value: Any) -> Plan:
    """Return the plan that `plan_to_json` gave."""
    files = [InputFile(**file) for file in value["files"]]
    slices = slices_from_json(value["slices"])
    body = value.get("schema")
    schema = pa.ipc.read_schema(pa.py_buffer(b64decode(body))) if body else None
    numbers = value["buckets"], value["pairs"]
    left_out = value.get("left_out", {})
    told = left_out, value.get("texts", ""), value.get("former", {})
    keep_scores = value.get("config", {}).get("keep_scores", True)
    return Plan(
        value["identity"], value["shape"], files, slices, *numbers, schema, *told, keep_scores
    )
