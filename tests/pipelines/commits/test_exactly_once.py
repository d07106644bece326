"""The commit protocol without Ray: killed at any file operation, run twice, fought over."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import Killed, forget_owner, job, rows_of, snapshot

from pipelines.commits.checks import Incomplete
from pipelines.commits.lease import Lease
from pipelines.commits.manifest import commit
from pipelines.commits.records import (
    Fenced,
    JobFolder,
    OutputRefused,
    epoch_key,
    is_job_folder,
)
from pipelines.commits.store import json_bytes, open_store
from pipelines.commits.verify import verify
from pipelines.identity import JobChanged, identities_differ


@pytest.fixture
def small(tmp_path, make_rows, write_files):
    """60 pairs of 5 queries in 2 files: 4 units, every query in several, one row set aside."""
    rows = make_rows(5, 12)
    rows[17]["text"] = None
    return write_files(tmp_path / "in", rows, files=2, group=15)


def run(folder, out, **changes):
    return job(folder, out, unit_pairs=15, top_k=7, **changes)


def test_a_job_killed_again_and_again_ends_with_the_same_rows(tmp_path, small, switch):
    run(small, tmp_path / "whole")
    out = tmp_path / "out"
    deaths = 0
    while not (out / "_SUCCESS").exists():
        switch.arm(out, after=23)
        try:
            run(small, out)
        except Killed:
            deaths += 1
        switch.disarm()
        forget_owner(out)
    assert deaths > 3
    assert rows_of(out) == rows_of(tmp_path / "whole")
    assert verify(out)["rows_quarantined"] == 1


def test_a_resumed_job_scores_only_what_is_missing(tmp_path, small, switch):
    out = tmp_path / "out"
    switch.arm(out, after=40)
    with pytest.raises(Killed):
        run(small, out)
    switch.disarm()
    forget_owner(out)
    done = JobFolder(open_store(out), 0).done("units")
    assert 0 < len(done) < 4
    scored = []

    def counting(config):
        from rerank_core import load_scorer

        scorer = load_scorer(config)
        plain = scorer.score
        scorer.score = lambda pairs: scored.append(len(pairs)) or plain(pairs)  # type: ignore[method-assign]
        return scorer

    run(small, out, load=counting)
    assert len(scored) == 4 - len(done)


def test_overwrite_replaces_only_at_the_end_and_survives_a_kill_at_any_point(
    tmp_path, small, switch
):
    out = tmp_path / "out"
    job(small, out, unit_pairs=15)
    old = rows_of(out)
    run(small, tmp_path / "whole")
    new = rows_of(tmp_path / "whole")
    with pytest.raises(JobChanged, match="top_k"):
        run(small, out)
    swapped = False
    for step in range(0, 400, 7):
        switch.arm(tmp_path, after=step)
        try:
            run(small, out, overwrite=True)
            swapped = True
        except Killed:
            pass
        switch.disarm()
        forget_owner(out)
        if out.exists():
            assert rows_of(out) in (old, new)
        if swapped:
            break
    assert swapped
    assert rows_of(out) == new
    verify(out)
    run(small, out, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "whole"]


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "part-0.parquet", "_SUCCESS"])
def test_a_folder_that_is_not_ours_is_left_byte_for_byte(tmp_path, small, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"theirs")
    for overwrite in (False, True):
        with pytest.raises((OutputRefused, JobChanged)):
            run(small, out, overwrite=overwrite)
    assert snapshot(out) == {name: b"theirs"}


def test_the_first_of_two_attempts_wins(tmp_path):
    folder = JobFolder(open_store(tmp_path), 0)
    assert folder.publish("units", "000000", {"n": 1})
    assert not folder.publish("units", "000000", {"n": 2})
    record = folder.records_one("units", "000000")
    assert record == {"n": 1, "epoch": 0, "attempt": record["attempt"]}


def test_nothing_is_committed_while_a_unit_is_missing_or_rows_do_not_add_up(tmp_path):
    folder = JobFolder(open_store(tmp_path), 0)
    counts = {
        f"{kind}_{end}": 0 for kind in ("rows", "pairs") for end in ("out", "cut", "quarantined")
    }
    record = {"counts": counts | {"rows_in": 0, "pairs_in": 0}, "data": None}
    folder.publish("units", "000000", record)
    with pytest.raises(Incomplete, match="1 units have no record, the first is 000001"):
        commit(folder, {"000000": 0, "000001": 5}, folder.all_records(), {})
    folder.publish(
        "units", "000001", {"counts": counts | {"rows_in": 5, "pairs_in": 5}, "data": None}
    )
    with pytest.raises(Incomplete, match="unit 000001: rows in 5 != out 0"):
        commit(folder, {"000000": 0, "000001": 5}, folder.all_records(), {})
    assert not (tmp_path / "_manifest.json").exists()


def test_a_model_or_input_that_changed_is_refused(tmp_path, small):
    from rerank_core import ScorerConfig

    run(small, tmp_path / "out")
    with pytest.raises(JobChanged, match="scorer changed"):
        run(small, tmp_path / "out", scorer=ScorerConfig(model="lexical", max_length=64))
    shutil.copy(small / "0.parquet", small / "2.parquet")
    with pytest.raises(JobChanged, match="inputs changed"):
        run(small, tmp_path / "out")


def damage_bytes(out):
    path = next((out / "data").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def damage_by_deleting(out):
    next((out / "data").iterdir()).unlink()


def damage_by_adding(out):
    path = next((out / "data").iterdir())
    shutil.copy(path, path.with_name("part-x.parquet"))


def damage_a_record(out):
    (out / "_job" / "units" / "000001.json").unlink()


def damage_by_forgetting_ranks(out):
    (out / "_job" / "ranks" / "000000.json").unlink()


def damage_by_forgetting_a_final_record(out):
    (out / "_job" / "final" / "000000.json").unlink()


def damage_quarantine(out):
    path = next((out / "_quarantine").iterdir())
    pq.write_table(pq.read_table(path).slice(1), path)


@pytest.mark.parametrize(
    "damage",
    [
        damage_bytes,
        damage_by_deleting,
        damage_by_adding,
        damage_a_record,
        damage_quarantine,
        damage_by_forgetting_ranks,
        damage_by_forgetting_a_final_record,
    ],
)
def test_verify_finds_damage(tmp_path, small, damage):
    run(small, tmp_path / "out")
    verify(tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(Incomplete):
        verify(tmp_path / "out")


def test_verify_finds_rows_that_went_from_one_unit_to_another(tmp_path, small):
    out = tmp_path / "out"
    run(small, out)
    path = out / "_job" / "final" / "000000.json"
    record = json.loads(path.read_bytes())
    for name, change in (("000001", 1), ("000002", -1)):
        for key in ("rows_in", "rows_cut"):
            record["units"][name]["counts"][key] += change
    path.write_bytes(json_bytes(record))
    with pytest.raises(Incomplete, match="unit 000001 has 16 rows; the plan says 15"):
        verify(out)


def test_an_option_that_is_gone_makes_another_job():
    before = {"inputs": "a", "calibration": "b"}
    assert identities_differ(before, {"inputs": "a"}) == ["calibration"]


def test_overwrite_drops_what_an_abandoned_overwrite_has_left(tmp_path, small, switch):
    out = tmp_path / "out"
    job(small, out, unit_pairs=15)
    switch.arm(tmp_path / ".out.next", after=40)
    with pytest.raises(Killed):
        run(small, out, overwrite=True)
    switch.disarm()
    forget_owner(out)
    assert (tmp_path / ".out.next" / "_job" / "plan.json").is_file()
    job(small, out, unit_pairs=15, top_k=1, overwrite=True)
    assert {row["rank"] for row in rows_of(out)} == {1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_a_job_killed_after_its_commit_still_writes_its_trec_run(tmp_path, small):
    out, trec = tmp_path / "out", tmp_path / "runs" / "out.run"
    run(small, out)
    run(small, out, trec_run=str(trec))
    assert len(trec.read_text().splitlines()) == len(rows_of(out))
    (out / "_report.html").unlink()
    run(small, out)
    assert "Rerank job" in (out / "_report.html").read_text()


def test_an_owner_that_lost_its_folder_commits_nothing(tmp_path, small):
    with Lease(open_store(tmp_path / "out")) as folder:
        folder.store.create_json(epoch_key(2), {})
        with pytest.raises(Fenced, match="epoch 2"):
            commit(folder, {}, folder.all_records(), {})
    assert not (tmp_path / "out" / "_manifest.json").exists()


def test_a_job_that_is_just_starting_is_not_taken_over(tmp_path):
    out, seen = tmp_path / "out", []

    def look(event, arguments):
        # The moment the epoch is there, its heartbeat must be.
        if event == "os.link" and str(arguments[1]) == str(out / "_job" / "epochs" / "1.json"):
            seen.append((out / "_job" / "heartbeats" / "1").exists())

    sys.addaudithook(look)
    with Lease(open_store(out)):
        pass
    assert seen == [True]
    shutil.rmtree(out / "_job" / "epochs")
    (out / "_job" / "heartbeats" / "1").touch()
    assert is_job_folder(open_store(out))  # killed between the two


def test_an_output_behind_a_link_is_replaced_where_it_is(tmp_path, small):
    (tmp_path / "disk").mkdir()
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "disk" / "real", target_is_directory=True)
    job(small, out, unit_pairs=15)
    run(small, out, overwrite=True)
    assert out.is_symlink()
    assert sorted(p.name for p in (tmp_path / "disk").iterdir()) == ["real"]
    assert {row["rank"] for row in rows_of(out)} == set(range(1, 8))
