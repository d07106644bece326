"""Whether the records of a job add up: the commit asks first, `verify` afterwards."""

from __future__ import annotations

from typing import Any

from pipelines.commits.records import BALANCE, JobRecords
from pipelines.inputs.units import unit_name
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


def checked(planned: dict[str, int], buckets: int, records: JobRecords) -> dict[str, Any]:
    """Return the manifest's counts and files, taken from the records of a finished job.

    `planned` maps unit names to their rows; `buckets` is 0 where no query can lie in two units.
    Raises Incomplete with the first thing that does not add up.
    """
    units = in_plan_order(planned, records)
    _refuse_missing_ranks(buckets, records)
    chosen = {name: records.final.get(name, record) for name, record in units.items()}
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
    files = _packed(files, records.packed) if records.packed else files
    aside = [{**r["aside"], "unit": name} for name, r in chosen.items() if r.get("aside")]
    return {"counts": counts, "files": files, "quarantine": aside}


def _packed(files: list[dict[str, Any]], packed: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the files that hold the rows of these; Incomplete unless each is in just one."""
    groups = [record for _, record in sorted(packed.items())]
    if [unit for group in groups for unit in group["units"]] != [file["unit"] for file in files]:
        raise Incomplete("the files of several units are not of all units, each once, in order")
    rows = {file["unit"]: file["rows"] for file in files}
    for group in groups:
        if group["data"]["rows"] != sum(rows[unit] for unit in group["units"]):
            raise Incomplete(f"{group['data']['file']} has not the rows of its units")
    return [{**group["data"], "unit": group["units"][0]} for group in groups]


def in_plan_order(planned: dict[str, int], records: JobRecords) -> dict[str, dict[str, Any]]:
    """Return the record of every planned unit; raises Incomplete if one has none."""
    missing = [name for name in planned if name not in records.units]
    if missing:
        raise Incomplete(f"{len(missing)} units have no record, the first is {missing[0]}")
    return {name: records.units[name] for name in planned}


def _refuse_missing_ranks(buckets: int, records: JobRecords) -> None:
    """Raise Incomplete unless all queries over units are ranked, and written with these ranks."""
    missing = [name for n in range(buckets) if (name := f"{n:06d}") not in records.ranks]
    if missing:
        raise Incomplete(
            f"{len(missing)} of {buckets} buckets of queries are not ranked over units, the first"
            f" is {missing[0]}; the same command again ranks them"
        )
    ranked, scattered = (
        sum(record["rows"] for record in stage.values())
        for stage in (records.ranks, records.scattered)
    )
    if ranked != scattered:
        raise Incomplete(
            f"{ranked:,} rows are ranked over units, the ranks of {scattered:,} have reached their"
            " units; the same command again ends this"
        )
    touched = {unit_name(u) for record in records.scattered.values() for u in record["touched"]}
    unwritten = sorted(touched - records.final.keys())
    if unwritten:
        raise Incomplete(
            f"{len(unwritten)} units are not written with their final ranks, the first is"
            f" {unwritten[0]}; the same command again writes them"
        )
