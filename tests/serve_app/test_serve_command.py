"""The commands that users start: a stop cuts nobody off, and traces reach a collector."""

import contextlib
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serve_app.http.proxy import HAPROXY, PORTS
from serve_app.settings import Scaling
from tests.serve_app.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(400)]

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
BODY = {"query": "capital of China", "documents": ["bananas", "the capital of China"]}
PASS_S = 2.0
DRAIN_S = 30.0
APPLICATION = f"""
import time

from serve_app.application import build
from serve_app.config import ServeConfig
from rerank_core import load_scorer


def load(config):
    scorer = load_scorer(config)
    fast = scorer.score

    def slow(pairs):
        if len(pairs) > 1:  # not the probe of readiness
            time.sleep({PASS_S})
        return fast(pairs)

    scorer.score = slow
    return scorer


def app(args: ServeConfig):
    return build(args, load)
"""
FILE = """
http_options: {{host: 127.0.0.1, port: {port}}}
tracing_config:
  enabled: true
  sampling_ratio: 1.0
  exporter_import_path: serve_app.gateway.tracing:otlp
applications:
  - name: rerank
    import_path: slow:app
    args: {{model: lexical, warm_up: false, scaling: {{drain_s: {drain_s}}}}}
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def started(folder, command, *words):
    """Start a command in `folder` with a Ray of its own; yields the process and its log."""
    # Short, because Ray's socket paths may not exceed 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rr-", ignore_cleanup_errors=True) as ray_folder:
        environment = {
            **os.environ,
            "RAY_TMPDIR": ray_folder,
            "PYTHONPATH": str(folder),
            "PYTHONUNBUFFERED": "1",
            # Not Ray's own numbers, which another HAProxy of this machine may have.
            **{name: str(free_port()) for name in PORTS},
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [BIN / command, *words],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process.ray_folder = Path(ray_folder)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def in_background(function):
    """Call a function in a thread; returns it and a list that its result goes into."""
    outcomes = []

    def call():
        with contextlib.suppress(httpx.TransportError):
            outcomes.append(function())

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread, outcomes


def log_of(folder):
    return (folder / "log").read_text(errors="replace")[-4000:]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "slow.py").write_text(APPLICATION)
    return tmp_path


def wait_ready(process, url, folder):
    """Wait until a started command is ready, or has ended, which is an error."""

    def ready():
        assert process.poll() is None, log_of(folder)
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
        return False

    wait_for(ready, "a service that is ready", 240)


@contextlib.contextmanager
def serving(folder, command):
    """Start the slow application by a command; yields its process and URL once it is ready."""
    if command == "serve":
        port, words = 8000, ["run", "--address", "local", "slow:app", "model=lexical"]
        words += ["warm_up=false"]
    else:
        port, words = free_port(), ["--address", "local", "slow.yaml"]
        (folder / "slow.yaml").write_text(FILE.format(port=port, drain_s=DRAIN_S))
    url = f"http://127.0.0.1:{port}"
    with started(folder, command, *words) as process:
        wait_ready(process, url, folder)
        yield process, url


@pytest.fixture
def collected(monkeypatch):
    """A collector of traces on a port of its own; the attributes of each span that it got."""
    spans = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            sent = ExportTraceServiceRequest.FromString(body)
            for resource in sent.resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(
                        {pair.key: pair.value.int_value for pair in span.attributes}
                        for span in scope.spans
                    )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield spans
        server.shutdown()


def test_traces_reach_a_collector_and_say_what_became_of_a_request(folder, collected):
    with serving(folder, "rerank-serve") as (_, url):
        assert ask(url) == 200
        wait_for(lambda: any("rerank.documents" in span for span in collected), "the span", 60)
    (told,) = (span for span in collected if span.get("rerank.documents"))
    assert (told["rerank.documents"], told["rerank.status"], told["rerank.units"]) == (2, 200, 1)


def ask(url):
    return httpx.post(f"{url}/v2/rerank", json=BODY, timeout=60).status_code


@pytest.mark.parametrize(
    ("command", "haproxy"), [("serve", "1"), ("rerank-serve", "1"), ("rerank-serve", "0")]
)
def test_sigterm_answers_what_is_under_way_and_then_ends(folder, command, haproxy, monkeypatch):
    monkeypatch.setenv(HAPROXY, haproxy)
    with serving(folder, command) as (process, url):
        asked = [in_background(lambda: ask(url)) for _ in range(4)]
        time.sleep(1.0)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        # Readiness goes first, then new requests: both say so while others are answered.
        ready = httpx.get(f"{url}/health/ready", timeout=20)
        late = httpx.post(f"{url}/v2/rerank", json=BODY, timeout=20)
        assert (ready.status_code, late.status_code) == (503, 503)
        # HAProxy keeps its clients' connections, whatever becomes of a gateway.
        assert late.headers.get("connection", "kept") == ("kept" if haproxy == "1" else "close")
        assert late.json()["error"]["type"] == "service_unavailable_error"
        assert process.wait(timeout=DRAIN_S) == 0, log_of(folder)
        assert time.monotonic() - begun < DRAIN_S
        for thread, _ in asked:
            thread.join(5)
        assert [outcomes for _, outcomes in asked] == [[200]] * 4
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    assert "Traceback" not in log_of(folder)


def of_make(folder):
    """The command of `make serve`, and the port that it takes."""
    (recipe,) = re.findall(r"^serve:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    program, *words = recipe.replace("$(BIN)/", "").split()
    return program, words, 8000


def of_the_image(folder):
    """The image's command with its Serve file, on a free port of this machine."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    (command,) = re.findall(r"^CMD (\[.+\])$", dockerfile, re.MULTILINE)
    program, inside = json.loads(command)
    (source,) = re.findall(rf"^COPY .*?(\S+) {re.escape(inside)}$", dockerfile, re.MULTILINE)
    return program, *on_a_free_port(folder, ROOT / source)


def of_the_quickstart(folder):
    """`rerank-serve` with the laptop's Serve file, on a free port of this machine."""
    return "rerank-serve", *on_a_free_port(folder, ROOT / "serve_app" / "local.yaml")


def on_a_free_port(folder, source):
    """Copy a Serve file for this machine alone; return a command's words for it, and its port."""
    settings = yaml.safe_load(source.read_text())
    settings["http_options"] = {"host": "127.0.0.1", "port": free_port()}
    file = folder / source.name
    file.write_text(yaml.safe_dump(settings))
    return [str(file)], settings["http_options"]["port"]


def deployments(process):
    """The deployments that a command's Serve has started, by their logs."""
    logs = process.ray_folder.glob("ray/session_*/logs/serve/replica_*_*_*.log")
    return {log.name.split("_")[2] for log in logs}


@pytest.mark.parametrize("command", [of_make, of_the_image, of_the_quickstart])
def test_what_people_start_is_one_process_and_stops_within_its_time(tmp_path, command):
    program, words, port = command(tmp_path)
    url = f"http://127.0.0.1:{port}"
    with started(tmp_path, program, *words) as process:
        wait_ready(process, url, tmp_path)
        best, *_ = httpx.post(f"{url}/v2/rerank", json=BODY, timeout=60).json()["results"]
        assert best["index"] == 1
        assert deployments(process) == {"Gateway"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=Scaling().drain_s) == 0, log_of(tmp_path)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    assert "Traceback" not in log_of(tmp_path)


def test_a_second_sigterm_ends_at_once(folder):
    with serving(folder, "rerank-serve") as (process, url):
        for _ in range(10):
            in_background(lambda: ask(url))
        time.sleep(1.0)
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        # Ten passes of two seconds are not waited for.
        process.wait(timeout=12)
