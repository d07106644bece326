"""The same jobs into a folder and into a bucket: killed, fought over, refused, slowed down."""

from __future__ import annotations

import functools
import io
import json
import pickle
import random
import sys
import threading
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from places import BLIND, BUSY, CONFLICT, LOST, PROCESSES, REFUSED, SLOW, Bucket, started, thirds
from protocol import LEXICAL, InProcess, job, rows_of

import pipelines
from pipelines.commits import lease
from pipelines.commits.lease import STALE_S, Lease, heartbeat_key
from pipelines.commits.object_store import ObjectStore
from pipelines.commits.records import Fenced, JobFolder, OutputRefused, epoch_key, is_complete
from pipelines.commits.store import json_bytes, open_store
from pipelines.commits.verify import verify
from pipelines.config import RerankJobConfig
from pipelines.engine import JobContext
from pipelines.rerank_job import main, run_job
from pipelines.stages.failures import read_line
from pipelines.stages.score import ScoreUnits
from rerank_core import InvalidRequest

pytestmark = pytest.mark.seconds

WHAT_IS_LEFT = ["_SUCCESS", "_job", "_manifest.json", "_quarantine", "_report.html", "data"]


@pytest.fixture
def small(memory, make_rows, write_files):
    """40 pairs of 4 queries in 2 files of a unit each, every query in both, a row without text."""
    rows = make_rows(4, 10)
    rows[17]["text"] = None
    return write_files(memory / "in", rows, files=2, group=20)


def run(folder, out):
    job(folder, out, unit_pairs=20, top_k=7, file_size=20_000)


@pytest.fixture
def expected(small, memory):
    run(small, memory / "whole")
    return rows_of(memory / "whole")


@pytest.mark.seconds
@thirds
def test_a_job_killed_at_any_change_ends_with_the_same_rows(place, small, expected, third):
    counted = place.out("counted")
    place.arm(counted)
    run(small, counted)
    changes = place.disarm()
    assert changes > 25
    for change in range(third, changes, 3):
        out = place.out(f"out{change}")
        place.kill(out, change, functools.partial(run, small, out))
        place.forget_owner(out)
        if not is_complete(open_store(out)):
            with pytest.raises(InvalidRequest):
                pipelines.read_output(out)
        run(small, out)
        assert rows_of(out) == expected, f"killed at change {change}"
        assert verify(out)["rows_in"] == 40
        # A dot marks a write that was never finished.
        left = [name for name in open_store(out).children() if not name.startswith(".")]
        assert left == WHAT_IS_LEFT


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("place", "seed"),
    [
        *((place, seed) for place in ("folder", "bucket") for seed in range(20)),
        *(pytest.param("azure", seed, marks=pytest.mark.chaos) for seed in range(5)),
    ],
    indirect=["place"],
)
def test_processes_killed_again_and_again_lose_nothing_and_repeat_nothing(
    place, small, expected, seed
):
    rng = random.Random(seed)
    out, doomed = place.out("out"), functools.partial(run, small)
    for _ in range(3):
        if place.run_until_killed(out, rng.randrange(1, 40), doomed):
            break
        place.disarm()
    run(small, out)
    assert rows_of(out) == expected
    assert verify(out)["rows_out"] == len(expected)


def test_a_process_to_be_killed_starts_with_everything_imported():
    started(len, "its server").join(60)
    asked = "import sys; sys.exit('pipelines.rerank_job' not in sys.modules)"
    process = PROCESSES.Process(target=exec, args=(asked,))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def try_run(folder, out, said):
    try:
        run(folder, out)
        said.put("done")
    except OutputRefused as error:
        said.put(str(error))


@pytest.mark.seconds
def test_of_two_jobs_at_once_one_works_and_the_other_is_told(place, small, expected):
    out = place.out("out")
    answers = set(place.at_once(try_run, [(small, out)] * 2))
    assert "done" in answers
    # The second may come when the first has ended.
    assert all("held by another" in a or "just started" in a for a in answers - {"done"})
    assert rows_of(out) == expected
    assert verify(out)["rows_in"] == 40


def test_a_second_job_is_refused_while_the_first_lives(place, small):
    out = place.out("out")
    with Lease(open_store(out)), pytest.raises(OutputRefused, match="is held by another job"):
        run(small, out)
    run(small, out)
    assert verify(out)["rows_in"] == 40


class Elsewhere:
    """A reader's clock that moves only while it waits, and an owner's heart that may beat then."""

    def __init__(self, beat=None):
        self.now, self.beat = 0.0, beat

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        if self.beat:
            self.beat()


def give_to_another_host(folder):
    named = {"host": "elsewhere", "namespace": "theirs", "pid": 1, "started": "1"}
    folder.store.replace(epoch_key(1), json_bytes(named))


def test_an_owner_on_another_host_whose_heart_beats_is_not_taken_over(place, monkeypatch):
    with Lease(open_store(place.out("out"))) as old:
        give_to_another_host(old)
        elsewhere = Elsewhere(lambda: old.store.replace(heartbeat_key(1), b"another beat"))
        monkeypatch.setattr(lease, "time", elsewhere)
        with pytest.raises(OutputRefused, match="elsewhere"), Lease(old.store):
            pass
        assert elsewhere.now < STALE_S


