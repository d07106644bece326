"""Where a job's rows come from and go to, and what it takes over of earlier results.

It does not know what is in the places.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

from pipelines.commits.store import SCHEMES


def _comma_separated(value: Any) -> Any:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _local(value: str | None) -> str | None:
    if value and "://" in value:
        raise ValueError("must be a path of a file system, not an address")
    return value


def check_address(text: str) -> str:
    """Return an output's address; ValueError that says the fix where no job can write there."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        return text
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"is a path or the address of an object store: {known}")
    if "?" in rest:
        raise ValueError("takes no options: set endpoint and region in the environment")
    bucket, _, folder = rest.partition("/")
    if ":" in bucket.rpartition("@")[0]:
        raise ValueError("has a secret in it; give that through the environment")
    if not folder.strip("/"):
        raise ValueError(f"is a bucket; name a folder in it, as in {scheme}://{bucket}/reranked")
    return text


Address = Annotated[str, AfterValidator(check_address)]
LocalPath = Annotated[str, AfterValidator(_local)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]


class Places(BaseModel):
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
    append: bool = Field(
        False,
        description="Add files that have come since to a finished output, by the same settings;"
        " what is finished is not scored again",
    )
    reuse: Address | None = Field(
        None,
        description="A finished output of the same scorer: pairs whose two texts it has scored take"
        " their scores from there",
    )
