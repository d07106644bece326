"""Files that are whole or absent, on any file system. They do not know what they are for.

`create` links a finished temporary file to its name, which file systems do atomically and only
once. Everything but marks is on the disk before it has a name, which libraries of object stores do
not see to for local files.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.commits.store import Body, OutputUnusable, StorageFull
from pipelines.retries import FULL

_NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FLAGS = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
# From linux/fcntl.h and linux/fs.h.
_HERE, _NO_REPLACE, _EXCHANGE = -100, 1, 2


def create(path: Path, body: Body) -> bool:
    """Write a new file and put it on the disk; False, and nothing changed, if the name is taken."""
    temporary = _write_beside(path, body)
    try:
        with _place_said(path, body):
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
            " if its name is free; the job needs either. Take another --output",
            "output",
        )
    raise OSError(number, os.strerror(number), str(path))


def exchange(one: Path, other: Path) -> bool:
    """Give two files or folders each other's names, in one step; False where that cannot be.

    Raises OSError where it can, and did not happen.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_HERE, bytes(one), _HERE, bytes(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_FLAGS:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def also(path: Path, name: Path) -> None:
    """Give a file another name, too; where there are no links a copy. One that is there stays."""
    name.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, name)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in {*_NO_LINKS, errno.EXDEV}:
            raise
        create(name, path.read_bytes())


def mark(path: Path) -> bool:
    """Create an empty file, which need not be on the disk yet; False if the name is taken."""
    with _place_said(path, b""):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _place_said(path, b""):
            path.open("xb").close()
    except FileExistsError:
        return False
    return True


def replace(path: Path, body: Body) -> None:
    """Write a file and put it on the disk, whether or not the name is taken."""
    temporary = _write_beside(path, body)
    with _place_said(path, body):
        os.replace(temporary, path)
    _sync_folder(path.parent)


def read_part(path: Path, start: int, stop: int) -> bytes:
    """Return the bytes from start to stop, fewer where the file ends."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _write_beside(path: Path, body: Body) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with _place_said(path, body):
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
def _place_said(path: Path, body: Body) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_OURS:
            raise OutputUnusable(
                f"{path.parent} cannot be written to: {error.strerror}; give the job the right to"
                " it, or take another --output",
                "output",
            ) from None
        if error.errno not in FULL:
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
