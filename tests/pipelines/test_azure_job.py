"""A job whose output lies in Azure, as its own emulator has it; `make chaos` kills more of them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from places import LOST, Bucket
from protocol import job, rows_of

import pipelines
from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from rerank_core import InvalidRequest

pytestmark = pytest.mark.seconds


@pytest.fixture
def azure(azurite, memory):
    found = Bucket(azurite, memory.name)
    yield found
    found.disarm()


def test_a_job_that_was_killed_goes_on_and_has_the_rows_of_one_in_a_folder(
    azure, pairs_input, tmp_path
):
    plain, out = job(pairs_input, tmp_path / "out"), azure.out("out")
    azure.kill(out, 12, lambda: job(pairs_input, out))
    with pytest.raises(InvalidRequest, match="holds no finished job"):
        pipelines.read_output(out)
    azure.forget_owner(out)
    assert job(pairs_input, out)["counts"] == plain["counts"] == verify(out)
    assert rows_of(out) == rows_of(tmp_path / "out")


def test_what_is_scored_is_added_to_and_readers_see_the_whole(
    azure, tmp_path, make_rows, write_files
):
    rows, out = make_rows(5, 20), azure.out("out")
    job(write_files(tmp_path / "in", rows[:60], files=1, group=60), out)
    write_files(tmp_path / "more", rows[60:], files=1, group=60)
    (tmp_path / "more/0.parquet").rename(tmp_path / "in/1.parquet")
    job(tmp_path / "in", out, append=True)
    assert pipelines.read_output(out).count_rows() == verify(out)["rows_in"] == 100


def test_exactly_one_of_many_creators_wins_and_whose_answer_is_lost_has_won(azure):
    store = open_store(azure.out("out"))
    lost = iter([LOST])
    azure.server.fault = lambda method, key: next(lost, "") if method == "PUT" else ""
    assert store.create("a", b"mine")
    assert (store.create("a", b"theirs"), bytes(store.read("a"))) == (False, b"mine")
    assert store.mark("b")
    assert not store.mark("b")
