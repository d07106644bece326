"""Output in a bucket of S3, Google Cloud Storage or Azure, through obstore.

Buckets have put-if-absent but no rename: the result is copied into place, inside the store, and
the file that says so is written last. Credentials, endpoint and region come from the standard
environment of each store.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from itertools import chain, islice
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.fs as pafs
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.fsspec import FsspecStore
from obstore.store import from_url

from pipelines.commits.object_errors import is_no_bucket, meaning
from pipelines.commits.store import Body, Result, Store, Told, at_once, token
from pipelines.retries import is_transient, retried

# A part of a larger file; most units' files go up in one request.
_PART_BYTES = 64 << 20
# What the library tries again within one operation; ours come around these.
_RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=60)}


@dataclass(frozen=True, slots=True)
class ObjectStore(Store):
    """A folder of a bucket, by its address; `timeout_s` bounds each request."""

    url: str
    timeout_s: float = 60.0

    def __str__(self) -> str:
        return self.url

    def path(self, key: str) -> str:
        return f"{self.url.partition('://')[2]}/{key}"

    def filesystem(self) -> pafs.FileSystem:
        scheme: Any = self.url.partition("://")[0]
        handler: Any = pafs.FSSpecHandler  # pyarrow's stubs take it for an abstract class
        return pafs.PyFileSystem(handler(FsspecStore(scheme, **_options(self.timeout_s))))

    def create(self, key: str, body: Body) -> bool:
        return self._asked(key, lambda: self._create(key, body))

    def _create(self, key: str, body: Body) -> bool:
        try:
            obstore.put(self._client(), key, body, mode="create")
        except AlreadyExistsError:
            # It says so of our own file, too, when the first answer was lost and it asked again;
            # and S3 of no file at all (409), when another writer was just about to.
            try:
                return bytes(obstore.get(self._client(), key).bytes()) == bytes(body)
            except FileNotFoundError:
                raise OSError(errno.EAGAIN, "two writers at once") from None
        return True

    def mark(self, key: str) -> bool:
        return self.create(key, token().encode())

    def replace(self, key: str, body: Body) -> None:
        data = memoryview(body).cast("B")
        self._asked(key, lambda: obstore.put(self._client(), key, data, chunk_size=_PART_BYTES))

    def read(self, key: str) -> Any:
        return self._asked(key, lambda: obstore.get(self._client(), key).bytes())

    def read_part(self, key: str, start: int, stop: int) -> Any:
        if start == stop:
            return b""
        span = {"start": start, "end": stop}
        return self._asked(key, lambda: obstore.get_range(self._client(), key, **span))

    def open(self, key: str, size: int | None = None) -> pa.NativeFile:
        source: Any = _Ranges(self, key, self._head(key)["size"] if size is None else size)
        return pa.PythonFile(source, mode="r")

    def size(self, key: str) -> int | None:
        try:
            return int(self._head(key)["size"])
        except FileNotFoundError:
            return None

    def modified_s(self, key: str) -> float:
        return float(self._head(key)["last_modified"].timestamp())

    def _head(self, key: str) -> Any:
        return self._asked(key, lambda: obstore.head(self._client(), key))

    def names(self, folder: str, suffix: str = "", most: int | None = None) -> list[str]:
        def listed() -> list[str]:
            rest = len(folder) + 1
            paths = (file["path"] for file in self._listed(folder))
            found = (path[rest:].removesuffix(suffix) for path in paths if path.endswith(suffix))
            return sorted(islice((name for name in found if "/" not in name), most))

        return self._asked(folder, listed)

    def _listed(self, folder: str) -> Iterable[Any]:
        return chain.from_iterable(obstore.list(self._client(), folder))

    def children(self, folder: str = "") -> list[str]:
        found = self._asked(folder, lambda: obstore.list_with_delimiter(self._client(), folder))
        paths = [*found["common_prefixes"], *(file["path"] for file in found["objects"])]
        return sorted(path.rpartition("/")[2] for path in paths)

    def delete(self, keys: Iterable[str]) -> None:
        if paths := list(keys):
            try:
                self._asked(paths[0], lambda: obstore.delete(self._client(), paths))
            except FileNotFoundError:  # Azure and Google say so of one, and leave the rest
                at_once(self._delete_one, paths)

    def _delete_one(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._asked(key, lambda: obstore.delete(self._client(), key))

    def delete_folder(self, folder: str) -> None:
        self.delete(self._asked(folder, lambda: [f["path"] for f in self._listed(folder)]))

    def place(self, work: str, folder: str, names: list[str], say: Told) -> None:
        """Copy the files; a reader who does not wait for the end may see some of them."""
        there = set(self.names(folder)) if names else set()
        left = [name for name in names if name not in there]
        at_once(partial(self._copy, work, folder), left, say)

    def _copy(self, work: str, folder: str, name: str) -> None:
        target = f"{folder}/{name}"
        try:
            self._asked(target, lambda: obstore.copy(self._client(), f"{work}/{name}", target))
        except FileNotFoundError:
            if self.size(target) is None:  # else another run of the job was faster, and swept
                raise

    def _client(self) -> Any:
        return _connected(self.url, self.timeout_s)

    def _asked(self, key: str, call: Callable[[], Result]) -> Result:
        def once() -> Result:
            try:
                return call()
            except (BaseError, FileNotFoundError) as error:
                if isinstance(error, FileNotFoundError) and not is_no_bucket(error):
                    raise
                raise meaning(error, self.url) from None

        return retried(once, f"{self.url}/{key}".rstrip("/"), when=is_transient)


class _Ranges(io.RawIOBase):
    """A file of which each read is one request."""

    def __init__(self, store: ObjectStore, key: str, size: int) -> None:
        self._store, self._key, self._size, self._place = store, key, size, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        size = left if size < 0 else min(size, left)
        if not size:
            return b""
        body = self._store.read_part(self._key, self._place, self._place + size)
        self._place += len(body)
        return bytes(body)


@cache
def _connected(address: str, timeout_s: float) -> Any:
    return from_url(address, **_options(timeout_s))


def _options(timeout_s: float) -> dict[str, Any]:
    # The endpoint's own address says whether it is http.
    client = {"allow_http": True, "timeout": timedelta(seconds=timeout_s)}
    return {"client_options": client, "retry_config": _RETRIES}
