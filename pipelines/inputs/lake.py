"""Tables of a lake: files that only their log says how to read. Delta is read as its snapshot.

Read as plain files, such a table brings deleted and replaced rows back. What cannot be read as its
current snapshot is refused. It does not know what is in the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rerank_core import InvalidRequest

# Reader features of Delta whose tables are more than their files.
_PLAIN = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
_EXPORT = "export its current rows as Parquet or Delta and give that"


def lake_tables(paths: Sequence[Sequence[str]]) -> dict[tuple[str, ...], str]:
    """Return the folders that are tables of a lake, and of which kind, from files' path parts."""
    found = {}
    for parts in paths:
        for place, part in enumerate(parts[:-1]):
            kind = {"_delta_log": "Delta", ".hoodie": "Hudi"}.get(part)
            if part == "metadata" and parts[-1].endswith(".metadata.json"):
                kind = "Iceberg"
            if kind:
                found[tuple(parts[:place])] = kind
    return found


def refuse_part_of_table(address: str, tables: dict[tuple[str, ...], str]) -> None:
    """Raise InvalidRequest for an input that takes files out of tables."""
    for folder, kind in sorted(tables.items()):
        where = "/".join([address.rstrip("/"), *folder])
        raise InvalidRequest(
            f"{where} is a {kind} table: read as plain files, rows that were deleted come back."
            f" Give the table's folder itself as an input, or {_EXPORT}",
            "input",
        )


def snapshot_files(address: str, kind: str) -> Iterator[tuple[str, int, dict[str, Any], str]]:
    """Yield path below the table, bytes, partition values and snapshot of each current file.

    Raises InvalidRequest for a table that is more than its files, with the way out.
    """
    if kind != "Delta":
        raise InvalidRequest(
            f"{address} is a{'n' if kind == 'Iceberg' else ''} {kind} table, which cannot be read"
            f" yet: as plain files, rows that were deleted come back; {_EXPORT}",
            "input",
        )
    try:
        from deltalake import DeltaTable
    except ImportError:
        raise InvalidRequest(
            f"{address} is a Delta table; reading it needs the extra `delta`:"
            " pip install 'ray-rerank[delta]'",
            "input",
        ) from None
    table: Any = DeltaTable(address)
    features = set(table.protocol().reader_features or ()) - _PLAIN
    if features:
        raise InvalidRequest(
            f"{address} uses {', '.join(sorted(features))}, with which its files are not its rows:"
            f" rewrite it without (REORG TABLE ... APPLY (PURGE) in Spark), or {_EXPORT}",
            "input",
        )
    actions = table.get_add_actions(flatten=True)
    columns = {name: actions.column(name).to_pylist() for name in actions.schema.names}
    names = table.metadata().partition_columns
    for row, path in enumerate(columns["path"]):
        values = {name: columns[f"partition.{name}"][row] for name in names}
        yield path, columns["size_bytes"][row], values, f"Delta version {table.version()}"
