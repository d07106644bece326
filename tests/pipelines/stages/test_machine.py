"""What time a unit usually takes: only units that were scored whole tell it."""

import pytest

from pipelines.commits.records import JobFolder
from pipelines.commits.store import open_store
from pipelines.stages import machine, score
from tests.pipelines.protocol import job


@pytest.mark.parametrize("first_new", [0, 30])
def test_a_new_actor_learns_from_units_that_were_scored_whole_at_once(tmp_path, first_new):
    folder = JobFolder(open_store(tmp_path), 0)

    def publish(number, seconds, retries=0, reused=0):
        record = {"seconds": seconds, "retries": retries, "counts": {"pairs_reused": reused}}
        folder.publish("units", f"{number:06}", record)

    for number in range(first_new):
        publish(number, 900.0)
    for number, told in enumerate([(1.0,), (0.0, 0, 5), (2.0,), (70.0, 1)]):
        publish(first_new + number, *told)
    folder.publish("units", "000099", {"counts": {}, "bad": "unreadable"})
    assert sorted(machine.seconds_of_others(folder, first_new)) == [1.0, 2.0]


def test_units_with_known_scores_do_not_shorten_the_time_of_others(
    tmp_path, make_rows, write_files, monkeypatch
):
    rows, known = make_rows(4, 20), []
    job(write_files(tmp_path / "old", rows[20:], files=1, group=20), tmp_path / "former")
    given = write_files(tmp_path / "new", rows, files=1, group=20)
    monkeypatch.setattr(score, "deadline_s", lambda usual, most: known.append(len(usual)) or most)
    job(given, tmp_path / "out", unit_pairs=10, reuse=str(tmp_path / "former"))
    assert known == [0, 1, 2, 2, 2, 2, 2, 2]
