"""RerankJobConfig: everything one offline job can be told.

It does not know what is in the input, nor where its values come from.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pipelines.columns import ColumnNames
from rerank_core import ScorerConfig

ENV_PREFIX = "RERANK_JOB_"


def _comma_separated(value: Any) -> Any:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _local(value: str | None) -> str | None:
    if value and "://" in value:
        raise ValueError(
            "must be a path of a mounted file system, not a URI: an object store has no rename,"
            " which the commit needs"
        )
    return value


LocalPath = Annotated[str, AfterValidator(_local)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]


class RerankJobConfig(BaseSettings):
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

    input: Names = Field(
        min_length=1,
        description="Parquet files, folders or globs, separated by commas; TREC runs too, with"
        " --queries and --documents",
    )
    queries: str | None = Field(
        None, description="Table of (query_id, query), where the input holds ids only"
    )
    documents: str | None = Field(
        None, description="Table of (doc_id, text), where the input holds ids only"
    )
    output: LocalPath = Field(
        min_length=1, description="A new folder, or one where this job stopped"
    )
    top_k: int | None = Field(None, ge=1, description="How many to keep per query (all)")
    scorer: ScorerConfig = Field(
        default_factory=lambda: ScorerConfig(), description="How pairs are scored, as online"
    )
    names: ColumnNames = Field(
        default_factory=lambda: ColumnNames(), description="What your columns are called"
    )
    columns: Names | None = Field(
        None, description="Input columns to keep in the output, separated by commas (all)"
    )
    duplicates: Literal["keep", "set_aside", "refuse"] = Field(
        "keep",
        description="A document that a query has twice, by ids: keep both, set all but the first"
        " aside, or end without success and say how many",
    )
    unit_pairs: int = Field(
        2048,
        ge=1,
        description="Pairs in one unit of work: the most that is done again after a crash, and the"
        " pool that is sorted by length. Larger is a little faster on GPUs",
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
    max_text_chars: int = Field(
        200_000,
        ge=1,
        description="Longer texts are cut before tokenising; none has that many tokens that count",
    )
    progress_s: float = Field(10.0, gt=0, description="Seconds between progress lines in logs")
    trec_run: LocalPath | None = Field(
        None, description="Also write the ranking as a TREC run here"
    )
    overwrite: bool = Field(
        False, description="Replace a former result of this tool, at the moment of success"
    )
    dry_run: bool = Field(False, description="Print the plan and stop")

    @property
    def added_columns(self) -> dict[str, str]:
        """The columns that this job adds, by their field in `names`."""
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
