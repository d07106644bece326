"""A job's way to a Ray: the cluster of RAY_ADDRESS, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO

import ray
from ray._common.utils import get_default_system_temp_dir
from ray._private import worker
from ray.exceptions import RayError

from rerank_core import InvalidRequest, RerankError

# A socket's path has at most 107 bytes, of which `/ray/session_.../sockets/plasma_store` takes 66.
_LONGEST_FOLDER = 40
# How long the control store may be away: of a cluster that keeps its state it comes back within
# seconds, and that of a Ray of our own never does. After a minute Ray itself ends the process.
_AWAY_S, _OWN_AWAY_S = 20.0, 5.0
_LOOK_EVERY_S, _ANSWER_S = 1.0, 2.0
_SAFE = "what is committed is safe, and the same command goes on"


class RayFailed(RerankError):
    """Ray itself has failed, or is gone."""


def in_a_line(error: BaseException) -> RayFailed | None:
    """Return the error in a line if it is one of Ray's, without words that are not ours."""
    if not isinstance(error, RayError):
        return None
    node = worker._global_node
    logs = f"; Ray's own words are in {node.get_logs_dir_path()}" if node else ""
    return RayFailed(f"Ray failed ({type(error).__name__}): {_SAFE}{logs}")


class ControlStoreWatch:
    """Ends the process with a line and code 1 when Ray's control store stays away.

    Whatever waits for Ray then would wait in vain, and so would Ray's own way to an end.
    """

    def __init__(self, address: str, alone: bool, out: TextIO) -> None:
        self._address, self._out = address, out
        self._most_s = _OWN_AWAY_S if alone else _AWAY_S
        self._stop = threading.Event()
        threading.Thread(target=self._loop, daemon=True, name="control store").start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()

    def _loop(self) -> None:
        away_since_s: float | None = None
        while not self._stop.wait(_LOOK_EVERY_S):
            now_s = time.monotonic()
            if answers(self._address):
                away_since_s = None
            elif away_since_s is None:
                away_since_s = now_s
            elif now_s - away_since_s >= self._most_s and not self._stop.is_set():
                self._end()

    def _end(self) -> NoReturn:
        self._out.write(
            f"\nerror: Ray's control store ({self._address}) has been gone for"
            f" {self._most_s:g} s: {_SAFE}\n"
        )
        self._out.flush()
        os._exit(1)


def answers(address: str) -> bool:
    """Say whether somebody listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError:
        return False
    return True


def connect() -> bool:
    """Join the cluster of RAY_ADDRESS or start a Ray here; return whether it is one of our own.

    Raises InvalidRequest for an address that no job can run by, and RerankError, each with the fix,
    when Ray does not start or answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A bare init would join any cluster that happens to run on this machine.
    address = os.environ.get("RAY_ADDRESS", "local")
    alone = address == "local"
    _check(address)
    with _own_sigterm(), _said_in_a_line(address):
        ray.init(
            address=address,
            # A dashboard takes seconds to start, and would go with the job.
            include_dashboard=False if alone else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    return alone


def disconnect(alone: bool) -> None:
    """Leave the cluster; end the Ray that `connect` has started."""
    node = worker._global_node
    if alone and node:
        # It is deaf to SIGTERM, so that Ray waits a second for it. Here it has nothing to scale.
        node.kill_monitor(check_alive=False)
    ray.shutdown()


def _check(address: str) -> None:
    if address.startswith("ray://"):
        raise InvalidRequest(
            "RAY_ADDRESS is a ray:// address, by which no job is run: submit it with `ray job"
            " submit`, or name the head's own address, HEAD:6379"
        )
    folder: str = get_default_system_temp_dir()  # type: ignore[no-untyped-call]
    if address == "local" and len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise InvalidRequest(
            f"Ray's sockets would lie too deep: the temporary folder {folder} has more than"
            f" {_LONGEST_FOLDER} bytes; set RAY_TMPDIR=/tmp"
        )


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what the program does on SIGTERM: starting Ray sets a handler of Ray's own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _said_in_a_line(address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if address == "local":
            fix = "on a busy machine give it longer: RAY_raylet_start_wait_time_s=120"
        else:
            fix = f"is RAY_ADDRESS={address} the cluster's?"
        raise RerankError(f"Ray did not start: {str(error).split('. ')[0]}; {fix}") from error
