"""plan.json: what the job is, fixed once at its start, and whether a later run is the same job."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.commits import JobFolder
from pipelines.config import RerankJobConfig, Shape
from pipelines.file_listing import InputFile, list_files
from pipelines.inputs import read_footers
from pipelines.joins import as_parquet
from pipelines.rank_stage import bucket_count
from pipelines.units import Slice, plan_slices, slices_from_json, slices_to_json
from rerank_core import InvalidRequest, RerankError

# The options that change the output. Others (pool sizes, timeouts) may differ between runs.
_OUTPUT_OPTIONS = ("top_k", "names", "columns", "unit_pairs", "max_text_chars")


class JobChanged(RerankError):
    """The folder holds another job: inputs, model or options differ."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Files, slices and units of the job, and its identity."""

    identity: dict[str, str]
    shape: Shape
    files: list[InputFile]
    slices: list[Slice]
    buckets: int
    pairs: int

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each unit, by its name, in plan order."""
        return {unit.name: unit.rows for piece in self.slices for unit in piece.units}

    @property
    def bad_files(self) -> dict[str, str]:
        """Files whose footer could not be read, with the reason."""
        return {file.path: file.bad for file in self.files if file.bad}


def identity_of(config: RerankJobConfig) -> dict[str, str]:
    """Return what makes two runs the same job: inputs by path and size, scorer, options."""
    tables = tuple(path for path in (config.queries, config.documents) if path)
    listing = [[file.path, file.size] for file in list_files(config.input + tables)]
    options = config.model_dump(mode="json", include=set(_OUTPUT_OPTIONS))
    # Refusing duplicates and setting them aside are the same job: the first only does not end it.
    options["duplicates"] = config.duplicates != "keep"
    calibration = config.scorer.calibration
    if calibration and Path(calibration).is_file():
        options["calibration"] = hashlib.sha256(Path(calibration).read_bytes()).hexdigest()[:16]
    return {"inputs": _hash(listing), "scorer": config.scorer.fingerprint()} | {
        name: json.dumps(value, sort_keys=True) for name, value in options.items()
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def identities_differ(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return the names of what differs between two jobs."""
    return [name for name in sorted(old.keys() | new) if old.get(name) != new.get(name)]


def refuse_change(old: dict[str, str], new: dict[str, str]) -> None:
    """Raise JobChanged that names what differs."""
    changed = identities_differ(old, new)
    if changed:
        raise JobChanged(
            f"this output belongs to another job: {', '.join(changed)} changed since it was"
            " planned. Take a new --output, or --overwrite to replace it at the end"
        )


def make_plan(config: RerankJobConfig, identity: dict[str, str], scratch: Path) -> Plan:
    """Read the footers and cut the input into units; TREC runs become Parquet in `scratch`."""
    listed = list_files(config.input)
    if config.queries:
        listed = as_parquet(listed, scratch, config.names)
    files, shape, _ = read_footers(listed, config)
    slices = plan_slices([file.groups for file in files], config.unit_pairs)
    pairs = sum(group.pairs for file in files for group in file.groups)
    units = sum(len(piece.units) for piece in slices)
    buckets = bucket_count(pairs) if shape == "pairs" and units > 1 else 0
    if buckets and config.scorer.first_stage:
        raise InvalidRequest(
            "a first stage must see all candidates of a query at once, and rows of pairs may lie"
            " anywhere: use the nested shape, one row per query",
            "scorer.first_stage",
        )
    return Plan(identity, shape, files, slices, buckets, pairs)


def fixed_plan(folder: JobFolder, config: RerankJobConfig, identity: dict[str, str]) -> Plan:
    """Return the folder's plan, making it if there is none. Raises JobChanged for another job."""
    path = folder.job / "plan.json"
    if not path.is_file():
        storage.create_json(
            path, _to_json(make_plan(config, identity, folder.job / "input"), config)
        )
    plan = _from_json(storage.read_json(path))
    refuse_change(plan.identity, identity)
    return plan


def _to_json(plan: Plan, config: RerankJobConfig) -> dict[str, Any]:
    return {
        "identity": plan.identity,
        "shape": plan.shape,
        "buckets": plan.buckets,
        "pairs": plan.pairs,
        "config": config.model_dump(mode="json"),
        "files": [
            {
                "path": f.path,
                "size": f.size,
                "footer": f.footer,
                "bad": f.bad,
                "partition": f.partition,
            }
            for f in plan.files
        ],
        "slices": slices_to_json(plan.slices),
    }


def _from_json(value: Any) -> Plan:
    files = [InputFile(**file) for file in value["files"]]
    slices = slices_from_json(value["slices"])
    return Plan(value["identity"], value["shape"], files, slices, value["buckets"], value["pairs"])
