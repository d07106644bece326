"""RerankJobConfig: everything one offline job can be told, from YAML, environment and command line.

A later source wins: YAML file, then RERANK_JOB_* variables, then the command line. It does not know
what is in the input.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from rerank_core import InvalidRequest, ScorerConfig

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


class ColumnNames(BaseModel):
    """What the columns are called in your files. Change the right side, never the left."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_id: str = Field("query_id", description="Column that says which rows are ranked together")
    query: str = Field("query", description="Column with the query's text")
    doc_id: str = Field("doc_id", description="Column, or field of a candidate: the document's id")
    text: str = Field("text", description="Column, or field of a candidate: the document's text")
    candidates: str = Field("candidates", description="List column of the nested shape")
    score: str = Field("score", description="Column that the job adds; rename it if yours has one")
    rank: str = Field("rank", description="Column that the job adds, 1 is best")
    calibrated_score: str = Field(
        "calibrated_score", description="Column that scorer.calibration adds: a probability"
    )
    passage: str = Field(
        "passage",
        description="Column that scorer.long_documents: split adds: start and end, in characters,"
        " of a split document's best passage",
    )


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
        3600.0, gt=0, description="Seconds a unit may take to score before it counts as hanging"
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
        """Take values given in code alone; `load_config` puts the three sources in order."""
        return (init_settings,)


def load_config(arguments: Sequence[str]) -> RerankJobConfig:
    """Read the command line, the environment and the YAML file that `--config` names.

    Raises InvalidRequest that names each wrong key by its path and source-independent reason.
    """
    rest, yaml_file = _take_option(list(arguments), "--config")
    _refuse_unknown_variables()
    cli: CliSettingsSource[RerankJobConfig] = CliSettingsSource(
        RerankJobConfig, cli_parse_args=rest, cli_exit_on_error=True
    )
    sources: list[PydanticBaseSettingsSource] = [cli, _env_source()]
    if yaml_file:
        sources.append(_yaml_source(yaml_file))
    values: dict[str, Any] = {}
    for source in reversed(sources):
        values = _merge(values, source())
    try:
        return RerankJobConfig(**values)
    except ValidationError as error:
        raise InvalidRequest("; ".join(_problems(error))) from None


def _env_source() -> PydanticBaseSettingsSource:
    from pydantic_settings import EnvSettingsSource

    return EnvSettingsSource(RerankJobConfig)


def _yaml_source(path: str) -> PydanticBaseSettingsSource:
    if not Path(path).is_file():
        raise InvalidRequest(f"no config file at {path}", "config")
    try:
        return YamlConfigSettingsSource(RerankJobConfig, yaml_file=path)
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidRequest(f"{path} is not a YAML mapping: {error}", "config") from None


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Put `high` over `low`, block by block."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = _merge(below, value) if both and below else value
    return merged


def _take_option(arguments: list[str], name: str) -> tuple[list[str], str | None]:
    for place, argument in enumerate(arguments):
        if argument == name and place + 1 < len(arguments):
            return arguments[:place] + arguments[place + 2 :], arguments[place + 1]
        if argument.startswith(name + "="):
            return arguments[:place] + arguments[place + 1 :], argument.partition("=")[2]
    return arguments, None


def _refuse_unknown_variables() -> None:
    """A mistyped variable is ignored by pydantic-settings; a mistyped YAML key is not. Be equal."""
    known = {name.upper() for name in RerankJobConfig.model_fields}
    for variable in os.environ:
        if variable.upper().startswith(ENV_PREFIX):
            field = variable.upper().removeprefix(ENV_PREFIX).split("__")[0]
            if field not in known:
                raise InvalidRequest(f"environment: no such setting {variable}", variable)


def _problems(error: ValidationError) -> list[str]:
    return [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]


Shape = Literal["pairs", "nested"]
