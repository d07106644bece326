"""One real local Ray for every slow test of a session; the front ends share it, as on a cluster."""

from collections.abc import Iterator

import pytest


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