def test_a_silent_owner_on_another_host_is_taken_over_and_fenced(place, small, monkeypatch):
    out = place.out("out")
    with Lease(open_store(out)) as old:
        give_to_another_host(old)
        silent, said = Elsewhere(), []
        monkeypatch.setattr(lease, "time", silent)
        with Lease(old.store, lambda *step: said.append(step)) as new:
            assert new.epoch == 2
        assert silent.now >= STALE_S
        assert said[-1] == ("seconds without a heartbeat of process 1 on elsewhere", 60, 60)
        run(small, out)
        with pytest.raises(Fenced, match="epoch 3"):
            old.publish("units", "000009", {"counts": {}})
        assert old.store.names("_job/units", ".json") == ["000000", "000001"]


def test_exactly_one_of_many_creators_wins(place):
    store, won = open_store(place.out("out")), []
    threads = [
        threading.Thread(target=lambda n=n: won.append(n) if store.create_json("r", n) else None)
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.read_json("r")] == won


def test_what_is_written_is_found_as_it_is(place):
    store = open_store(place.out("out"))
    assert (store.children(), store.names("a"), store.read_json("a/1.json")) == ([], [], None)
    store.create_json("a/1.json", 1)
    store.replace("a/2.json", b"22")
    store.replace("a/2.json", b"0123456789")
    assert (store.mark("a/3"), store.mark("a/3")) == (True, False)
    assert store.names("a", ".json") == ["1", "2"]
    assert len(store.names("a", most=2)) == 2
    assert bytes(store.read_part("a/2.json", 3, 6)) == b"345"
    assert (store.size("a/2.json"), store.size("a")) == (10, None)
    assert store.with_file("a/2.json", lambda file: (file.seek(8), file.read())) == (8, b"89")
    for _ in range(2):
        store.place("a", "b", ["1.json", "2.json"], lambda done: None)
    assert set(store.names("b")) >= {"1.json", "2.json"}
    store.delete(["b/1.json", "b/none"])
    store.delete_folder("a")
    store.delete_folder("none")
    assert (store.size("b/1.json"), store.names("a")) == (None, [])
    with pytest.raises(FileNotFoundError):
        store.read("b/1.json")


@pytest.fixture
def bucket(s3_server, memory):
    yield Bucket(s3_server, memory.name)
    s3_server.fault = lambda method, key: ""


def once(kind, method="PUT"):
    """A fault that strikes the first request of a method."""
    struck = []
    return lambda m, key: kind if m == method and not struck and not struck.append(1) else ""


@pytest.mark.parametrize("fault", [BUSY, CONFLICT, LOST, SLOW])
def test_a_create_that_fails_once_or_whose_reply_is_lost_has_won(bucket, fault):
    store = ObjectStore(bucket.out("out"), timeout_s=1.0)
    bucket.server.fault = once(fault)
    assert store.create_json("record", "mine")
    assert not store.create_json("record", "another")
    assert store.read_json("record") == "mine"


@pytest.mark.parametrize("fault", [BUSY, LOST, SLOW])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_other_requests_that_fail_once_are_made_again(bucket, fault, method):
    store = ObjectStore(bucket.out("out"), timeout_s=1.0)
    store.replace("a/1", b"one")
    bucket.server.fault = once(fault, method)
    assert (bytes(store.read("a/1")), store.size("a/1"), store.names("a")) == (b"one", 3, ["1"])
    store.delete_folder("a")
    assert store.names("a") == []


@pytest.mark.seconds
@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_is_busy_or_loses_replies_costs_no_row(bucket, small, expected, seed):
    rng, out = random.Random(seed), bucket.out("out")
    bucket.server.fault = lambda method, key: rng.choices(("", BUSY, LOST), (90, 5, 5))[0]
    run(small, out)
    bucket.server.fault = lambda method, key: ""
    assert rows_of(out) == expected
    assert verify(out)["rows_in"] == 40


@pytest.fixture
def requests(bucket, memory, write_files, monkeypatch):
    """Counts what a job of so many units asks of a bucket, by method and by kind of file."""
    monkeypatch.setattr(lease, "HEARTBEAT_S", 3600.0)  # they come by time, not by unit

    def count(rows, units, **options):
        folder = write_files(memory / f"in{units}", rows, files=1, group=1000)
        seen = Counter()

        def note(method, key):
            seen[f"{method} {key.partition('/_job/')[2].partition('/')[0]}".rstrip()] += 1
            return ""

        bucket.server.fault = note
        job(folder, bucket.out(f"out{units}"), unit_pairs=10, **options)
        assert len(open_store(bucket.out(f"out{units}")).names("_job/units")) == units
        return seen

    return count


def test_a_unit_whose_queries_cross_units_costs_five_operations(requests, make_rows):
    few, many = (requests(make_rows(10, units), units) for units in (32, 160))
    # Written, looked whether another job has taken over, made to count; scores and rows read.
    each = {"PUT data": 1, "HEAD epochs": 1, "PUT units": 1, "GET data": 2}
    assert many - few == {kind: 128 * count for kind, count in each.items()}
    assert many.total() < 6 * 160  # all that a job asks for


