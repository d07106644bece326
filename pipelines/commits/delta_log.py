"""The finished result as a Delta table: a log beside its files, which are not written again.

The log's first entry is put where none is, so it is there whole or not at all. It does not know
what is in the files but for their types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.commits.records import DATA
from pipelines.commits.store import Store
from pipelines.retries import first_line
from rerank_core import InvalidRequest, RerankError

LOG = "_delta_log"
# As our own store connects: the rest is in the environment, the endpoint's own address says http.
_OPTIONS = {"allow_http": "true"}


def refuse_other_types(schema: pa.Schema, columns: Sequence[str] | None) -> None:
    """Raise InvalidRequest for a column whose values Delta has no type for, with the way out.

    Of those that the job reads only `columns` come out, or all.
    """
    deltalake = _library()
    kept = None if columns is None else {name.partition(".")[0] for name in columns} | {*columns}
    for field in schema:
        if kept is not None and field.name not in kept:
            continue
        try:
            deltalake.Schema.from_arrow(pa.schema([field]))
            lost = _loses(field.type)
        except Exception:  # whatever the library raises, it has no such type
            lost = True
        if lost:
            raise InvalidRequest(
                f"column {field.name}: Delta has no type that holds every {field.type}; give"
                " --columns without it, or --format parquet",
                "format",
            )


def _loses(kind: Any) -> bool:
    """Say whether Delta reads other values of this type than were written."""
    if pa.types.is_nested(kind):
        return any(_loses(kind.field(place).type) for place in range(kind.num_fields))
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_null(kind):
        return True
    finest = pa.types.is_timestamp(kind) and kind.unit == "ns"
    return bool(finest or pa.types.is_unsigned_integer(kind))


def write_delta_log(store: Store) -> None:
    """Make the data folder of a finished job a Delta table, unless it is one or has no file."""
    if store.children(f"{DATA}/{LOG}") or not store.names(DATA, ".parquet", 1):
        return
    try:
        _library().convert_to_deltalake(
            store.address(DATA), mode="ignore", storage_options=_OPTIONS
        )
    except Exception as error:  # whatever the library raises, there is no log
        raise RerankError(
            f"the result is complete, but not its Delta log: {first_line(error)}; the same command"
            " again writes it"
        ) from None


def _library() -> Any:
    try:
        import deltalake
    except ImportError:
        raise InvalidRequest(
            "--format delta needs the extra `delta`: pip install 'ray-rerank[delta]'", "format"
        ) from None
    return deltalake
