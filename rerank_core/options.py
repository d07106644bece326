"""The fields of ScorerConfig as command-line options, by the same names and with the same help.

It does not know which command they belong to.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from rerank_core.config import ScorerConfig
from rerank_core.errors import invalid


def add_scorer_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each field; `first_stage` takes a JSON object."""
    group = parser.add_argument_group("scorer", "the fields of the scorer block, as in serve.yaml")
    for name, field in ScorerConfig.model_fields.items():
        group.add_argument(f"--{name.replace('_', '-')}", **_options(name, field))


def scorer_config(options: argparse.Namespace) -> ScorerConfig:
    """Build the config from what was given; InvalidRequest names each field that is wrong."""
    given = {name: value for name, value in vars(options).items()
             if name in ScorerConfig.model_fields}  # fmt: skip
    try:
        return ScorerConfig.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from None


def _options(name: str, field: FieldInfo) -> dict[str, Any]:
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(field)}
    if field.annotation is bool:
        return options | {"action": argparse.BooleanOptionalAction}
    return options | {"metavar": "X", "type": json.loads if name == "first_stage" else str}


def _help(field: FieldInfo) -> str:
    # argparse reads a percent sign as the start of a placeholder.
    return (field.description or "").replace("`", "").replace("%", "%%")