def test_a_unit_of_nested_rows_costs_six_operations(requests, make_rows):
    row = {"query": "river", "candidates": make_rows(1, 10)}
    few, many = (requests([row | {"query_id": n} for n in range(u)], u) for u in (32, 160))
    # The ranks are read, by footer and column, and the file is copied into its place.
    each = {"PUT data": 1, "HEAD epochs": 1, "PUT units": 1, "GET data": 2, "PUT": 1}
    assert many - few == {kind: 128 * count for kind, count in each.items()}


def test_what_people_read_in_a_bucket_is_the_result_alone(bucket, small, expected):
    out, store = bucket.out("out"), open_store(bucket.out("out"))
    said = io.StringIO()
    config = {"input": (str(small),), "output": out, "scorer": LEXICAL, "unit_pairs": 20}
    config |= {"top_k": 7, "file_size": 5_000}
    run_job(RerankJobConfig(**config, progress_s=1e-9), out=said, engine=InProcess())
    assert "checking ranks, checked: 1 of 1" in said.getvalue()
    assert "committing, files in place: 2 of 2" in said.getvalue()
    files = [Path(file).name for file in pads.dataset(out).files]
    assert sorted(files) == store.names("data")
    ordered = pipelines.read_output(out).to_table().to_pylist()
    assert sorted(ordered, key=lambda r: (r["query_id"], r["doc_id"], r["rank"])) == expected
    left = {name for name in store.children("_job") if name not in ("plan.json", "model.json")}
    steps = {"units", "gathered", "ranks", "scattered", "final", "counted", "checked"}
    assert left == {"epochs"} | steps


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_what_is_made_parquet_first_lies_in_the_bucket_too(bucket, memory, small, expected):
    rows = pads.dataset(small).to_table().to_pylist()
    lines = memory / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = bucket.out("out")
    job(lines, out, unit_pairs=20, top_k=7)
    ranks = [{(r["doc_id"], r["rank"]) for r in found} for found in (rows_of(out), expected)]
    assert ranks[0] == ranks[1]
    assert "input" not in open_store(out).children("_job")  # what was made Parquet is gone


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://nobody/out", "there is no bucket s3://nobody"),
        ("az://container/out", "wants credentials: set AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_what_is_not_there_is_said_before_ray_starts(
    bucket, small, capsys, monkeypatch, address, said
):
    for name in ("ACCOUNT_NAME", "ACCOUNT_KEY", "ENDPOINT"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    assert main(["--input", str(small), "--output", address, "--model", "lexical"]) == 2
    assert said in last_line(capsys)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_bucket_without_permission_is_named_before_ray_starts(bucket, small, capsys, method):
    out = bucket.out("out")
    bucket.server.fault = lambda asked, key: REFUSED if asked == method else ""
    assert main(["--input", str(small), "--output", out, "--model", "lexical"]) == 2
    said = f"error: {out}: no permission (AccessDenied); the job lists, reads, writes and deletes"
    assert last_line(capsys) == f"{said} there"


def test_a_store_that_does_not_know_put_if_absent_is_refused_before_ray_starts(
    bucket, small, capsys
):
    out = bucket.out("out")
    bucket.server.fault = lambda method, key: BLIND
    assert main(["--input", str(small), "--output", out, "--model", "lexical"]) == 2
    assert f"{out} writes over files that it was asked to spare" in last_line(capsys)


def test_missing_credentials_are_named_before_ray_starts(bucket, small, capsys, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    out = bucket.out("without-credentials")
    assert main(["--input", str(small), "--output", out, "--model", "lexical"]) == 2
    assert "wants credentials: set AWS_ACCESS_KEY_ID" in last_line(capsys)


@pytest.mark.parametrize("address", ["s3://nobody/out", "s3://bucket/elsewhere"])
def test_a_worker_that_does_not_reach_the_bucket_is_named_before_a_model_is_loaded(bucket, address):
    def no_model(config):
        raise AssertionError("a model was loaded")

    config = RerankJobConfig(input=("in",), output=address, scorer=LEXICAL)
    context = JobContext(JobFolder(open_store(address), 1), config, "pairs", 0)
    actor = ScoreUnits(pickle.loads(pickle.dumps(context)), no_model)
    with pytest.raises(OutputRefused, match="every machine must reach the same one there"):
        read_line(actor(pa.table({"unit": ["{}"]}))["line"][0].as_py())


def test_a_result_in_a_bucket_is_not_replaced(bucket, small):
    out = bucket.out("out")
    run(small, out)
    with pytest.raises(OutputRefused, match="cannot be exchanged"):
        job(small, out, top_k=1, overwrite=True)
    assert verify(out)["rows_in"] == 40


def test_an_output_inside_an_input_of_the_same_bucket_is_refused(bucket):
    with pytest.raises(InvalidRequest, match="lies inside the input"):
        job(bucket.out("in/"), bucket.out("in/out"))
