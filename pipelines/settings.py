"""Where a job's settings come from: a YAML file, RERANK_JOB_* variables, and the command line.

A later source wins, block by block. It does not know what the settings mean.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from pipelines.config import RerankJobConfig
from rerank_core import InvalidRequest

_ENV_PREFIX = "RERANK_JOB_"
# Set for what `ray job submit` starts.
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class _FromOutside(RerankJobConfig, BaseSettings):
    """One offline job. A YAML file, RERANK_JOB_* variables and these options say the same things.

    The later wins, block by block; unknown keys are refused in all three.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_ENV_PREFIX,
        env_nested_delimiter="__",
        cli_prog_name="python -m pipelines.rerank_job",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_shortcuts={"scorer.model": "model"},
    )

    config: str | None = Field(None, exclude=True, description="YAML file of settings")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment over the YAML file; pydantic-settings puts the options over both."""
        return (env_settings, _NamedYaml(settings_cls))


class _NamedYaml(PydanticBaseSettingsSource):
    """The YAML file that a source before this one names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: the file is read as a whole."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read the file; InvalidRequest if there is none, or none that holds settings."""
        path = self.current_state.get("config")
        if not path:
            return {}
        if not Path(path).is_file():
            raise InvalidRequest(f"no config file at {path}", "config")
        try:
            values = YamlConfigSettingsSource(self.settings_cls, yaml_file=path)()
        except (yaml.YAMLError, ValueError) as error:
            raise InvalidRequest(f"{path} is not a YAML mapping: {error}", "config") from None
        if "config" in values:
            raise InvalidRequest("config: a config file cannot name another", "config")
        return values


def load_config(arguments: Sequence[str]) -> RerankJobConfig:
    """Read the command line, the environment and the YAML file that `--config` names.

    Raises InvalidRequest that names each wrong key by its path and source-independent reason.
    """
    _refuse_unknown_variables()
    try:
        config = _FromOutside(_cli_parse_args=list(arguments))
    except ValidationError as error:
        raise InvalidRequest("; ".join(_problems(error))) from None
    for name in ("output", "reuse", "trec_run", "json_lines"):
        _refuse_throwaway(name, getattr(config, name))
    return config


def _refuse_throwaway(name: str, path: str | None) -> None:
    """Refuse a relative path under `ray job submit`, where the working folder is a copy."""
    if path and _SUBMITTED in os.environ and not (os.path.isabs(path) or "://" in path):
        raise InvalidRequest(
            f"{name} {path} is relative to the copy of the working folder that Ray made for this"
            " job and throws away; give a whole path of a folder that all machines mount",
            name,
        )


def _refuse_unknown_variables() -> None:
    """A mistyped variable is ignored by pydantic-settings; a mistyped YAML key is not. Be equal."""
    known = {name.upper() for name in _FromOutside.model_fields}
    for variable in os.environ:
        if variable.upper().startswith(_ENV_PREFIX):
            field = variable.upper().removeprefix(_ENV_PREFIX).split("__")[0]
            if field not in known:
                raise InvalidRequest(f"environment: no such setting {variable}", variable)


def _problems(error: ValidationError) -> list[str]:
    return [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
