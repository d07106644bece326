"""One real local Ray, and Serve on it, for every slow test of a session."""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import venv
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
pytest_plugins = ["tests.skips"]
# On a busy machine nodes start late; for this process and those that tests start.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "150")
# Serve kills a proxy that takes 5 s to import it, and `serve.start` then fails on the dead one.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
# A proxy of the environment cannot reach this machine's own loopback.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, ("127.0.0.1,localhost", os.environ.get(_name))))
# As every command and file of ours sets it.
os.environ.setdefault(
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serve_app.http.upgrades:callback"
)


settings.register_profile("fast", max_examples=25)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in this hook, too.
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say what stays together in one of two processes, the longest first.

    That is what shares the session's Ray, or the installed wheel; of the rest each file, so that
    its fixtures are made once. What begins late must be short, or one process idles at the end.

    Of `make chaos` one process has all that kills parts of Ray, jobs first: meanwhile the other one
    ends its kills of writers, and services, which are asked for rates, have the machine alone.
    """
    if config.pluginmanager.hasplugin("xdist"):
        groups = {item: _group(item) for item in items}
        for item, group in groups.items():
            item.add_marker(pytest.mark.xdist_group(group))
        slow, seconds = (
            {groups[item] for item in items if item.get_closest_marker(mark)}
            for mark in ("slow", "seconds")
        )
        places = dict.fromkeys(seconds, 2) | dict.fromkeys(slow, 1) | {"ray": 0, "chaos": 0}
        items.sort(
            key=lambda item: (places.get(groups[item], 3), "pipelines" not in item.path.parts)
        )


def _group(item: pytest.Item) -> str:
    # The rooms of `pipelines` know nothing of Ray.
    if item.get_closest_marker("chaos") and item.path.parent.parent.name != "pipelines":
        return "chaos"
    fixtures: list[str] = item.fixturenames  # type: ignore[attr-defined]
    shared = {"local_ray": "ray", "installed": "installed"}
    return next((group for name, group in shared.items() if name in fixtures), item.path.name)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail where groups are asked for and not kept: each process would start every Ray again.

    pytest 9.2 took no heed of pytest-xdist 3.8's groups, and said nothing.
    """
    if getattr(session.config.option, "loadgroup", False):
        apart = [item.nodeid for item in session.items if "@" not in item.nodeid]
        if apart:
            raise pytest.UsageError(f"xdist keeps no groups, of {apart[0]} for one")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with our wheel, built just now, that sees our dependencies but not our source.

    Returns its `bin`, with our console scripts, `python`, and Ray's `serve`.
    """
    work = tmp_path_factory.mktemp("wheel")
    # A copy: an older build beside the source would get into the wheel.
    source = work / "source"
    source.mkdir()
    for name in ("rerank_core", "serve_app", "pipelines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--quiet", "--no-deps", "--no-index"]
    build = ["wheel", *offline, "--no-build-isolation", "--wheel-dir", work, source]
    subprocess.run([*pip, *build], check=True)
    environment = work / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    # What is in a folder named in a .pth file is found, but the .pth files in it are not read, and
    # one of those leads to our source.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (wheel,) = work.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", *offline, wheel], check=True)
    serve = environment / "bin" / "serve"
    serve.write_text(f"#!{python}\nfrom ray.serve.scripts import cli\n\ncli()\n")
    serve.chmod(0o755)
    return environment / "bin"


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of this session's own with four logical CPUs; it never joins another cluster."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def serve_instance(local_ray) -> Iterator[str]:
    """Serve on a free loopback port of the session's Ray; yields the base URL."""
    with warnings.catch_warnings():
        # Ray declares its own pydantic fields in a deprecated way; ours must stay free of it.
        warnings.simplefilter("ignore")
        from ray import serve

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def embedded_service(serve_instance, wait_ready) -> Iterator[str]:
    """The application with the embedded model, mounted beside others; yields its base URL."""
    from ray import serve

    from serve_app import app
    from serve_app.config import ServeConfig

    scorer = {"model": "embedded", "max_length": 256, "threads": 1}
    config = {"scorer": scorer, "scaling": {"cpus_per_replica": 0.5}}
    serve.run(app(ServeConfig.model_validate(config)), name="embedded", route_prefix="/embedded")
    wait_ready(f"{serve_instance}/embedded")
    yield f"{serve_instance}/embedded"
    serve.delete("embedded", _blocking=False)  # its replicas end beside the next tests


@pytest.fixture(scope="session")
def wait_ready() -> Callable[[str], None]:
    """Return a function that waits until the service at a base URL is ready."""
    import httpx

    def wait(url: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"{url} did not become ready")

    return wait
