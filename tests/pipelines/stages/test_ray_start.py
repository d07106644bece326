"""A Ray that cannot or does not start is said in a line; none is needed to test that."""

import io
import socket
from types import SimpleNamespace

import pytest
import ray
from ray._private import worker
from ray.exceptions import RaySystemError

from pipelines.stages import ray_start
from pipelines.stages.ray_engine import RayEngine
from pipelines.stages.ray_start import ControlStoreWatch, RayFailed, connect
from rerank_core import InvalidRequest, RerankError

SLOW = Exception("The current node timed out during startup. This could happen because ...")


@pytest.mark.parametrize(
    ("address", "error", "line"),
    [
        (
            "local",
            SLOW,
            "Ray did not start: The current node timed out during startup; on a busy machine give"
            " it longer: RAY_raylet_start_wait_time_s=120",
        ),
        (
            "10.0.0.9:6379",
            ConnectionError("Could not connect to the cluster"),
            "Ray did not start: Could not connect to the cluster; is RAY_ADDRESS=10.0.0.9:6379 the"
            " cluster's?",
        ),
    ],
)
def test_a_ray_that_does_not_start_is_a_line_with_the_fix(monkeypatch, address, error, line):
    def init(**options):
        assert options["include_dashboard"] is (False if address == "local" else None)
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RerankError) as raised:
        connect()
    assert str(raised.value) == line


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize(
    ("address", "words"), [("ray://head:10001", "ray job submit"), ("local", "RAY_TMPDIR=/tmp")]
)
def test_an_address_by_which_no_job_runs_and_a_deep_folder_are_refused(
    monkeypatch, variable, address, words
):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, "/tmp/" + "deep" * 20)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InvalidRequest, match=words):
        connect()


def test_an_error_of_ray_is_a_line_that_says_where_its_words_are(monkeypatch):
    node = SimpleNamespace(get_logs_dir_path=lambda: "/tmp/ray/session/logs")
    monkeypatch.setattr(worker, "_global_node", node)
    with pytest.raises(RayFailed) as raised, RayEngine(io.StringIO()):
        raise RaySystemError("a document's words")
    assert str(raised.value) == (
        "Ray failed (RaySystemError): what is committed is safe, and the same command goes on;"
        " Ray's own words are in /tmp/ray/session/logs"
    )


@pytest.mark.parametrize("alone", [True, False])
def test_a_control_store_that_is_gone_ends_the_process_and_one_that_comes_back_does_not(
    monkeypatch, alone
):
    now_s, ended, out = iter(range(1000)), [], io.StringIO()
    back = {3: True, 4: True}  # gone for a moment, and then for good

    class Ended(BaseException):
        pass

    def end(code):
        ended.append(code)
        raise Ended

    monkeypatch.setattr(ray_start, "_LOOK_EVERY_S", 0)
    monkeypatch.setattr(ray_start.time, "monotonic", lambda: next(now_s))
    looks = iter(range(1000))
    monkeypatch.setattr(ray_start, "answers", lambda address: back.get(next(looks), False))
    monkeypatch.setattr(ray_start.os, "_exit", end)
    monkeypatch.setattr(ray_start.threading, "Thread", lambda **how: SimpleNamespace(start=int))
    with pytest.raises(Ended):
        ControlStoreWatch("head:6379", alone, out)._loop()
    limit = 5 if alone else 20
    assert (ended, next(looks)) == ([1], 5 + limit + 1)
    assert out.getvalue() == (
        f"\nerror: Ray's control store (head:6379) has been gone for {limit} s: what is committed"
        " is safe, and the same command goes on\n"
    )


def test_who_listens_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert ray_start.answers(address)
    assert not ray_start.answers(address)
