"""The commit: finished units become the result, and the manifest says so.

The same checks stand before the commit and behind `verify`. It does not know what is scored.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from pipelines.commits import store
from pipelines.commits.records import (
    BALANCE,
    DATA,
    MANIFEST,
    QUARANTINE,
    SUCCESS,
    JobFolder,
    JobRecords,
)
from rerank_core import RerankError


class Incomplete(RerankError):
    """The records do not add up to the plan, so nothing is committed."""


def totals(records: list[dict[str, Any]]) -> dict[str, int]:
    """Add up the counts of records."""
    keys = sorted(BALANCE.union(*(record["counts"] for record in records)))
    return {key: sum(record["counts"].get(key, 0) for record in records) for key in keys}


def check_conservation(name: str, counts: dict[str, int]) -> None:
    """Raise Incomplete unless everything that went in came out, was cut by top_k or set aside."""
    for kind in ("rows", "pairs"):
        went_in = counts[f"{kind}_in"]
        out, cut, aside = (counts[f"{kind}_{end}"] for end in ("out", "cut", "quarantined"))
        if went_in != out + cut + aside:
            raise Incomplete(
                f"{name}: {kind} in {went_in} != out {out} + cut by top_k {cut} + set aside {aside}"
            )


def commit(
    folder: JobFolder, planned: dict[str, int], records: JobRecords, header: dict[str, Any]
) -> dict[str, Any]:
    """Turn finished units into the result. Idempotent: a killed commit is finished by the next.

    `planned` maps unit names to their rows. Raises Incomplete when a record is missing or counts
    do not add up; then nothing has changed.
    """
    folder.refuse_if_fenced()
    manifest = store.read_json(folder.root / MANIFEST)
    if manifest is None:
        manifest = {**header, **checked(planned, records)}
        _sweep(folder, manifest)
        store.replace(folder.root / MANIFEST, store.json_bytes(manifest))
    for work, place in (("data", DATA), ("quarantine", QUARANTINE)):
        if (folder.job / work).is_dir() and not (folder.root / place).exists():
            os.rename(folder.job / work, folder.root / place)
    (folder.root / DATA).mkdir(exist_ok=True)
    store.replace(folder.root / SUCCESS, b"")
    for scratch in ("attempts", "sidecars", "merged"):
        shutil.rmtree(folder.job / scratch, ignore_errors=True)
    return dict(manifest)


def checked(planned: dict[str, int], records: JobRecords) -> dict[str, Any]:
    """Return the manifest's counts and files, taken from the records of a finished job.

    Raises Incomplete with the first thing that does not add up.
    """
    missing = [name for name in planned if name not in records.units]
    if missing:
        raise Incomplete(f"{len(missing)} units have no record, the first is {missing[0]}")
    chosen = {name: records.final.get(name, records.units[name]) for name in planned}
    for name, record in chosen.items():
        check_conservation(f"unit {name}", record["counts"])
        if record["counts"]["rows_in"] != planned[name]:
            raise Incomplete(
                f"unit {name} has {record['counts']['rows_in']} rows; the plan says {planned[name]}"
            )
    counts = totals(list(chosen.values()))
    check_conservation("job", counts)
    files = [{**r["data"], "unit": name} for name, r in chosen.items() if r["data"]]
    if sum(file["rows"] for file in files) != counts["rows_out"]:
        raise Incomplete("the rows of the data files are not the rows that the units put out")
    aside = [{**r["aside"], "unit": name} for name, r in chosen.items() if r.get("aside")]
    return {"counts": counts, "files": files, "quarantine": aside}


def _sweep(folder: JobFolder, manifest: dict[str, Any]) -> None:
    """Delete attempt files that no record names; nobody has ever read them."""
    for work, key in (("data", "files"), ("quarantine", "quarantine")):
        named = {file["file"] for file in manifest[key]}
        place = folder.job / work
        for path in place.iterdir() if place.is_dir() else ():
            if path.name not in named:
                path.unlink()
        absent = [name for name in named if not (place / name).is_file()]
        if absent:
            raise Incomplete(f"{len(absent)} {work} files are missing, the first is {absent[0]}")
