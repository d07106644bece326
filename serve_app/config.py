"""ServeConfig: the scorer, and what the service allows, batches and scales. Each default is here.

It composes the core's ScorerConfig whole, so that the same `scorer:` block stands in serve.yaml and
in rerank_job.yaml. It does not know how a deployment is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from rerank_core import ScorerConfig
from serve_app.settings import Admission, Batching, Limits, PerModel, Scaling, Settings

__all__ = ["Admission", "Batching", "Limits", "Scaling", "ServeConfig"]


class ServeConfig(Settings):
    """Everything `serve run serve_app:app` takes. A scorer's fields may stand at the top level."""

    scorer: ScorerConfig = Field(default_factory=ScorerConfig)
    models: dict[str, ScorerConfig] = Field(
        default_factory=dict, description="Further models, by the name that requests use."
    )
    model_names: tuple[str, ...] = Field(
        (), description="More names under which the first model answers, e.g. rerank-v3.5."
    )
    unknown_models: Literal["auto", "refuse", "default"] = Field(
        "auto",
        description="A `model` nobody serves: refuse is a 404, with default the first model"
        " answers. auto: default where just one model is served.",
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Origins whose pages may call, e.g. https://app.example; `*`: all."
    )
    limits: Limits = Field(default_factory=Limits)
    admission: Admission = Field(default_factory=Admission)
    batching: Batching = Field(default_factory=Batching)
    scaling: Scaling = Field(default_factory=Scaling)
    per_model: dict[str, PerModel] = Field(
        default_factory=dict,
        description="By a model's name what differs for it: `limits` of documents, `admission`,"
        " `batching`, `scaling`; its lines replace those for all.",
    )
    unit_tokens: int | None = Field(
        None,
        ge=1,
        description="Estimated tokens of a work unit; empty: what a replica does in a tenth of a"
        " second, as measured.",
    )
    warm_up: bool = Field(True, description="Score the largest batch before being ready.")
    api_keys_file: Path | None = Field(
        None, description="Lines of `name: key`; read again when it changes. Empty: no file."
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, values: Any) -> Any:
        """Move scorer fields given at the top level (`model=...`) into `scorer`."""
        if not isinstance(values, dict):
            return values
        given = {name: values[name] for name in ScorerConfig.model_fields if name in values}
        if not given:
            return values
        if "scorer" in values:
            raise ValueError(f"{', '.join(given)}: give it here or in `scorer`, not in both")
        rest = {name: value for name, value in values.items() if name not in given}
        return {**rest, "scorer": given}

    @model_validator(mode="after")
    def _fused_alone(self) -> ServeConfig:
        if self.scaling.fused is True and self.models:
            raise ValueError("fused serves one model; leave it to auto, or models out")
        return self

    @model_validator(mode="after")
    def _known_models(self) -> ServeConfig:
        if unknown := sorted(set(self.per_model) - set(self.served)):
            raise ValueError(f"per_model: no model is named {unknown[0]}; {list(self.served)} are")
        if self.per_model and len(self.served) == 1:
            raise ValueError("per_model is for several models; give one model's settings as such")
        for name, one in self.by_model.items():
            for limit in self.per_model.get(name, PerModel()).limits:
                if getattr(one.limits, limit) > getattr(self.limits, limit):
                    raise ValueError(f"per_model: limits.{limit} of {name} is above that for all")
        return self

    @cached_property
    def by_model(self) -> dict[str, ServeConfig]:
        """This config as it is for each model, by its public name."""
        return {name: self._with(self.per_model.get(name, PerModel())) for name in self.served}

    def _with(self, own: PerModel) -> ServeConfig:
        changes: dict[str, Settings] = {}
        for block, given in own.model_dump(exclude_defaults=True).items():
            common = getattr(self, block)
            changes[block] = type(common).model_validate({**common.model_dump(), **given})
        return self.model_copy(update=changes)

    def changed(self, user_config: Mapping[str, Any]) -> ServeConfig:
        """Return this config with new `limits` and `admission`. Raises ValueError if wrong."""
        unknown = set(user_config) - {"limits", "admission"}
        if unknown:
            raise ValueError(f"user_config takes limits and admission, not {sorted(unknown)}")
        given = {name: values or {} for name, values in user_config.items()}
        if not all(isinstance(values, Mapping) for values in given.values()):
            raise ValueError("limits and admission are objects with their fields")
        deployed = self.model_dump()
        merged = {name: {**deployed[name], **values} for name, values in given.items()}
        return ServeConfig.model_validate({**deployed, **merged})

    @property
    def is_fused(self) -> bool:
        """Say whether gateway and scorer share a process. Several models never do."""
        single = self.scaling.is_single and len(self.served) == 1
        return single if self.scaling.fused == "auto" else self.scaling.fused

    def model_for(self, asked: str | None) -> str | None:
        """Return the public name of the model that answers for `asked`, None for a 404."""
        served = self.served
        if asked in served:
            return asked
        alone = self.unknown_models == "auto" and len(served) == 1
        if not asked or asked in self.model_names or alone or self.unknown_models == "default":
            return next(iter(served))
        return None

    @cached_property
    def served(self) -> dict[str, ScorerConfig]:
        """Every model by its public name, the default first. A folder's path is never a name."""
        name = self.scorer.model
        # The gateway's machine need not have the folder that it is told of.
        is_path = name.startswith(("/", ".", "~")) or self.scorer.model_dir
        if name != "embedded" and is_path:
            name = Path(name).expanduser().resolve().name
        return {name: self.scorer, **self.models}
