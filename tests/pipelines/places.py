"""Where the tests' jobs write, a folder or a bucket, and faults of either at any operation.

The bucket is moto's S3 server in this process, behind a gate of ours that counts, refuses, fails,
loses or delays requests: the job's own client runs unchanged, over HTTP.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import create_backend_app
from protocol import Killed, KillSwitch
from werkzeug.serving import WSGIRequestHandler, make_server

from pipelines.commits.store import open_store
from pipelines.growing.exchange import following
from rerank_core import RerankError

BUCKET = "bucket"
# Processes that start with everything imported, and with no thread of this one.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["places"])
# What may happen to a request, besides being answered.
REFUSED, BUSY, CONFLICT, LOST, SLOW = "refused", "busy", "conflict", "lost", "slow"
BLIND = "blind"  # to the condition under which it was asked
_REPLIES = {
    REFUSED: ("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"),
    BUSY: ("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>"),
    CONFLICT: ("409 Conflict", b"<Error><Code>ConditionalRequestConflict</Code></Error>"),
}
Fault = Callable[[str, str], str]
# A job is killed at every third change in `make test`, and at the others in `make chaos`.
thirds = pytest.mark.parametrize(
    "third", [0, *(pytest.param(other, marks=pytest.mark.chaos) for other in (1, 2))]
)


def _none(method: str, key: str) -> str:
    return ""


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args: object) -> None:
        """Say nothing."""


class S3Server:
    """Moto's S3 with one bucket; `fault` says of a request's method and key what happens to it."""

    slow_s = 1.5

    def __init__(self) -> None:
        # Not moto's dispatcher, which looks for the folders of all its services at each request.
        self._app = create_backend_app("s3")
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self._server.daemon_threads = True
        # Moto looks, then writes: two writers at once would both find the key free.
        self._lock = threading.Lock()
        self.fault: Fault = _none
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> S3Server:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.client().create_bucket(Bucket=BUCKET)
        return self

    def client(self) -> Any:
        """Another client than the job's, for keys of any letters."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """What a client's process must have in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        key = environ["PATH_INFO"].removeprefix(f"/{BUCKET}").lstrip("/")
        fault = self.fault(environ["REQUEST_METHOD"], key or environ["QUERY_STRING"])
        if fault in _REPLIES:
            status, body = _REPLIES[fault]
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(status, [("Content-Length", str(len(body)))])
            return [body]
        if fault == BLIND:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with self._lock:
            reply = list(self._app(environ, start))
        if fault == SLOW:
            time.sleep(self.slow_s)
        if fault in (SLOW, LOST):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError("the reply is lost")
        return reply


def started(target: Callable[..., Any], *args: Any) -> Any:
    """Start a process that calls the function, in the environment of now."""
    with pytest.MonkeyPatch.context() as patch:
        # The server of Python 3.11 gets no path, and is silent about what it cannot import.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ensure_running()
    process = PROCESSES.Process(target=_in_environment, args=(dict(os.environ), target, *args))
    process.start()
    return process


def _in_environment(environment: dict[str, str], target: Callable[..., Any], *args: Any) -> None:
    """It has the environment of when the server started."""
    os.environ.update(environment)
    target(*args)


class Place:
    """One kind of store in which the jobs of a test write, and die."""

    def out(self, name: str) -> str:
        """Return the address of an output."""
        raise NotImplementedError

    def following(self, out: str) -> str:
        """Return where a new result for an output grows."""
        return str(following(open_store(out)))

    def arm(self, out: str, after: int = -1) -> None:
        """Count changes below the output, and let none happen after so many."""
        raise NotImplementedError

    def disarm(self) -> int:
        """Return how many there were; let all happen again."""
        raise NotImplementedError

    deaths: tuple[type[BaseException], ...]

    def kill(self, below: str, after: int, run: Callable[[], Any]) -> None:
        """Run what dies after so many changes below an output."""
        self.arm(below, after)
        with pytest.raises(self.deaths):
            run()
        self.disarm()

    def forget_owner(self, out: str) -> None:
        """As if the process that held the folder were gone."""
        open_store(out).delete_folder("_job/heartbeats")

    def at_once(self, target: Callable[..., None], argument_lists: Iterable[Any]) -> list[Any]:
        """Call the function in a process for each list of arguments, all at once; return what each
        puts into the queue that it gets last.
        """
        said = PROCESSES.Queue()
        processes = [started(target, *arguments, said) for arguments in argument_lists]
        answers = [said.get(timeout=60) for _ in processes]
        for process in processes:
            process.join(60)
        return answers

    def run_until_killed(self, out: str, after: int, run: Callable[[str], None]) -> bool:
        """Run `run(out)` in a process that is killed after so many changes; say if it ended."""
        process = started(self._doomed, out, after, run)
        self._follow(out, after, process)
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
        return process.exitcode == 0

    def _follow(self, out: str, after: int, process: Any) -> None:
        """Kill the process from here, if it does not do so itself."""

    @staticmethod
    def _doomed(out: str, after: int, run: Callable[[str], None]) -> None:
        run(out)


class Folder(Place):
    deaths = (Killed,)

    def __init__(self, root: Path, switch: KillSwitch) -> None:
        self._root, self._switch = root, switch

    def out(self, name: str) -> str:
        return str(self._root / name)

    def arm(self, out: str, after: int = -1) -> None:
        self._switch.arm(Path(out), after)

    def disarm(self) -> int:
        self._switch.disarm()
        return self._switch.count

    @staticmethod
    def _doomed(out: str, after: int, run: Callable[[str], None]) -> None:
        KillSwitch(lambda: os.kill(os.getpid(), signal.SIGKILL)).arm(Path(out), after)
        run(out)


class Bucket(Place):
    deaths = (RerankError,)

    def __init__(self, server: S3Server, folder: str) -> None:
        self.server, self._folder, self._count = server, folder, 0

    def out(self, name: str) -> str:
        return f"s3://{BUCKET}/{self._folder}/{name}"

    def arm(self, out: str, after: int = -1) -> None:
        self._count = 0

        def fault(method: str, key: str) -> str:
            dead = 0 <= after <= self._count
            if method not in ("GET", "HEAD") and "heartbeats" not in key and not dead:
                self._count += 1
            return REFUSED if dead else ""

        self.server.fault = fault

    def disarm(self) -> int:
        self.server.fault = _none
        return self._count

    def _follow(self, out: str, after: int, process: Any) -> None:
        self.arm(out)
        counted = self.server.fault

        def fault(method: str, key: str) -> str:
            counted(method, key)
            if self._count > after and process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
            return ""  # what was asked for happens: only the reply finds nobody

        self.server.fault = fault
