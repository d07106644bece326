"""A job's way to a Ray: the cluster of RAY_ADDRESS, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._common.utils import get_default_system_temp_dir
from ray._private import worker

from rerank_core import InvalidRequest, RerankError

# A socket's path has at most 107 bytes, of which `/ray/session_.../sockets/plasma_store` takes 66.
_LONGEST_FOLDER = 40


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
