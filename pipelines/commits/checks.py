"""Whether the records of a job add up: the commit asks first, `verify` afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipelines.commits.records import BALANCE, JobRecords
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
    chosen = replace(records, units=units).newest()
    for name, record in chosen.items():
        check_conservation(f"unit {name}", record["counts"])
        if record["counts"]["rows_in"] != planned[name]:
            raise Incomplete(
                f"unit {name} has {record['counts']['rows_in']} rows; the plan says {planned[name]}"
            )
    counts = totals(list(chosen.values()))
    check_conservation("job", counts)
    files = _files(chosen, records.final, may_be_own=not buckets)
    if sum(file["rows"] for file in files) != counts["rows_out"]:
        raise Incomplete("the rows of the data files are not the rows that the units put out")
    asides = [(name, r["aside"]) for name, r in chosen.items() if r.get("aside")]
    asides += [(next(iter(g["units"])), g["aside"]) for g in records.final.values() if g["aside"]]
    quarantine = [{**aside, "unit": name} for name, aside in asides]
    return {"counts": counts, "files": files, "quarantine": quarantine}


def _files(
    chosen: dict[str, dict[str, Any]], final: dict[str, dict[str, Any]], *, may_be_own: bool
) -> list[dict[str, Any]]:
    """Return the files that hold the units' rows: their own, or those of several units each.

    Raises Incomplete unless every unit with rows is in just one.
    """
    own = {name: record["data"] for name, record in chosen.items() if record["data"]}
    if may_be_own and not final:
        return [{**data, "unit": name} for name, data in own.items()]
    groups = [record for _, record in sorted(final.items())]
    if [unit for group in groups for unit in group["units"]] != list(own):
        raise Incomplete(
            "the files of several units are not of all units, each once, in order; the same"
            " command again writes those that are missing"
        )
    for number, group in enumerate(groups):
        rows = sum(chosen[unit]["counts"]["rows_out"] for unit in group["units"])
        if (group["data"] or {"rows": 0})["rows"] != rows:
            raise Incomplete(f"file {number} of several units has not the rows of its units")
    return [{**g["data"], "unit": next(iter(g["units"]))} for g in groups if g["data"]]


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
