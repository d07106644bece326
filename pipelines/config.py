"""RerankJobConfig and StageConfig: everything that a job, or a stage of a pipeline, can be told.

It does not know what is in the input, nor where its values come from.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pipelines.columns import ColumnNames, Shape
from pipelines.commits.store import check_address
from rerank_core import ScorerConfig

ENV_PREFIX = "RERANK_JOB_"


def _comma_separated(value: Any) -> Any:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _local(value: str | None) -> str | None:
    if value and "://" in value:
        raise ValueError("must be a path of a file system, not an address")
    return value


Address = Annotated[str, AfterValidator(check_address)]
LocalPath = Annotated[str, AfterValidator(_local)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]


class _Places(BaseSettings):
    """Where a job's rows come from and go to."""

    input: Names = Field(
        min_length=1,
        description="Files, folders, globs or tables of a lake, separated by commas; TREC runs"
        " too, with --queries and --documents",
    )
    queries: str | None = Field(
        None, description="Table of (query_id, query), where the input holds ids only"
    )
    documents: str | None = Field(
        None, description="Table of (doc_id, text), where the input holds ids only"
    )
    output: Address = Field(
        min_length=1,
        description="A new folder, or one where this job stopped: a path, or an address as"
        " s3://bucket/folder, gs:// or az://",
    )


class RankingConfig(BaseSettings):
    """How rows are scored and ranked, in a job or as one stage of a pipeline."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values given in code alone; `settings.load_config` reads other sources."""
        return (init_settings,)


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


class RerankJobConfig(RankingConfig, _Places):
    """One offline job. Frozen; unknown keys are refused with their path."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        cli_prog_name="python -m pipelines.rerank_job",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_shortcuts={"scorer.model": "model"},
    )

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
    overwrite: bool = Field(
        False, description="Replace a former result of this tool, at the moment of success"
    )
    dry_run: bool = Field(False, description="Print the plan and stop")
