"""Errors of others and deaths of workers: what is said of them, and what is not."""

import re

import pytest

from pipelines.commits.records import JobFolder
from pipelines.commits.store import StorageFull, open_store
from pipelines.stages.failures import (
    COPY,
    READER,
    DeathWatch,
    WorkerDied,
    failure_line,
    loading,
    named,
    note_death,
    read_line,
    refuse_more,
)

TEXT = "words of a document"


def raised(error):
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_an_error_that_is_not_ours_is_its_kind_and_place_without_its_words():
    said = str(named(raised(ValueError(TEXT))))
    assert said.startswith("ValueError on ")
    assert re.search(r"test_failures\.py, line \d+$", said)
    assert TEXT not in said


def test_what_the_system_says_of_a_file_is_said():
    said = str(named(raised(PermissionError(13, "Permission denied", "/out/a"))))
    assert said.startswith("PermissionError on ")
    assert said.endswith(", Permission denied: /out/a")


def test_an_error_of_ours_stays_as_it_is():
    error = StorageFull("no space left")
    assert named(error) is error


def test_the_fourth_death_over_the_same_work_is_the_last():
    refuse_more(3, "a")
    with pytest.raises(WorkerDied, match="4 processes have died over a, most likely for"):
        refuse_more(4, "a")
    with pytest.raises(WorkerDied):
        read_line(failure_line(WorkerDied("told to the driver")))


@pytest.mark.parametrize(("epoch", "copies"), [(1, 1), (2, 0)])
def test_each_death_is_said_and_counted_once_with_the_next_unit(tmp_path, epoch, copies):
    folder, said = JobFolder(open_store(tmp_path), epoch), []
    note_death(JobFolder(folder.store, epoch - 1), READER + "000001", 1)  # of a former run
    with DeathWatch(folder, {READER + "000001": "the reader of a.parquet"}, said.append) as deaths:
        for number in (1, 2):
            note_death(folder, READER + "000001", number)
            note_death(folder, COPY + "0a1b", number)  # of the second its unit has a note
    assert sorted(said) == [
        f"\na process has died (no. {number}): {who}\n"
        for number in (1, 2)
        for who in ("a copy of the model", "the reader of a.parquet")
    ]
    bad, line, late = {"bad": "corrupt"}, {"retries": 1}, {"retries": 0}
    for one in (bad, line, late):
        deaths.add_to(one)
    assert (bad, line["retries"], late["retries"]) == ({"bad": "corrupt"}, 3 + copies, 0)


class Killed(BaseException):
    """What no process lives to see."""


def load(folder, deaths, dies):
    with loading(folder, "0a1b", deaths):
        if dies:
            raise Killed


def test_a_copy_that_dies_while_it_loads_is_begun_four_times(tmp_path):
    folder = JobFolder(open_store(tmp_path), 1)
    for deaths in range(4):
        with pytest.raises(Killed):
            load(folder, deaths, dies=True)
    with pytest.raises(WorkerDied, match="4 processes have died while they loaded the model"):
        load(folder, 4, dies=True)
    load(JobFolder(folder.store, 2), 4, dies=False)  # the next run of the job tries again


def test_a_copy_that_has_loaded_may_die_as_often_as_its_units_make_it(tmp_path):
    folder = JobFolder(open_store(tmp_path), 1)
    for deaths in range(9):
        load(folder, deaths, dies=False)
    with pytest.raises(Killed):
        load(folder, 9, dies=True)
    load(folder, 10, dies=False)
