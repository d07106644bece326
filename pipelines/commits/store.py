"""Where a job's output lies: a local folder or a bucket, with the same few operations.

The commit protocol stands on one of them: `create` succeeds for exactly one of many writers, and
what it writes is whole or absent. Keys are paths below the output's address. A store connects when
it is first used, so that it travels to workers. It does not know what is written.
"""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from pipelines.retries import is_transient, retried
from rerank_core import InvalidRequest, RerankError

Body = bytes | memoryview
# Is told how many of some files are done.
Told = Callable[[int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")
# Requests under way at once where many keys are wanted: each may be a round trip to a server.
_AT_ONCE = 32
# Schemes of the addresses of object stores.
SCHEMES = ("s3", "gs", "az", "abfs", "abfss")


class StorageFull(RerankError):
    """The output disk is full. What is committed stays good; free space and run again."""


class Damaged(RerankError):
    """A file of a job is missing, or does not hold what was written there."""


class OutputUnusable(InvalidRequest):
    """The output's place is not there, not ours to use, or cannot do what the commit stands on."""


class Store(ABC):
    """The operations. All of them try again for a while where the storage fails, and then raise
    StorageUnavailable; OutputUnusable where trying again cannot help.
    """

    @abstractmethod
    def __str__(self) -> str:
        """Return the address, as people know it."""

    @abstractmethod
    def create(self, key: str, body: Body) -> bool:
        """Write a new file; False, and nothing changed, if the key is taken.

        The body must be like no other writer's: where a reply was lost, it says whose the file is.
        """

    @abstractmethod
    def mark(self, key: str) -> bool:
        """Create a file of which only the key matters; it need not outlive a loss of power."""

    @abstractmethod
    def replace(self, key: str, body: Body) -> None:
        """Write a file, whether or not the key is taken."""

    @abstractmethod
    def read(self, key: str) -> Any:
        """Return a file's bytes as a buffer; raises FileNotFoundError."""

    @abstractmethod
    def read_part(self, key: str, start: int, stop: int) -> Any:
        """Return the bytes from start to stop, fewer where the file ends; FileNotFoundError."""

    @abstractmethod
    def open(self, key: str, size: int | None = None) -> pa.NativeFile:
        """Open a file, of so many bytes if known, for reading here and there; FileNotFoundError."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Return a file's bytes, None where there is none."""

    @abstractmethod
    def modified_s(self, key: str) -> float:
        """Return when a file was written, in seconds since 1970; raises FileNotFoundError."""

    @abstractmethod
    def names(self, folder: str, suffix: str = "", most: int | None = None) -> list[str]:
        """Return a folder's finished files, or any `most`, sorted, without suffix; [] for none."""

    @abstractmethod
    def children(self, folder: str = "") -> list[str]:
        """Return what lies in a folder, files and folders; NotADirectoryError for a file."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete files; those that are not there are none the less gone."""

    @abstractmethod
    def delete_folder(self, folder: str) -> None:
        """Delete all that lies in a folder."""

    @abstractmethod
    def place(self, work: str, folder: str, names: list[str], say: Told) -> None:
        """Make the named files of the folder `work` those of `folder`; done again, it goes on."""

    @abstractmethod
    def filesystem(self) -> pafs.FileSystem:
        """Return the file system in which pyarrow finds the files."""

    @abstractmethod
    def path(self, key: str) -> str:
        """Return where in this file system a key is."""

    def address(self, key: str) -> str:
        """Return the whole address of a key."""
        return f"{self}/{key}"

    def with_file(
        self, key: str, use: Callable[[pa.NativeFile], Result], size: int | None = None
    ) -> Result:
        """Return what `use` makes of the open file; after a fault it is called again."""

        def opened() -> Result:
            with self.open(key, size) as file:
                return use(file)

        return retried(opened, self.address(key), when=is_transient)

    def create_json(self, key: str, value: Any) -> bool:
        """Create a file with `value` as JSON; False if the key is taken."""
        return self.create(key, json_bytes(value))

    def read_json(self, key: str) -> Any:
        """Return the JSON in a file, or None where there is none. Raises Damaged."""
        try:
            return from_json(self.read(key), self.address(key))
        except FileNotFoundError:
            return None

    def read_all(self, keys: Iterable[str]) -> list[Any]:
        """Return the bytes of many files, read at once, in the order of the keys."""
        return at_once(self.read, keys)


def open_store(address: str | PathLike[str]) -> Store:
    """Return the store behind an output's address; it is not asked for anything yet.

    Raises OutputUnusable for an address that is none.
    """
    text = str(address)
    if "://" not in text:
        from pipelines.commits.local_store import LocalStore

        return LocalStore(Path(text).resolve())  # a link itself cannot be exchanged
    from pipelines.commits.object_store import ObjectStore

    return ObjectStore(text.rstrip("/"))


def at_once(
    call: Callable[[Item], Result], items: Iterable[Item], say: Told = lambda done: None
) -> list[Result]:
    """Return what the call returns for each item, in their order, many under way at once."""
    found = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for result in pool.map(call, items):
            found.append(result)
            say(len(found))
    return found


def from_json(body: Any, address: str, read: Callable[[bytes], Any] = json.loads) -> Any:
    """Return what JSON that lies at an address says; raises Damaged where it is none."""
    try:
        return read(bytes(body))
    except ValueError:
        raise damaged(address) from None


def damaged(address: str) -> Damaged:
    """Return the error that says so of an address."""
    return Damaged(
        f"{address} is missing or damaged: put a copy of it back, or make the output anew"
    )


def json_bytes(value: Any) -> bytes:
    """Return strict JSON, one line, UTF-8."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def token() -> str:
    """Return a text that nobody else has."""
    return secrets.token_hex(6)
