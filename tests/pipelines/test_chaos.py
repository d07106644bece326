"""Kills workers, nodes and the driver of real Ray jobs; every row must come out once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from protocol import job, rows_of

from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from pipelines.stages.score import CALLS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SCRIPT = str(Path(__file__).parent / "deadly_job.py")
# Each takes about a minute on two cores, in each place; RERANK_CHAOS_SEEDS=20 runs the whole set.
SEEDS = range(int(os.environ.get("RERANK_CHAOS_SEEDS", "3")))
UNITS, UNIT_ROWS, ACTORS = 32, 500, 2
KINDS = ("worker", "node", "driver")


class Job:
    """One run of the command line in its own process, on its own Ray unless told an address."""

    def __init__(self, folder: Path, out: Path | str, *options: str, address: str = "") -> None:
        self.out, self.log = out, folder.with_name("calls.log")
        self._said = folder.with_name("job.log")
        self._options = [
            "--input", str(folder), "--output", str(out), "--model", "lexical",
            *(() if "--unit-pairs" in options else ("--unit-pairs", str(UNIT_ROWS))),
            *(() if "--replicas" in options else ("--replicas", str(ACTORS))), *options,
        ]  # fmt: skip
        self._address = address

    def start(self, pause_s: float = 0.0, **faults: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"DEADLY_PAUSE_S": str(pause_s), "DEADLY_LOG": str(self.log)}
        environment |= faults
        if self._address:
            environment["RAY_ADDRESS"] = self._address
        with self._said.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, SCRIPT, *self._options],
                env=environment,
                stderr=log,
                stdout=log,
                # A shell's background job ignores Ctrl-C and its children inherit that.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )

    def done(self) -> int:
        return len(open_store(self.out).names("_job/units", ".json"))

    def wait_for(self, units: int, process: subprocess.Popen[bytes], limit_s: float = 300) -> bool:
        """Wait until so many units are done; False if the job has ended."""
        end_s = time.monotonic() + limit_s
        while self.done() < units:
            assert time.monotonic() < end_s, self._said.read_text()[-2000:]
            if process.poll() is not None:
                return False
            time.sleep(0.1)
        return process.poll() is None

    def finish(self, process: subprocess.Popen[bytes]) -> int:
        return process.wait(400)


def processes_below(root: int, what: str) -> list[int]:
    """The descendants of a process whose command line has this in it."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
                names[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:
                continue
    found = []
    for pid, name in names.items():
        above = pid
        while above > 1 and above != root:
            above = parents.get(above, 0)
        if above == root and what in name:
            found.append(pid)
    return found


@pytest.fixture
def input_8_files(tmp_path, make_rows, write_files):
    rows = make_rows(UNITS * UNIT_ROWS // 20, 20)
    return write_files(tmp_path / "in", rows, files=8, group=UNIT_ROWS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def patiently(start: Callable[[], Any]) -> Any:
    """Start a node; Ray gives it 30 s, which is short on a busy machine."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


class TwoNodes:
    """A real cluster of two raylets on this machine, of which the second may be lost."""

    def __enter__(self) -> TwoNodes:
        from ray.cluster_utils import Cluster

        self._node = {"num_cpus": 1, "object_store_memory": 100 << 20}
        head = self._node | {"include_dashboard": False, "dashboard_agent_listen_port": free_port()}
        self._cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.address = self._cluster.address
        self._second = patiently(lambda: self._cluster.add_node(**self._node))
        return self

    def __exit__(self, *error: object) -> None:
        self._cluster.shutdown()

    def lose_a_node(self) -> None:
        """Kill the second node, and put another in its place."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = patiently(lambda: self._cluster.add_node(**self._node))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("place", ["folder", "bucket"], indirect=True)
def test_kills_of_workers_nodes_and_drivers_lose_nothing_and_repeat_nothing(
    tmp_path, input_8_files, place, seed, record_property
):
    rng = random.Random(seed)
    strikes = list(
        zip(sorted(rng.sample(range(1, UNITS - 2), 3)), rng.sample(KINDS, 3), strict=True)
    )
    with TwoNodes() as nodes:
        run = Job(input_8_files, place.out("out"), address=nodes.address)
        process = run.start(pause_s=0.3)
        for units, kind in strikes:
            if not run.wait_for(units, process):
                break
            if kind == "worker":
                found = processes_below(os.getpid(), "ScoreUnits")
                if found:
                    os.kill(rng.choice(found), signal.SIGKILL)
            elif kind == "node":
                nodes.lose_a_node()
            else:
                process.kill()
                process.wait()
                process = run.start(pause_s=0.3)
        assert run.finish(process) == 0, (tmp_path / "job.log").read_text()[-2000:]
    assert_whole(run, input_8_files, tmp_path / "calm")
    calls = len(run.log.read_text().splitlines())
    assert UNITS <= calls <= UNITS + len(strikes) * ACTORS
    record_property("rows", UNITS * UNIT_ROWS)
    record_property("lost", 0)
    record_property("twice", 0)


def assert_whole(run: Job, source: Path, calm: Path) -> None:
    """The rows and scores are those of an undisturbed run, each once."""
    job(source, calm, unit_pairs=UNIT_ROWS)
    assert rows_of(run.out) == rows_of(calm)
    assert verify(run.out)["rows_out"] == UNITS * UNIT_ROWS


def test_poison_rows_on_ray_are_exactly_those_set_aside(tmp_path, make_rows, write_files):
    rows = make_rows(8, 4)
    # Ends the process, kills it, never returns. Each death costs the start of another process, so
    # units are as small as they can be and still be halved twice around each.
    poisoned = {0: "@@exit", 4: "@@segv", 7: "@@hang"}
    for row, marker in poisoned.items():
        rows[row]["text"] = f"poison {marker} {row}"
    folder = write_files(tmp_path / "in", rows, files=1, group=8)
    run = Job(folder, tmp_path / "out", "--unit-pairs", "8", "--unit-timeout-s", "2")
    assert run.finish(run.start()) == 0, (tmp_path / "job.log").read_text()[-2000:]
    aside = pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()
    assert {(line["row"], line["reason"]) for line in aside} == {
        (row, "killed_worker") for row in poisoned
    }
    assert verify(tmp_path / "out")["rows_out"] == 32 - 3
    said = (tmp_path / "job.log").read_text()
    assert "a process has died (no. 1): a copy of the model" in said


def test_an_interrupted_job_ends_tidily_and_the_same_command_resumes(tmp_path, input_8_files):
    run = Job(input_8_files, tmp_path / "out")
    kept = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = run.start(pause_s=0.5)
        assert run.wait_for(kept + 2, process)
        process.send_signal(number)
        started_s = time.monotonic()
        assert run.finish(process) == 130
        assert time.monotonic() - started_s < 30
        said = (tmp_path / "job.log").read_text()
        (tmp_path / "job.log").unlink()
        assert "run the same command again" in said
        assert "Traceback" not in said
        kept = run.done()
        assert 2 <= kept < UNITS
    assert run.finish(run.start()) == 0
    calls = len(run.log.read_text().splitlines())
    # Each stop costs at most what an actor had in hand.
    assert calls <= UNITS + 2 * ACTORS * CALLS
    assert verify(tmp_path / "out")["rows_out"] == UNITS * UNIT_ROWS


def test_what_stops_a_worker_reaches_the_exit_code(tmp_path, make_rows, write_files):
    rows = make_rows(2, 10)
    rows[7]["text"] = "@@full"
    run = Job(write_files(tmp_path / "in", rows, files=1, group=20), tmp_path / "out")
    assert run.finish(run.start()) == 5
    said = (tmp_path / "job.log").read_text()
    assert "error: no space left" in said
    assert "run the same command again" in said


@pytest.mark.parametrize("cpus", [3, 2])  # of two the copies hold both, and readers none
def test_two_copies_share_a_gpu_in_a_pool_that_grows(tmp_path, input_8_files, cpus):
    from ray.cluster_utils import Cluster

    head = {"num_cpus": cpus, "num_gpus": 1, "object_store_memory": 100 << 20}
    head |= {"include_dashboard": False, "dashboard_agent_listen_port": free_port()}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
    try:
        run = Job(input_8_files, tmp_path / "out", "--replicas", "1:2", "--gpus-per-replica", "0.5",
                  address=cluster.address)  # fmt: skip
        assert run.finish(run.start(pause_s=0.2)) == 0, (tmp_path / "job.log").read_text()[-2000:]
    finally:
        cluster.shutdown()
    calls = [line.split()[0] for line in run.log.read_text().splitlines()]
    assert len(calls) == UNITS
    assert len(set(calls)) == 2
    assert verify(run.out)["rows_out"] == UNITS * UNIT_ROWS


def test_a_control_store_that_stays_away_ends_the_job_in_a_line(tmp_path, input_8_files):
    run = Job(input_8_files, tmp_path / "out")
    process = run.start(pause_s=0.5)
    assert run.wait_for(2, process)
    (store,) = processes_below(process.pid, "gcs_server")
    os.kill(store, signal.SIGKILL)
    started_s = time.monotonic()
    assert run.finish(process) == 1
    assert time.monotonic() - started_s < 20
    said = (tmp_path / "job.log").read_text()
    assert "error: Ray's control store (" in said
    assert "what is committed is safe, and the same command goes on" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert run.done() < UNITS
    assert run.finish(run.start()) == 0, (tmp_path / "job.log").read_text()[-2000:]
    assert_whole(run, input_8_files, tmp_path / "calm")


@pytest.mark.parametrize("deaths", [2, 99])
def test_deaths_of_a_reader_are_said_and_counted_and_the_fourth_ends_the_job(
    tmp_path, input_8_files, deaths
):
    run = Job(input_8_files, tmp_path / "out")
    ended = run.finish(run.start(DEADLY_READ="000004", DEADLY_READS=str(deaths)))
    said = (tmp_path / "job.log").read_text()
    told = re.findall(
        r"a process has died \(no. (\d)\): the reader of .*/1.parquet, rows 0 to", said
    )
    assert told == [str(number + 1) for number in range(min(deaths, 4))]
    assert "Traceback" not in said
    if deaths == 2:
        assert ended == 0
    else:
        assert ended == 1
        assert "error: 4 processes have died over " in said
        assert run.finish(run.start()) == 0
    made = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert made["scoring"]["retries"] == (2 if deaths == 2 else 0)
    assert_whole(run, input_8_files, tmp_path / "calm")


def test_the_terminal_shows_our_lines_and_one_of_rays_that_the_manual_names(
    tmp_path, make_rows, write_files
):
    folder = write_files(tmp_path / "in", make_rows(4, 10), files=1, group=20)
    run = Job(folder, tmp_path / "out", "--replicas", "1", "--progress-s", "1")
    assert run.finish(run.start()) == 0
    ours = ("lexical, fingerprint ", "done: 40 rows in, 40 out, ")
    progress = re.compile(r" *\d+\.\d %  \d+ of 40 rows  ")
    others = [
        line
        for line in (tmp_path / "job.log").read_text().splitlines()
        if not line.startswith(ours) and not progress.match(line)
    ]
    assert len(others) <= 1
    for line in others:
        assert "has constructor arguments in the object store and max_restarts > 0" in line
