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

from pipelines.commits.records import Fenced, JobFolder, OutputRefused, epoch_key, newest_epoch
from pipelines.commits.store import OutputUnusable, Store, Told, token
from pipelines.inputs.units import Say, silent, told
from rerank_core import RerankError

HEARTBEAT_S = 5.0
STALE_S = 60.0


class Lease:
    """Held while the `with` block runs; a thread keeps it fresh. Raises OutputRefused if taken.

    Who holds `still` has no heartbeat written meanwhile: while the folder itself has no name, one
    would make another in its place. `say` is told how long the silence of a former owner is.
    """

    def __init__(self, store: Store, say: Say = silent) -> None:
        self._store, self._say = store, say
        self._stop, self.still = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self.folder = JobFolder(store, 0)

    def __enter__(self) -> JobFolder:
        epoch = refuse_if_alive(self._store, self._say) + 1
        mine: dict[str, Any] = {"host": socket.gethostname(), "namespace": _namespace()}
        mine |= {"pid": os.getpid(), "started": _started(os.getpid()), "token": token()}
        self.folder = JobFolder(self._store, epoch)
        # Before the epoch: an epoch without a heartbeat is one that was let go.
        self._store.replace(heartbeat_key(epoch), token().encode())
        if self._store.mark(heartbeat_key(epoch)):
            raise OutputUnusable(
                f"{self._store} writes over files that it was asked to spare (put-if-absent, the"
                " header If-None-Match); no job is safe there. Take another --output",
                "output",
            )
        if not self._store.create_json(epoch_key(epoch), mine):
            raise OutputRefused(f"another job has just started on {self._store}")
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
        self._store.delete([heartbeat_key(self.folder.epoch)])

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                with self.still:
                    self.folder.refuse_if_fenced()
                    self._store.replace(heartbeat_key(self.folder.epoch), token().encode())
            except Fenced:
                return
            except (OSError, RerankError):
                continue  # a short outage of the storage must not end the heartbeat


def heartbeat_key(epoch: int) -> str:
    """Return where an owner's heartbeat lies: a file that says something else with each beat."""
    return f"_job/heartbeats/{epoch}"


def refuse_if_alive(store: Store, say: Say = silent) -> int:
    """Return the newest epoch of the folder; OutputRefused while its owner lives.

    An owner of this host is looked up among its processes. Of another the heartbeat is watched, by
    this process's own clock: the clocks of two machines may differ by more than a minute.
    """
    epoch = newest_epoch(store)
    if _beat_of(store, epoch) is None:
        return epoch  # let go, or never held
    owner: dict[str, Any] = store.read_json(epoch_key(epoch)) or {}
    if owner.get("namespace") == _namespace():
        alive = _started(int(owner["pid"])) == owner["started"]
    else:
        who = f"process {owner.get('pid')} on {owner.get('host')}"
        heard = told(say, f"seconds without a heartbeat of {who}", round(STALE_S))
        alive = _beats(store, epoch, heard)
    if alive:
        raise OutputRefused(
            f"{store} is held by another job (process {owner.get('pid')} on {owner.get('host')})."
            f" If it is dead, the same command takes over after {STALE_S:.0f} s without a heartbeat"
        )
    return epoch


def _beats(store: Store, epoch: int, say: Told) -> bool:
    """Watch a heartbeat; False when it has stood still for STALE_S."""
    first, began_s = _beat_of(store, epoch), time.monotonic()
    while time.monotonic() - began_s < STALE_S:
        time.sleep(HEARTBEAT_S / 2)
        now = _beat_of(store, epoch)
        if now != first:
            return now is not None
        say(int(time.monotonic() - began_s))
    return False


def _beat_of(store: Store, epoch: int) -> bytes | None:
    try:
        return bytes(store.read(heartbeat_key(epoch)))
    except FileNotFoundError:
        return None


def _namespace() -> str:
    """Name the place where process numbers mean something: this boot of this host's kernel."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {os.getppid()}"  # unknown: nobody else's


def _started(pid: int) -> str | None:
    """Return when a process of this host started, as the kernel tells it; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
