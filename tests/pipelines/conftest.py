"""A small real Ray for the slow tests, and Parquet inputs for all."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.inputs import listing

WORDS = "river stone lamp green music paper window bridge 北京 大学 公司 天气 音乐".split()  # noqa: SIM905


def _make_rows(queries: int, per_query: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of the pairs shape with two columns of their own, in an order that mixes queries."""
    rng = random.Random(seed)
    texts = [" ".join(rng.sample(WORDS, 3)) for _ in range(queries)]
    rows = [
        {
            "query_id": f"q{query}",
            "query": texts[query],
            "doc_id": f"d{query}-{place}",
            "text": " ".join(rng.choices(WORDS, k=rng.randint(3, 30))),
            "first_stage": rng.random(),
            "place": place,
        }
        for query in range(queries)
        for place in range(per_query)
    ]
    rng.shuffle(rows)
    return rows


def _write_files(folder: Path, rows: list[dict[str, Any]], files: int, group: int) -> Path:
    """Spread the rows over Parquet files with row groups of `group` rows."""
    folder.mkdir(parents=True, exist_ok=True)
    step = -(-len(rows) // files)
    for number in range(files):
        part = rows[number * step : (number + 1) * step]
        pq.write_table(
            pa.Table.from_pylist(part), folder / f"{number}.parquet", row_group_size=group
        )
    return folder


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    return _make_rows


@pytest.fixture(scope="session")
def write_files() -> Callable[..., Path]:
    return _write_files


@pytest.fixture
def pairs_input(tmp_path: Path) -> Path:
    """600 pairs of 30 queries in 3 files, each query in all of them."""
    return _write_files(tmp_path / "in", _make_rows(30, 20), files=3, group=70)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Any]:
    """An S3 server in this process, and in the environment what its clients need."""
    sys.path.insert(0, str(Path(__file__).parent))
    from places import S3Server

    with S3Server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def azurite() -> Iterator[Any]:
    """Azure's emulator, and in the environment what its clients need."""
    sys.path.insert(0, str(Path(__file__).parent))
    from places import Azurite

    if not (Azurite.program.exists() and shutil.which("node")):
        pytest.skip("azurite is not installed: make azurite")
    with Azurite() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def switch() -> Any:
    """What kills jobs at their operations on a local folder; one serves all tests."""
    from protocol import KillSwitch

    return KillSwitch()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of writes wait for no disk."""
    place = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=place if place.is_dir() else tmp_path))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["folder", "bucket", pytest.param("azure", marks=pytest.mark.chaos)])
def place(request: pytest.FixtureRequest, memory: Path) -> Iterator[Any]:
    """A place for outputs, once of each kind."""
    sys.path.insert(0, str(Path(__file__).parent))
    from places import Bucket, Folder

    if request.param == "folder":
        found = Folder(memory, request.getfixturevalue("switch"))
    else:
        server = {"bucket": "s3_server", "azure": "azurite"}[request.param]
        found = Bucket(request.getfixturevalue(server), memory.name)
    yield found
    found.disarm()


@pytest.fixture(scope="session")
def small_ray(local_ray: None) -> None:
    """The session's own Ray."""


@pytest.fixture
def listed(monkeypatch) -> list[str]:
    """Every path that is listed from now on, as often as it is."""
    found, expand = [], listing._expand

    def count(text: str, *given: Any) -> Any:
        found.append(text)
        return expand(text, *given)

    monkeypatch.setattr(listing, "_expand", count)
    return found
