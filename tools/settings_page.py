"""Writes docs/settings.md: every setting of scorer, service and job, out of the config classes.

    python -m tools.settings_page

It knows no setting by name. What a field is called, what it takes, its default and what to turn it
for all come from its class; a field without a description is refused.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo

from pipelines.config import RerankJobConfig
from rerank_core import ScorerConfig
from serve_app.config import ServeConfig

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
START = """# Settings

Written by `make settings` from the config classes; do not edit it by hand. Unknown keys are refused
everywhere. What to turn when something is slow stands in [tuning](tuning.md).
"""
# Heading, class, and what the class cannot say.
ROOTS: tuple[tuple[str, type[BaseModel], str], ...] = (
    (
        "scorer",
        ScorerConfig,
        """The same block, the same text, in a Serve file and in a job's file. In the terminal
and for `serve run` its fields stand alone: `--dtype bfloat16`, `dtype=bfloat16`.""",
    ),
    (
        "service",
        ServeConfig,
        """What stands under `args` of an application in a Serve file
([serve_app/serve.yaml](../serve_app/serve.yaml)). [Online](online.md) says what
the service does.""",
    ),
    (
        "job",
        RerankJobConfig,
        """From a YAML file (`--config`), `RERANK_JOB_*` variables and the command line; the later
wins. `unit_pairs` is `--unit-pairs` on the command line, and a block's field has a dot there:
`--names.text passage`, or `RERANK_JOB_NAMES__TEXT`; `--model M` is short for `--scorer.model M`.
[pipelines/rerank_job.yaml](../pipelines/rerank_job.yaml) is an example, [offline](offline.md) says
what the job does.""",
    ),
)
_HEADER = "| Setting | Takes | Default | Meaning |\n| --- | --- | --- | --- |"
_WORDS = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", Path: "path"}
_WORDS[ByteSize] = "size"
_SIGNS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}


def page(roots: tuple[tuple[str, type[BaseModel], str], ...] = ROOTS) -> str:
    """Return the whole page. Raises ValueError for a field without a description."""
    # A class that occurs twice has one section, the first.
    anchors = {config: name for name, config, _ in roots}
    inside = [
        list(_blocks(config, "scorer." * (config is ScorerConfig), anchors))
        for name, config, _ in roots
    ]
    parts = [START]
    for (name, config, words), blocks in zip(roots, inside, strict=True):
        parts.append(f"## {name}\n\n{words}\n\n{_table(config, anchors)}\n")
        parts += [f"### {path}\n\n{_doc(b)}\n\n{_table(b, anchors)}\n" for path, b in blocks]
    return "\n".join(parts)


def _blocks(
    config: type[BaseModel], prefix: str, anchors: dict[type[BaseModel], str]
) -> Iterator[tuple[str, type[BaseModel]]]:
    """Walk the classes inside one that have no section yet, and note theirs in `anchors`."""
    for name, field in config.model_fields.items():
        for block in _models(field.annotation):
            if block not in anchors:
                anchors[block] = prefix + name
                yield anchors[block], block
                yield from _blocks(block, anchors[block] + ".", anchors)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _table(config: type[BaseModel], anchors: dict[type[BaseModel], str]) -> str:
    rows = [_HEADER]
    for name, field in config.model_fields.items():
        blocks = _models(field.annotation)
        text = field.description or (_doc(blocks[0]) if blocks else "")
        if not text:
            raise ValueError(f"{config.__name__}.{name} has no description; give it one")
        takes = f"[block](#{anchors[blocks[0]].replace('.', '')})" if blocks else _takes(field)
        if blocks and get_origin(field.annotation) is dict:
            takes = f"names, each with a {takes}"
        cells = (f"`{name}`", takes, _default(name, field), text.rstrip(".") + ".")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _takes(field: FieldInfo) -> str:
    limits = [
        template.format(f"{getattr(rule, sign):,}")
        for rule in field.metadata
        for sign, template in _SIGNS.items()
        if getattr(rule, sign, None) is not None
    ]
    return " ".join([_type(field.annotation), *limits])


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in parts if part is not type(None))
    if origin in (tuple, list):
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return "settings by name"
    if origin is not None and parts:  # Annotated
        return _type(parts[0])
    return _WORDS[annotation]


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if _models(field.annotation):
        return ""
    value = field.get_default(call_default_factory=True)
    if value in (None, (), {}):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if name.endswith("_bytes"):
        unit, size = ("MiB", 2**20) if value >= 2**20 else ("KiB", 2**10)
        return f"`{value}` ({value / size:g} {unit})"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _doc(block: type[BaseModel]) -> str:
    return (block.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ").strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
