"""Addresses: which file system one is of, what a glob matches, what a suffix says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.fs as pafs

from pipelines.commits.store import open_store
from pipelines.retries import first_line
from rerank_core import InvalidRequest

_GLOB = set("*?[")
# What a path of an address may hold as it stands; a key of a store may hold more.
_PLAIN = "/=:@!$&'()*+,;~"
_COMPRESSED = (".gz", ".zst", ".bz2", ".lz4")
KINDS = {
    ".parquet": "parquet", ".parq": "parquet", ".pq": "parquet",
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".arrows": "arrow",
}  # fmt: skip


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a path or URI (s3://, gs://, az://, hdfs://) and the path in it.

    What stands behind a `?` of a URI sets up the connection, as pyarrow documents it.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), os.path.abspath(path)
    if ":" in path.partition("://")[2].partition("/")[0].rpartition("@")[0]:
        raise InvalidRequest(
            "an address with a secret in it would be written into plan, manifest and report;"
            " give it through the environment or a profile of the store",
            "input",
        )
    if path.startswith("az://"):  # pyarrow's own client wants the account in the address
        return open_store(path).filesystem(), unquote(path.partition("://")[2])
    try:
        filesystem, inner = pafs.FileSystem.from_uri(path)
    except pa.ArrowInvalid as error:
        raise InvalidRequest(
            f"{path} is no address that can be read ({first_line(error)}); spaces and signs of a"
            " path are written as in %20",
            "input",
        ) from None
    return filesystem, inner


def address_in(filesystem: pafs.FileSystem, base: str, root: str, path: str) -> str:
    """Return the address of a path in the file system in which `root` is the address `base`."""
    if isinstance(filesystem, pafs.LocalFileSystem):
        return path
    whole = unquote(base.rstrip("/"))
    known = whole.removesuffix(root) if whole.endswith(root) else f"{base.partition('://')[0]}://"
    return known + quote(path, safe=_PLAIN)


def quoted(address: str) -> str:
    """Return an address as this house writes it, of one that a table names a file by."""
    scheme, mark, rest = address.partition(":")
    if not mark or "/" in scheme:
        return address
    if scheme == "file":
        return "/" + rest.lstrip("/")
    return f"{'s3' if scheme in ('s3a', 's3n') else scheme}:{quote(rest, safe=_PLAIN)}"


def split_glob(address: str) -> tuple[str, list[str]]:
    """Return the folder or file in front of the first wildcard, and the parts of the pattern.

    A local name that has such signs and exists is no pattern.
    """
    scheme, mark, rest = address.rpartition("://")
    parts = rest.split("/")
    for place, part in enumerate(parts):
        literal = scheme in ("", "file") and os.path.exists("/".join(parts[: place + 1]))
        if _GLOB & set(part) and not literal:
            folder = "/".join(parts[:place]) or ("/" if rest.startswith("/") else ".")
            return scheme + mark + folder, [part for part in parts[place:] if part]
    return address, []


def meant(parts: Sequence[str], pattern: Sequence[str]) -> Literal["yes", "other", "no"]:
    """Say whether a file is meant, by its own name or by that of a folder it lies in.

    In a folder only Parquet is; `other` is what lies there besides.
    """
    if pattern and _matches(parts, pattern):
        return "yes"
    if pattern and not any(_matches(parts[:n], pattern) for n in range(1, len(parts))):
        return "no"
    return "yes" if kind_of(parts[-1]) == "parquet" else "other"


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[n:], pattern[1:]) for n in range(len(parts) + 1))
    first = bool(parts) and fnmatchcase(parts[0], pattern[0])
    return first and _matches(parts[1:], pattern[1:])


def kind_of(address: str) -> str:
    """Return the kind of a file by its suffix; empty for a suffix that says nothing."""
    path = address.partition("?")[0] if "://" in address else address
    for suffix in _COMPRESSED:
        path = path.removesuffix(suffix)
    return KINDS.get(Path(path).suffix.lower(), "")


def holds(text: str, folder: str) -> bool:
    """Say whether an input takes all that lies in an output folder, or in one below it."""
    text = text.removeprefix("file://")
    if ("://" in text) != ("://" in folder):
        return False
    if "://" in text:
        base, pattern = split_glob(text.partition("?")[0])
        base, inside = unquote(base), unquote(folder)
    else:
        base, pattern = split_glob(text)
        base, inside = os.path.realpath(base), os.path.realpath(folder)
    base, inside = base.rstrip("/"), inside.rstrip("/")
    if not f"{inside}/".startswith(f"{base}/") or os.path.isfile(base):
        return False
    below = [part for part in inside[len(base) :].split("/") if part]
    return meant([*below, "data", "part-0.parquet"], pattern) == "yes"
