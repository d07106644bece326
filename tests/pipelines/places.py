"""Where the tests' jobs write, a folder or a bucket, and faults of either at any operation.

The buckets are moto's S3 server in this process and azurite, Azure's, in one of its own, each
behind a gate of ours that counts, refuses, fails, loses or delays requests: the job's own client
runs unchanged, over HTTP.
"""

from __future__ import annotations

import hmac
import http.client
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from email.utils import formatdate
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
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
_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}
Fault = Callable[[str, str], str]
# A job is killed at every third change in `make test`, and at the others in `make chaos`; in Azure
# at every third, and only there.
_CHAOS = [*((place, third) for third in (1, 2) for place in ("folder", "bucket")), ("azure", 0)]
thirds = pytest.mark.parametrize(
    ("place", "third"),
    [
        ("folder", 0),
        ("bucket", 0),
        *(pytest.param(*one, marks=pytest.mark.chaos) for one in _CHAOS),
    ],
    indirect=["place"],
)


def _none(method: str, key: str) -> str:
    return ""


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args: object) -> None:
        """Say nothing."""


class Gate:
    """Lets requests through to a store with one bucket, `app`; `fault` says of a request's method
    and key what happens to it.
    """

    scheme, slow_s = "", 1.5

    def __init__(self, app: Callable[..., Iterable[bytes]], root: str) -> None:
        self._app, self._root = app, root
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self._server.daemon_threads = True
        # Moto looks, then writes: two writers at once would both find the key free.
        self._lock: AbstractContextManager[Any] = threading.Lock()
        self.fault: Fault = _none
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """What a client's process must have in its environment."""
        raise NotImplementedError

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        key = environ["PATH_INFO"].removeprefix(self._root).lstrip("/")
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


class S3Server(Gate):
    """Moto's S3."""

    scheme = "s3"

    def __init__(self) -> None:
        # Not moto's dispatcher, which looks for the folders of all its services at each request.
        super().__init__(create_backend_app("s3"), f"/{BUCKET}")

    def __enter__(self) -> S3Server:
        self.start()
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

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }


class Azurite(Gate):
    """Azure's own emulator of its blobs, as npm has it; `make azurite` installs it."""

    scheme = "az"
    program = Path(__file__).parents[2] / ".azurite/node_modules/.bin/azurite-blob"
    # The account that it has, as its manual prints it.
    account = "devstoreaccount1"
    _key = (
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    )

    def __init__(self) -> None:
        super().__init__(self._forward, f"/{self.account}/{BUCKET}")
        self._lock = nullcontext()  # it lets one of many writers win by itself

    def __enter__(self) -> Azurite:
        options = ("--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry", "--silent")
        command = [str(self.program), *options, "--skipApiVersionCheck"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        try:
            said = next((line for line in self._process.stdout if "listens on" in line), "")
            assert said, f"azurite ended with {self._process.wait()}"
            self._port = int(said.rpartition(":")[2])
            self.start()
            self._create_container()
        except BaseException:
            self._process.kill()
            raise
        return self

    def _create_container(self) -> None:
        """Ask for what obstore does not know, signed as Azure's manual says (Shared Key)."""
        path = f"/{self.account}/{BUCKET}"
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        lines = [f"{name}:{value}" for name, value in headers.items()]
        resource = [f"/{self.account}{path}", "restype:container"]
        text = "\n".join(["PUT", *[""] * 11, *lines, *resource])
        signed = hmac.digest(b64decode(self._key), text.encode(), "sha256")
        headers["Authorization"] = f"SharedKey {self.account}:{b64encode(signed).decode()}"
        url = f"{self.endpoint}{path}?restype=container"
        answer = requests.put(url, headers=headers, timeout=30)
        assert answer.status_code == 201, answer.text

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        with self._process:
            self._process.kill()

    def environment(self) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self._key,
            "AZURE_STORAGE_ENDPOINT": f"{self.endpoint}/{self.account}",
        }

    def _forward(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
        }
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        to = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        to.request(environ["REQUEST_METHOD"], environ["RAW_URI"], body, headers)
        answer = to.getresponse()
        said = answer.read()
        to.close()
        kept = [pair for pair in answer.getheaders() if pair[0].lower() not in _OF_ONE_CONNECTION]
        start(f"{answer.status} {answer.reason}", kept)
        return [said]


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

    def __init__(self, server: Gate, folder: str) -> None:
        self.server, self._folder, self._count = server, folder, 0

    def out(self, name: str) -> str:
        return f"{self.server.scheme}://{BUCKET}/{self._folder}/{name}"

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
