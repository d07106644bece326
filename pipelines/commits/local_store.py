"""Output in a folder of a file system: local disks, NFS, Lustre and the like.

It tries again where the storage fails for a moment, and does not know how a file is written whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from pipelines.commits import local_files
from pipelines.commits.store import Body, Store, Told
from pipelines.retries import is_transient, retried

_retried = partial(retried, when=is_transient)


@dataclass(frozen=True, slots=True)
class LocalStore(Store):
    """A folder, by its whole path."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def path(self, key: str) -> str:
        return str(self.root / key)

    def filesystem(self) -> pafs.FileSystem:
        return pafs.LocalFileSystem()

    def create(self, key: str, body: Body) -> bool:
        path = self.root / key
        return _retried(lambda: local_files.create(path, body), str(path))

    def mark(self, key: str) -> bool:
        path = self.root / key
        return _retried(lambda: local_files.mark(path), str(path))

    def replace(self, key: str, body: Body) -> None:
        path = self.root / key
        _retried(lambda: local_files.replace(path, body), str(path))

    def read(self, key: str) -> bytes:
        path = self.root / key
        return _retried(path.read_bytes, str(path))

    def read_part(self, key: str, start: int, stop: int) -> bytes:
        path = self.root / key
        return _retried(lambda: local_files.read_part(path, start, stop), str(path))

    def open(self, key: str, size: int | None = None) -> pa.NativeFile:
        return pa.OSFile(str(self.root / key), "rb")

    def size(self, key: str) -> int | None:
        path = self.root / key
        return path.stat().st_size if path.is_file() else None

    def modified_s(self, key: str) -> float:
        return (self.root / key).stat().st_mtime

    def names(self, folder: str, suffix: str = "", most: int | None = None) -> list[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                # A dot marks a write that was never finished.
                found = (
                    entry.name.removesuffix(suffix)
                    for entry in entries
                    if not entry.name.startswith(".") and entry.name.endswith(suffix)
                )
                return sorted(islice(found, most))
        except FileNotFoundError:
            return []

    def children(self, folder: str = "") -> list[str]:
        try:
            return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            (self.root / key).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        shutil.rmtree(self.root / folder, ignore_errors=True)

    def place(self, work: str, folder: str, names: list[str], say: Told) -> None:
        """Rename the folder: all of it is there at once, and nothing but what is named."""
        if (self.root / work).is_dir() and not (self.root / folder).exists():
            os.rename(self.root / work, self.root / folder)
