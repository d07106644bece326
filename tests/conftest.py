"""One real local Ray, and Serve on it, for every slow test of a session."""

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator

import pytest

pytest_plugins = ["tests.skips"]
# On a busy machine nodes register late; for this process and those that tests start.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "150")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what starts or shares a Ray in one of the two processes of `make test`."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.xdist_group("ray"))


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
    serve.delete("embedded")


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
