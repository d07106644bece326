"""What `verify` says of damage: one line that names the file, and never a traceback."""

import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job

import pipelines
from pipelines.commits import verify as checks
from pipelines.commits.checks import Incomplete
from pipelines.commits.store import Damaged
from pipelines.commits.verify import verify
from pipelines.rerank_job import main

RECORDS = [f"_job/{stage}/000000.json" for stage in ("units", "ranks", "scattered", "final")]
OPTIONS = {"unit_pairs": 20, "file_size": 5_000}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_rows, write_files):
    folder = tmp_path_factory.mktemp("finished")
    made = write_files(folder / "in", make_rows(6, 10), files=2, group=20)
    job(made, folder / "out", **OPTIONS)
    return folder / "out"


@pytest.fixture
def out(tmp_path, finished):
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.mark.parametrize("key", ["_manifest.json", "_job/plan.json", *RECORDS])
@pytest.mark.parametrize("spoil", [lambda body: body[: len(body) // 2], lambda body: b"{}"])
def test_a_file_of_the_job_that_is_damaged_is_named(out, key, spoil, capsys):
    (out / key).write_bytes(spoil((out / key).read_bytes()))
    assert main(["verify", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"not sound: {out / key} is missing or damaged")
    assert said.count("\n") == 1


@pytest.mark.parametrize("value", [b"[1]", b"null", b'{"counts": {}, "data": null}', b"\xff"])
def test_a_record_of_other_values_is_damaged(out, value):
    (out / RECORDS[0]).write_bytes(value)
    with pytest.raises(Incomplete, match=r"units/000000.json is missing or damaged"):
        verify(out)


def test_what_is_gone_is_named(out):
    shutil.rmtree(out / "_job")
    with pytest.raises(Incomplete, match=r"_job/plan.json is missing or damaged"):
        verify(out)
    (out / "_manifest.json").unlink()
    with pytest.raises(Incomplete, match=r"_manifest.json is missing or damaged"):
        verify(out)
    with pytest.raises(Damaged, match=r"_manifest.json is missing or damaged"):
        pipelines.read_output(out)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'"plan"', b'{"identity": {}}'])
@pytest.mark.parametrize("option", [{}, {"overwrite": True}, {"append": True}])
def test_a_plan_that_is_none_is_named_by_a_job_that_finds_it(finished, out, body, option):
    (out / "_job/plan.json").write_bytes(body)
    with pytest.raises(Damaged, match=r"out/_job/plan.json is missing or damaged: put a copy"):
        job(finished.parent / "in", out, **OPTIONS, **option)


def test_a_plan_that_is_missing_is_named_by_a_dry_run_that_appends(finished, out, capsys):
    (out / "_job/plan.json").unlink()
    given = ["--input", str(finished.parent / "in"), "--model", "lexical", "--dry-run", "--append"]
    assert main([*given, "--output", str(out)]) == 1
    said = f"error: {out}/_job/plan.json is missing or damaged: put a copy of it back"
    assert capsys.readouterr().err.strip().startswith(said)


def test_a_record_that_is_damaged_is_named_by_a_job_that_goes_on(finished, out):
    (out / "_SUCCESS").unlink()
    (out / "_manifest.json").unlink()
    (out / RECORDS[0]).write_bytes(b'{"counts"')
    with pytest.raises(Damaged, match=r"units/000000.json is missing or damaged"):
        job(finished.parent / "in", out, **OPTIONS)


@pytest.mark.parametrize("place", [0, -1])
def test_a_data_file_with_another_byte_or_end_is_not_the_committed_one(out, place):
    path = sorted((out / "data").iterdir())[0]
    body = bytearray(path.read_bytes())
    body[place] ^= 1
    path.write_bytes(body)
    with pytest.raises(Incomplete, match="is not the file that was committed"):
        verify(out)
    path.write_bytes(body[:-9])
    with pytest.raises(Incomplete, match="is not the file that was committed"):
        verify(out)


def test_files_are_hashed_at_once(out, monkeypatch):
    all_open = threading.Barrier(len(os.listdir(out / "data")), timeout=10)
    assert all_open.parties > 1
    one_after_all_are_open = checks._rows_of

    def waits(file, digest):
        all_open.wait()
        return one_after_all_are_open(file, digest)

    monkeypatch.setattr(checks, "_rows_of", waits)
    verify(out)


def test_it_says_how_far_it_is(out):
    said, files = [], len(os.listdir(out / "data"))
    verify(out, lambda *step: said.append(step))
    assert files > 1
    steps = [step for step, done, of in said if done == of]
    stages = [f"{stage} read" for stage in ("units", "ranks", "scattered", "final")]
    assert steps == ["files of data", *stages, "ranks"]
    assert [step for step in said if "read" not in step[0]] == [
        (step, n, files) for step in ("files of data", "ranks") for n in range(1, files + 1)
    ]
