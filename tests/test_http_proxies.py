"""`http_proxy` without `no_proxy` breaks nothing that asks a service on this machine."""

import re
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

with warnings.catch_warnings():
    # Ray declares its own pydantic fields in a deprecated way; ours must stay free of it.
    warnings.simplefilter("ignore")
    from benchmarks.local_serve import wait_until
from tools.demo import service

DOCKERFILE = Path(__file__).parents[1] / "deploy" / "Dockerfile"
DEAD = "http://127.0.0.1:9"


class Ready(BaseHTTPRequestHandler):
    """Answers every GET."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def url(monkeypatch):
    """The URL of a service that is ready, with variables of a proxy that is not."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, DEAD)
        monkeypatch.setenv(name.upper(), DEAD)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_client_that_heeds_them_fails(url):
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_the_demo_finds_its_service(url, tmp_path):
    running = SimpleNamespace(poll=lambda: None)
    service._wait_until_ready(url, running, tmp_path / "log", 10)


def test_benchmarks_find_theirs(url):
    wait_until(f"{url}/health/ready", 5)


def test_the_health_check_of_the_image_finds_its_own(url):
    (code,) = re.findall(r'CMD \["python", "-c", "(.+)"\]', DOCKERFILE.read_text("utf-8"))
    here = code.replace("http://127.0.0.1:8000", url)
    assert here != code
    done = subprocess.run([sys.executable, "-c", here], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
