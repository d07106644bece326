"""The few file operations that the commit protocol stands on. It does not know what is written.

Every write is whole or absent, and `create` succeeds for exactly one of many writers: it links a
finished temporary file to its name, which file systems do atomically and only once.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rerank_core import RerankError

_FULL = {errno.ENOSPC, errno.EDQUOT}


class StorageFull(RerankError):
    """The output disk is full. What is committed stays good; free space and run again."""


def create(path: Path, body: bytes | memoryview) -> bool:
    """Write `body` to a new file; False, and nothing changed, if the name is taken."""
    temporary = _write_beside(path, body)
    try:
        with _full_disk_said(path, body):
            os.link(temporary, path)
    except FileExistsError:
        # NFS may say so of our own link, when its first answer was lost and it asked again.
        if not os.path.samefile(temporary, path):
            return False
    finally:
        temporary.unlink()
    _sync_folder(path.parent)
    return True


def replace(path: Path, body: bytes | memoryview) -> None:
    """Write `body` to the file, whether or not it was there."""
    temporary = _write_beside(path, body)
    with _full_disk_said(path, body):
        os.replace(temporary, path)
    _sync_folder(path.parent)


def create_json(path: Path, value: Any) -> bool:
    """Create a file with `value` as JSON; False if the name is taken."""
    return create(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return strict JSON, one line, UTF-8."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def read_json(path: Path) -> Any:
    """Return the JSON in the file, or None where there is no file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def names(folder: Path, suffix: str = "") -> list[str]:
    """Return the finished files in the folder, sorted, without the suffix; [] for no folder."""
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return []
    # A dot marks a write that was never finished.
    return sorted(
        n.removesuffix(suffix) for n in found if not n.startswith(".") and n.endswith(suffix)
    )


def _write_beside(path: Path, body: bytes | memoryview) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with _full_disk_said(path, body):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
    except (OSError, StorageFull):
        temporary.unlink(missing_ok=True)
        raise
    return temporary


@contextmanager
def _full_disk_said(path: Path, body: bytes | memoryview) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(
            f"no space left for {len(body)} bytes in {path.parent}; committed work is safe:"
            " free some space and run the same command again"
        ) from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
