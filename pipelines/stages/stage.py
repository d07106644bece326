"""`pipelines.rerank` for each kind of rows. It does not know how a table is reranked."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from pipelines.config import StageConfig
from pipelines.inputs.schemas import check_stage
from pipelines.stages.rerank_tables import RerankTables
from rerank_core import InvalidRequest, load_scorer

_ROW = "__rerank_row"


def rerank(rows: Any, options: dict[str, Any]) -> Any:
    """Return the rows with scores and ranks, of the same kind; see `pipelines.rerank`."""
    try:
        config = StageConfig(**options)
    except ValidationError as error:
        found = error.errors()[0]
        name = ".".join(str(part) for part in found["loc"])
        raise InvalidRequest(f"{name}: {found['msg']}", name) from None
    if isinstance(rows, pa.Table):
        return _rerank_table(rows, config)
    kind = f"{type(rows).__module__.partition('.')[0]}.{type(rows).__name__}"
    if kind == "pandas.DataFrame":
        return _rerank_frame(rows, config)
    if hasattr(rows, "map_batches"):
        from pipelines.stages.ray_dataset import rerank_dataset  # here: others need no Ray

        return rerank_dataset(rows, config, load_scorer)
    raise InvalidRequest(f"takes a Ray data set, pyarrow table or pandas frame, not {kind}", "data")


def _rerank_table(table: pa.Table, config: StageConfig) -> pa.Table:
    """Return the rows with scores and ranks, scored in this process."""
    return _kept_loaded(config)(table)


def _rerank_frame(frame: Any, config: StageConfig) -> Any:
    """Do the same with a pandas frame: its other columns and its index stay as they are."""
    names = config.names
    used = [names.query_id, names.query, names.candidates, names.doc_id, names.text]
    there = [name for name in frame.columns if name in used]
    try:
        table = pa.Table.from_pandas(frame[there], preserve_index=False)
    except (pa.ArrowException, TypeError) as error:
        # pyarrow's own words hold the value.
        raise InvalidRequest(
            f"columns {', '.join(there)} hold values of several types: {type(error).__name__}",
            "names",
        ) from None
    others = [pa.field(str(name), pa.null()) for name in frame.columns if name not in there]
    check_stage(pa.schema([*table.schema, *others]), config)
    out = _rerank_table(table.append_column(_ROW, pa.array(np.arange(len(frame)))), config)
    ranked = frame.iloc[out[_ROW].to_numpy()].copy()
    for name in out.column_names:
        if name == names.candidates or name not in (*there, _ROW):
            values = out[name].to_pandas()
            # Whether or not a rank is missing.
            values = values.astype("Int32") if name == names.rank else values
            ranked[name] = values.set_axis(ranked.index)
    return ranked


@lru_cache(maxsize=1)
def _kept_loaded(config: StageConfig) -> RerankTables:
    """Return the stage for these settings; the model of the last ones stays in memory."""
    return RerankTables(config)
