"""RerankJobConfig and StageConfig: everything that a job, or a stage of a pipeline, can be told.

It does not know what is in the input, nor where its values come from.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from pipelines.columns import ColumnNames, Shape
from pipelines.places import LocalPath, Names, Places
from rerank_core import ScorerConfig


class RankingConfig(BaseModel):
    """How rows are scored and ranked, in a job or as one stage of a pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: int | None = Field(None, ge=1, description="How many to keep per query (all)")
    scorer: ScorerConfig = Field(
        default_factory=lambda: ScorerConfig(), description="How pairs are scored, as online"
    )
    names: ColumnNames = Field(
        default_factory=lambda: ColumnNames(), description="What your columns are called"
    )
    replicas: str = Field(
        "auto",
        pattern=r"^(auto|[1-9]\d*(:[1-9]\d*)?)$",
        description="Copies of the model: auto (all GPUs, else all CPUs), 4, or 1:8 to scale",
    )
    gpus_per_replica: float | None = Field(
        None, ge=0, description="GPUs per copy; 0.5 puts two on one; empty: 1 if there are GPUs"
    )
    cpus_per_replica: int = Field(1, ge=1, description="CPU cores per copy")
    max_text_chars: int = Field(
        200_000,
        ge=1,
        description="Longer texts are cut before tokenising; none has that many tokens that count",
    )

    @property
    def added_columns(self) -> dict[str, str]:
        """The columns that are added, by their field in `names`."""
        added = ["score", "rank"]
        if self.scorer.calibration:
            added.append("calibrated_score")
        if self.scorer.long_documents == "split":
            added.append("passage")
        return {field: str(getattr(self.names, field)) for field in added}


class StageConfig(RankingConfig):
    """One stage of a pipeline, as `pipelines.rerank` takes it. Frozen; unknown keys are refused."""

    shape: Shape | None = Field(None, description="pairs or nested; empty: known from the columns")
    grouped: bool = Field(
        False, description="Whether all pairs of a query lie side by side in one block"
    )
    batch_rows: int | None = Field(None, ge=1, description="Rows that are scored in one call")
    reason_column: str = Field(
        "reason", min_length=1, description="Column that says why a row has no score"
    )
    fingerprint_column: str | None = Field(
        "score_fingerprint", min_length=1, description="Column that says which scores are alike"
    )


class RerankJobConfig(RankingConfig, Places):
    """One offline job. Frozen; unknown keys are refused with their path."""

    columns: Names | None = Field(
        None, description="Input columns to keep in the output, separated by commas (all)"
    )
    duplicates: Literal["keep", "set_aside", "refuse"] = Field(
        "keep",
        description="A document that a query has twice, by ids: keep both, set all but the first"
        " aside, or end without success and say how many",
    )
    unit_pairs: int | None = Field(
        None,
        ge=1,
        description="Pairs in one unit of work: the most that is done again after a crash, and the"
        " pool that is sorted by length; empty: 2,048 on CPUs, 16,384 on GPUs",
    )
    file_size: ByteSize | None = Field(
        None,
        gt=0,
        le=5_000_000_000,  # what object stores copy in one request
        description="Size of output files, such as 128MB: units' files are joined up to it at the"
        " end; empty: 256MB, and a file per unit for nested rows",
    )
    machine_wait_s: float = Field(
        30.0,
        ge=0,
        description="Seconds to wait for a machine that can hold a copy of the model, where none"
        " of a cluster can; raise it where machines come on demand",
    )
    max_bad_files: int = Field(
        0, ge=0, description="Unreadable files to tolerate; with more, the job ends without success"
    )
    max_killed_rows: int = Field(
        100, ge=0, description="Rows that kill or hang their process to set aside before giving up"
    )
    unit_timeout_s: float = Field(
        3600.0,
        gt=0,
        description="Seconds after which a unit counts as hanging, at most: as soon as others are"
        " done, 50 times their median is enough, a minute at least",
    )
    progress_s: float = Field(10.0, gt=0, description="Seconds between progress lines in logs")
    trec_run: LocalPath | None = Field(
        None, description="Also write the ranking as a TREC run here"
    )
    json_lines: LocalPath | None = Field(
        None, description="Also write the result as JSON Lines here; for small results"
    )
    format: Literal["parquet", "delta"] = Field(
        "parquet", description="delta: the output's data folder is a Delta table, too"
    )
    keep_scores: bool = Field(
        True,
        description="Keep raw scores and hashes of texts in the output's files, about 57 bytes a"
        " pair that readers do not see: append and reuse need them; fixed when the job begins",
    )
    overwrite: bool = Field(
        False, description="Replace a former result of this tool, at the moment of success"
    )
    dry_run: bool = Field(False, description="Print the plan and stop")

    @model_validator(mode="after")
    def _one_way_to_a_new_result(self) -> Self:
        if self.append and self.overwrite:
            raise ValueError(
                "append adds to the finished result that overwrite replaces: give one of them"
            )
        return self
