"""One owner at a time for an output folder: a heartbeat, and a higher epoch for each new owner.

The epoch fences: workers of an older one cannot publish. It does not know what the job does.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from pipelines.commits import store
from pipelines.commits.records import JobFolder, OutputRefused, newest_epoch

HEARTBEAT_S = 5.0
STALE_S = 60.0


class Lease:
    """Held while the `with` block runs; a thread keeps it fresh. Raises OutputRefused if taken."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self.folder = JobFolder(root, 0)

    def __enter__(self) -> JobFolder:
        epoch = refuse_if_alive(self._root) + 1
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        self.folder = JobFolder(self._root, epoch)
        # Before the epoch: an epoch without a heartbeat is one that was let go.
        store.replace(self._path(), b"")
        if not store.create_json(self._root / "_job" / "epochs" / f"{epoch}.json", mine):
            raise OutputRefused(f"another job has just started on {self._root}")
        self._thread.start()
        return self.folder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._path().unlink(missing_ok=True)

    def _path(self) -> Path:
        return self._root / "_job" / "heartbeats" / str(self.folder.epoch)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                if newest_epoch(self._root) != self.folder.epoch:
                    return
                self._path().touch()
            except OSError:
                continue  # a short outage of the storage must not end the heartbeat


def refuse_if_alive(root: Path) -> int:
    """Return the newest epoch of the folder; OutputRefused while its owner lives."""
    epoch = newest_epoch(root)
    beat = root / "_job" / "heartbeats" / str(epoch)
    try:
        age = time.time() - beat.stat().st_mtime
    except FileNotFoundError:
        return epoch  # let go, or never held
    owner: dict[str, Any] = store.read_json(root / "_job" / "epochs" / f"{epoch}.json") or {}
    here = owner.get("host") == socket.gethostname()
    if here and _started(int(owner["pid"])) != owner["started"]:
        return epoch  # its process is gone
    if age < STALE_S:
        raise OutputRefused(
            f"{root} is held by another job (process {owner.get('pid')} on {owner.get('host')},"
            f" alive {age:.0f} s ago). If it is dead, try again in {STALE_S - age:.0f} s"
        )
    return epoch


def _started(pid: int) -> str | None:
    """Return when a process of this host started, as the kernel tells it; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
