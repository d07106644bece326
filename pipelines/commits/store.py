"""The few file operations that the commit protocol stands on. It does not know what is written.

Every write is whole or absent, and `create` succeeds for exactly one of many writers: it links a
finished temporary file to its name, which file systems do atomically and only once.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.retries import is_transient, retried
from rerank_core import RerankError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FLAGS = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
# From linux/fcntl.h and linux/fs.h.
_HERE, _NO_REPLACE = -100, 1


class StorageFull(RerankError):
    """The output disk is full. What is committed stays good; free space and run again."""


def create(path: Path, body: bytes | memoryview) -> bool:
    """Write `body` to a new file; False, and nothing changed, if the name is taken.

    Tries again for a while where the storage fails; see StorageUnavailable.
    """
    return retried(lambda: _create(path, body), str(path), when=is_transient)


def _create(path: Path, body: bytes | memoryview) -> bool:
    temporary = _write_beside(path, body)
    try:
        with _full_disk_said(path, body):
            _name_once(temporary, path)
    except FileExistsError:
        # NFS may say so of our own link, when its first answer was lost and it asked again.
        if not temporary.exists() or not os.path.samefile(temporary, path):
            return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _name_once(temporary: Path, path: Path) -> None:
    """Give the finished file its name, unless that is taken: FileExistsError."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_once(temporary, path)


def _rename_once(temporary: Path, path: Path) -> None:
    """Do the same where there are no hard links, as on many mounted object stores."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_HERE, bytes(temporary), _HERE, bytes(path), _NO_REPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number in _NO_FLAGS:
        raise OutputUnusable(
            f"{path.parent} lies on a file system that can neither link files nor rename one only"
            " if its name is free; the job needs either. Take another --output"
        )
    raise OSError(number, os.strerror(number), str(path))


class OutputUnusable(RerankError):
    """The output's file system cannot do what the commit stands on."""


def replace(path: Path, body: bytes | memoryview) -> None:
    """Write `body` to the file, whether or not it was there."""
    retried(lambda: _replace(path, body), str(path), when=is_transient)


def _replace(path: Path, body: bytes | memoryview) -> None:
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
        return json.loads(retried(path.read_bytes, str(path), when=is_transient))
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
