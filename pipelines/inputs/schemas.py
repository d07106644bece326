"""Whether the columns of an input can be reranked, and of which shape they are.

It knows a schema and settings, and nothing of files.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipelines.columns import ColumnNames, Shape
from pipelines.config import RankingConfig, RerankJobConfig, StageConfig
from rerank_core import InvalidRequest


def find_shape(schema: pa.Schema, config: RerankJobConfig) -> Shape:
    """Recognise a job's pairs or nested rows; InvalidRequest says what is wrong.

    Where texts are looked up in other tables, the input must not have any.
    """
    names = config.names
    shape: Shape = "nested" if names.candidates in schema.names else "pairs"
    if config.queries:
        shape = "pairs"
        schema = _with_texts(schema, names)
    inner = check_columns(schema, shape, config)
    _refuse_unknown(set(schema.names) | {f"{names.candidates}.{name}" for name in inner}, config)
    if config.trec_run:
        _require_ids_in_output(shape, config)
    return shape


def check_columns(schema: pa.Schema, shape: Shape, config: RankingConfig) -> set[str]:
    """Raise InvalidRequest where these columns cannot be ranked; return the candidates' fields."""
    names = config.names
    inner: set[str] = set()
    if shape == "nested":
        inner = _candidate_fields(schema, names)
    else:
        _require(schema, [names.query_id, names.query, names.doc_id, names.text])
    _refuse_taken(inner if shape == "nested" else set(schema.names), config)
    _refuse_kinds(schema, shape, names)
    return inner


def shape_of(schema: Any, config: StageConfig) -> Shape:
    """Return the shape of a stage's rows: as the settings say, else nested if there is a list."""
    return config.shape or ("nested" if config.names.candidates in schema.names else "pairs")


def check_stage(schema: pa.Schema, config: StageConfig) -> Shape:
    """Return the shape of a stage's rows. Raises InvalidRequest where they cannot be ranked."""
    shape = shape_of(schema, config)
    inner = check_columns(schema, shape, config)
    for name in (config.reason_column, config.fingerprint_column):
        if name in schema.names or (name in inner and name == config.reason_column):
            raise InvalidRequest(
                f"the rows already have a {name}; give the new one another name with"
                " reason_column or fingerprint_column",
                "reason_column",
            )
    if shape == "pairs" and config.scorer.first_stage:
        raise InvalidRequest(
            "a first stage must see all candidates of a query at once: use nested rows",
            "scorer.first_stage",
        )
    return shape


def _with_texts(schema: pa.Schema, names: ColumnNames) -> pa.Schema:
    """Return the schema as it is when texts were looked up."""
    _require(schema, [names.query_id, names.doc_id])
    for name in (names.query, names.text):
        if name in schema.names:
            raise InvalidRequest(
                f"the input has a column {name} and --queries would add one; drop either",
                "queries",
            )
        schema = schema.append(pa.field(name, pa.string()))
    return schema


def _refuse_kinds(schema: pa.Schema, shape: Shape, names: ColumnNames) -> None:
    """Refuse ids and texts that are neither text nor a plain value."""
    kinds = {name: schema.field(name).type for name in (names.query_id, names.query)}
    if shape == "nested":
        candidate = schema.field(names.candidates).type.value_type
        kinds |= {f"{names.candidates}.{f.name}": f.type for f in candidate}
        inner = (f"{names.candidates}.{name}" for name in (names.doc_id, names.text))
    else:
        inner = (name for name in (names.doc_id, names.text))
        kinds |= {name: schema.field(name).type for name in (names.doc_id, names.text)}
    plain = {names.query_id, names.query, *inner}
    for name, kind in kinds.items():
        if name in plain and pa.types.is_nested(kind):
            raise InvalidRequest(
                f"column {name} must be text or a plain value, not {kind}", "names"
            )


def _require_ids_in_output(shape: Shape, config: RerankJobConfig) -> None:
    """Refuse a TREC run of a job whose output would not have the ids that it needs."""
    names = config.names
    kept = config.columns
    if kept is None:
        return
    inner = [name for name in kept if name.startswith(f"{names.candidates}.")]
    document = f"{names.candidates}.{names.doc_id}" if shape == "nested" else names.doc_id
    wanted = [names.query_id, *([document] if shape == "pairs" or inner else [])]
    missing = [name for name in wanted if name not in kept]
    if missing:
        raise InvalidRequest(f"--trec-run needs {', '.join(missing)} among --columns", "columns")


def _candidate_fields(schema: pa.Schema, names: ColumnNames) -> set[str]:
    _require(schema, [names.query_id, names.query, names.candidates])
    kind = schema.field(names.candidates).type
    if not _is_list(kind) or not pa.types.is_struct(kind.value_type):
        raise InvalidRequest(
            f"column {names.candidates} must be a list of structs, not {kind}", "names"
        )
    fields = [field.name for field in kind.value_type]
    for name in fields:
        if fields.count(name) > 1:
            raise InvalidRequest(
                f"{names.candidates} has the field {name} twice: rename one", "names"
            )
    for name in (names.doc_id, names.text):
        if name not in fields:
            raise InvalidRequest(f"{names.candidates} has no field {name}", "names")
    return set(fields)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _require(schema: pa.Schema, columns: list[str]) -> None:
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise InvalidRequest(
            f"input has no column {', '.join(missing)}; it has {', '.join(schema.names)}."
            " Map your names with names: --names.query-id, --names.text and so on",
            "names",
        )


def _refuse_taken(taken: set[str], config: RankingConfig) -> None:
    for option, name in config.added_columns.items():
        if name in taken:
            raise InvalidRequest(
                f"the input already has a {name}; give the new one another name, for example"
                f" --names.{option.replace('_', '-')} rerank_{option}",
                f"names.{option}",
            )


def _refuse_unknown(known: set[str], config: RerankJobConfig) -> None:
    added = set(config.added_columns.values())
    unknown = [name for name in config.columns or () if name not in known | added]
    if unknown:
        raise InvalidRequest(
            f"--columns names {', '.join(unknown)}; the input has {', '.join(sorted(known))}",
            "columns",
        )


def with_fields(table: pa.Table, names: ColumnNames) -> pa.Table:
    """Return nested rows whose lists, all of them null or empty, have lost their fields, with such.

    A part of a data set knows no types but those of its own values.
    """
    place = table.schema.get_field_index(names.candidates)
    kind = table.schema.field(place).type if place >= 0 else None
    if kind != pa.null() and kind != pa.list_(pa.null()):
        return table
    fields = [pa.field(names.doc_id, pa.string()), pa.field(names.text, pa.string())]
    lists = table[names.candidates].cast(pa.list_(pa.struct(fields)))
    return table.set_column(place, names.candidates, lists)
