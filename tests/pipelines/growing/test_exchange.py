"""Who may write when a result is replaced: late workers, second jobs, and what a kill leaves."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

sys.path.insert(0, str(Path(__file__).parents[1]))
from places import Bucket
from protocol import InProcess, Stop, job, rows_of

from pipelines import job as steps
from pipelines import run
from pipelines.commits import local_files
from pipelines.commits.lease import Lease
from pipelines.commits.records import Fenced, OutputRefused
from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from pipelines.growing.exchange import finish_exchange, replace_result
from pipelines.stages.failures import read_line
from pipelines.stages.read import read_slice, slice_row
from pipelines.stages.score import ScoreUnits
from rerank_core import load_scorer

OPTIONS = {"unit_pairs": 10}


class Holding(InProcess):
    """Its driver dies while an actor holds units."""

    def score_units(self, context, slices, files, texts, load):
        actor = ScoreUnits(context, load)
        batch = pa.Table.from_pylist([slice_row(slices[-1], files[slices[-1].file])])
        units = list(read_slice(batch, context.config, texts, context.schema))
        self.late = [partial(actor, unit) for unit in units]
        raise Stop
        yield


class After(InProcess):
    """An actor of a dead driver is done only now, and must not count."""

    def __init__(self, held):
        self.held = held

    def score_units(self, *arguments):
        assert len(self.held.late) > 1
        for call in self.held.late:
            with pytest.raises(Fenced):
                read_line(call()["line"][0].as_py())
        yield from super().score_units(*arguments)


@pytest.fixture
def rows(make_rows):
    """100 pairs of 5 queries, mixed."""
    return make_rows(5, 20)


@pytest.fixture
def write(memory):
    """Write these rows as a file of this number; return the folder of all."""
    folder = memory / "in"
    folder.mkdir()

    def write(number, rows, schema=None):
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=15)
        return folder

    return write


@pytest.fixture
def bucket_place(s3_server, memory):
    found = Bucket(s3_server, memory.name)
    yield found
    found.disarm()


def ids(rows):
    return sorted((row["query_id"], row["doc_id"]) for row in rows)


def appended(folder, out, load=load_scorer, **changes):
    return job(folder, out, load, append=True, **OPTIONS | changes)


@pytest.mark.parametrize("ended", [False, True])
def test_a_late_worker_of_an_append_writes_nothing_into_the_next(place, rows, write, ended):
    out, held = place.out("out"), Holding()
    folder = write(0, rows[:40])
    job(folder, out, **OPTIONS)
    write(1, rows[40:70])
    with pytest.raises(Stop):
        appended(folder, out, engine=held)
    if ended:
        appended(folder, out)
        write(2, rows[70:])
        expected = rows
    else:
        write(1, rows[70:])
        expected = rows[:40] + rows[70:]
    appended(folder, out, engine=After(held))
    assert ids(rows_of(out)) == ids(expected)
    assert verify(out)["rows_in"] == len(expected)


@pytest.mark.parametrize("ended", [False, True])
def test_a_late_worker_of_an_overwrite_writes_nothing_into_the_next(tmp_path, rows, write, ended):
    out, held = tmp_path / "out", Holding()
    job(write(0, rows[:20]), out, **OPTIONS)
    folder = write(0, rows[20:60])
    with pytest.raises(Stop):
        job(folder, out, engine=held, overwrite=True, **OPTIONS)
    if ended:
        job(folder, out, overwrite=True, **OPTIONS)
    write(0, rows[60:])
    job(folder, out, engine=After(held), overwrite=True, **OPTIONS)
    assert ids(rows_of(out)) == ids(rows[60:])
    assert verify(out)["rows_in"] == 40


def grown(place, rows, write):
    """A finished output of one file, and a second file."""
    out = place.out("out")
    job(write(0, rows[:40]), out, **OPTIONS)
    return write(1, rows[40:]), out


def test_a_second_job_is_refused_until_the_result_is_in_its_place(place, rows, write, monkeypatch):
    folder, out = grown(place, rows, write)
    refused = []

    def replace(*given):
        with pytest.raises(OutputRefused, match="is held by another job"):
            appended(folder, out)
        refused.append(given)
        return replace_result(*given)

    monkeypatch.setattr(run, "replace_result", replace)
    appended(folder, out)
    assert len(refused) == 1
    assert (ids(rows_of(out)), verify(out)["rows_in"]) == (ids(rows), 100)
    assert open_store(place.following(out)).children() == []


def test_a_second_overwrite_is_refused_until_the_result_is_in_its_place(
    tmp_path, rows, write, monkeypatch
):
    out, refused = tmp_path / "out", []
    folder = write(0, rows)
    job(folder, out, **OPTIONS)

    def replace(*given):
        with pytest.raises(OutputRefused, match="is held by another job"):
            job(folder, out, overwrite=True, top_k=1, **OPTIONS)
        refused.append(given)
        return replace_result(*given)

    monkeypatch.setattr(run, "replace_result", replace)
    job(folder, out, overwrite=True, top_k=1, **OPTIONS)
    assert len(refused) == 1
    assert (len(rows_of(out)), verify(out)["rows_in"]) == (5, 100)
    assert os.listdir(tmp_path) == ["out"]


def test_a_job_that_ended_while_another_began_is_not_done_again(place, rows, write, monkeypatch):
    folder, out = grown(place, rows, write)
    choose, first = run.choose_folder, []

    def choose_late(*given):
        chosen = choose(*given)
        if not first:
            first.append(chosen)
            first.append(appended(folder, out))
        return chosen

    monkeypatch.setattr(run, "choose_folder", choose_late)
    assert appended(folder, out) == first[1]
    assert (ids(rows_of(out)), verify(out)["rows_in"]) == (ids(rows), 100)


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_job_that_begins_within_an_exchange_finds_the_new_result(
    tmp_path, rows, write, monkeypatch, in_one_step
):
    out, second = tmp_path / "out", []
    folder = write(0, rows[:40])
    job(folder, out, **OPTIONS)
    write(1, rows[40:])
    exchange, rename = local_files.exchange, os.rename

    def began():
        if not second:
            second.append(None)
            second.append(appended(folder, out)["counts"]["rows_in"])

    def exchange_then(new, root):
        done = in_one_step and exchange(new, root)
        if done:
            began()
        return done

    def rename_then(old, new):
        rename(old, new)
        if not in_one_step and str(new).endswith(".out.old"):
            began()

    monkeypatch.setattr(local_files, "exchange", exchange_then)
    monkeypatch.setattr(os, "rename", rename_then)
    assert appended(folder, out)["counts"]["rows_in"] == 100
    assert second == [None, 100]
    assert (ids(rows_of(out)), verify(out)["rows_in"]) == (ids(rows), 100)
    assert os.listdir(tmp_path) == ["out"]


def test_a_result_is_not_replaced_by_one_that_is_not_finished(place, rows, write):
    folder, out = grown(place, rows, write)
    with pytest.raises(Stop):
        appended(folder, out, engine=Holding())
    following, lease = open_store(place.following(out)), Lease(open_store(out))
    with lease as held, pytest.raises(OutputRefused, match="is no finished"):
        replace_result(held, following, lease.still, lambda step, done, of: None)
    assert (ids(rows_of(out)), verify(out)["rows_in"]) == (ids(rows[:40]), 40)


def test_what_a_killed_append_has_left_to_copy_is_copied_and_told(
    bucket_place, rows, write, monkeypatch
):
    folder, out = grown(bucket_place, rows, write)

    def killed(*given):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(run, "replace_result", killed)
        with pytest.raises(Stop):
            appended(folder, out)
    said = []
    finish_exchange(open_store(out), lambda *step: said.append(step))
    assert said[0][:2] == ("copied to data", 1)
    assert (ids(rows_of(out)), verify(out)["rows_in"]) == (ids(rows), 100)


def test_only_a_file_system_that_cannot_exchange_says_so(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(FileNotFoundError):
        local_files.exchange(tmp_path / "none", tmp_path / "one")
    assert os.listdir(tmp_path) == ["one"]


def test_report_and_delta_log_are_of_the_new_result_after_a_kill_before_them(
    place, rows, write, monkeypatch
):
    out, store = place.out("out"), open_store(place.out("out"))
    folder = write(0, rows[:50])
    job(folder, out, format="delta", **OPTIONS)
    # A later entry of whoever kept the table, too.
    store.replace(f"data/_delta_log/{1:020}.json", b'{"commitInfo": {}}\n')
    write(1, rows[50:])

    def killed(*given):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(steps, "write_extras", killed)
        with pytest.raises(Stop):
            appended(folder, out, format="delta")
    appended(folder, out, format="delta")
    assert store.names("data/_delta_log") == [f"{0:020}.json"]
    options = {"allow_http": "true"}
    table = DeltaTable(store.address("data"), storage_options=options).to_pyarrow_table()
    assert ids(table.to_pylist()) == ids(rows)
    assert b"50 rows of 1 files to" in bytes(store.read("_report.html"))
    assert verify(out)["rows_in"] == 100


def test_an_attempt_that_was_half_deleted_is_nobodys_work(bucket_place, rows, write):
    folder, out = grown(bucket_place, rows, write)
    with pytest.raises(Stop):
        appended(folder, out, engine=Holding())
    write(1, rows[40:70])
    # The plan is told apart, and some of the rest deleted.
    bucket_place.kill(out, 4, lambda: appended(folder, out))
    bucket_place.forget_owner(out)
    write(1, rows[40:])
    appended(folder, out)
    assert (ids(rows_of(out)), verify(out)["rows_in"]) == (ids(rows), 100)


@pytest.mark.parametrize("unreadable", [False, True])
def test_an_output_without_units_grows(place, rows, write, unreadable):
    out = place.out("out")
    folder = write(0, [], pa.Table.from_pylist(rows).schema)
    if unreadable:
        (folder / "bad.parquet").write_bytes(b"no Parquet")
    made = job(folder, out, max_bad_files=1, **OPTIONS)
    assert (made["counts"]["rows_in"], made["files"]) == (0, [])
    write(1, rows)
    again = appended(folder, out, max_bad_files=1)
    assert (ids(rows_of(out)), verify(out)["rows_in"]) == (ids(rows), 100)
    assert [Path(file["path"]).name for file in again["bad_files"]] == ["bad.parquet"] * unreadable
