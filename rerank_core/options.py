"""The fields of ScorerConfig as command-line options, by the same names and with the same help.

It does not know which command they belong to.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict

from rerank_core.config import ScorerConfig
from rerank_core.errors import invalid


class _Settings(ScorerConfig, BaseSettings):
    """What the source of options asks for. Never built: that would read the environment, too."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def add_scorer_options(parser: ArgumentParser) -> Callable[[Namespace], ScorerConfig]:
    """Add one option for each field, and return what builds the config from parsed options.

    A block is given as a JSON object or field by field: `--first-stage.keep 20`. The function
    returned raises InvalidRequest that names each field that is wrong.
    """
    source: CliSettingsSource[ArgumentParser] = CliSettingsSource(
        _Settings, root_parser=parser, cli_kebab_case=True, cli_implicit_flags=True
    )

    def config(options: Namespace) -> ScorerConfig:
        try:
            return ScorerConfig.model_validate(source(parsed_args=vars(options))())
        except ValidationError as error:
            raise invalid(error) from None

    return config
