"""plan.json: files, slices and units of a job, fixed once at its start."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from pipelines.columns import Shape
from pipelines.commits.delta_log import refuse_other_types
from pipelines.commits.records import JobFolder
from pipelines.commits.store import Store
from pipelines.config import RerankJobConfig
from pipelines.engine import Engine
from pipelines.identity import refuse_change, versions_of
from pipelines.inputs.conversion import as_parquet
from pipelines.inputs.footers import read_footers
from pipelines.inputs.listing import InputFile, list_inputs
from pipelines.inputs.units import Say, Slice, plan_slices, slices_from_json, slices_to_json
from pipelines.ranks.bucket import bucket_count
from rerank_core import InvalidRequest

# A GPU scores so many in a second or two: less would leave it waiting for what is around a unit.
_PAIRS_ON_CPUS, _PAIRS_ON_GPUS = 2_048, 16_384


@dataclass(frozen=True, slots=True)
class Plan:
    """Files, slices and units of the job, and its identity.

    `left_out` counts what is not read; `texts` is the hash of the tables that texts are looked up
    in.
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

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each unit, by its name, in plan order."""
        return {unit.name: unit.rows for piece in self.slices for unit in piece.units}

    @property
    def bad_files(self) -> dict[str, str]:
        """Files whose footer could not be read, with the reason."""
        return {file.given: file.bad for file in self.files if file.bad}


def make_plan(
    config: RerankJobConfig,
    identity: dict[str, str],
    scratch: Store,
    gpus: Callable[[], float],
    *,
    texts: str = "",
    say: Say | None = None,
) -> Plan:
    """Read the footers and cut the input into units; TREC runs become Parquet in `scratch`.

    `gpus` says how many each copy of the model takes: units are as large as it wants. It is asked
    last, and only where the settings do not say: it may have to start Ray. `say` is told of steps.
    """
    listing = list_inputs(config.input, versions_of(identity))
    left_out = listing.left_out
    if config.queries and config.documents:
        tables = list_inputs((config.queries, config.documents), versions_of(identity))
        for reason, (count, first) in tables.left_out.files.items():
            left_out.add(reason, first, count)
    listed = as_parquet(listing.files, scratch, config, left_out, say=say)
    files, shape, schema, left_out.columns = read_footers(listed, config, say=say)
    if config.format == "delta":
        refuse_other_types(schema, config.columns)
    unit_pairs = config.unit_pairs or (_PAIRS_ON_GPUS if gpus() else _PAIRS_ON_CPUS)
    slices = plan_slices([file.groups for file in files], unit_pairs)
    pairs = sum(group.pairs for file in files for group in file.groups)
    units = sum(len(piece.units) for piece in slices)
    buckets = bucket_count(pairs) if shape == "pairs" and units > 1 else 0
    if buckets and config.scorer.first_stage:
        raise InvalidRequest(
            "a first stage must see all candidates of a query at once, and rows of pairs may lie"
            " anywhere: use the nested shape, one row per query",
            "scorer.first_stage",
        )
    return Plan(identity, shape, files, slices, buckets, pairs, schema, left_out.as_json(), texts)


def fixed_plan(
    folder: JobFolder,
    config: RerankJobConfig,
    identity: dict[str, str],
    workers: Engine,
    *,
    texts: str = "",
    say: Say | None = None,
) -> Plan:
    """Return the folder's plan, making it if there is none. Raises JobChanged for another job."""
    store = folder.store
    fixed = store.read_json("_job/plan.json")
    if fixed is None:
        gpus = partial(workers.gpus_per_replica, config)
        made = make_plan(config, identity, store, gpus, texts=texts, say=say)
        store.create_json("_job/plan.json", _to_json(made, config))
        fixed = store.read_json("_job/plan.json")
    plan = _from_json(fixed)
    refuse_change(plan.identity, identity)
    return plan


def _to_json(plan: Plan, config: RerankJobConfig) -> dict[str, Any]:
    return {
        "identity": plan.identity,
        "shape": plan.shape,
        "buckets": plan.buckets,
        "pairs": plan.pairs,
        "schema": b64encode(plan.schema.serialize()).decode() if plan.schema else None,
        "config": config.model_dump(mode="json"),
        "left_out": plan.left_out,
        "texts": plan.texts,
        "files": [
            {
                "path": f.path,
                "size": f.size,
                "footer": f.footer,
                "bad": f.bad,
                "partition": f.partition,
                "snapshot": f.snapshot,
                "columns": f.columns,
                "source": f.source,
            }
            for f in plan.files
        ],
        "slices": slices_to_json(plan.slices),
    }


def _from_json(value: Any) -> Plan:
    files = [InputFile(**file) for file in value["files"]]
    slices = slices_from_json(value["slices"])
    body = value.get("schema")
    schema = pa.ipc.read_schema(pa.py_buffer(b64decode(body))) if body else None
    numbers = value["buckets"], value["pairs"]
    left_out = value.get("left_out", {})
    told = left_out, value.get("texts", "")
    return Plan(value["identity"], value["shape"], files, slices, *numbers, schema, *told)
