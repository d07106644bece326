import os
import sys
import threading

import pytest

from pipelines.commits.local_store import LocalStore
from pipelines.commits.records import lean_json
from pipelines.commits.store import StorageFull


def test_exactly_one_of_many_creators_wins(tmp_path):
    store, won = LocalStore(tmp_path), []
    key = "folder/record.json"
    threads = [
        threading.Thread(target=lambda n=n: won.append(n) if store.create_json(key, n) else None)
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.read_json(key)] == won
    assert os.listdir(tmp_path / "folder") == ["record.json"]


def test_a_server_that_fails_once_costs_no_record(tmp_path):
    path, failed = tmp_path / "record.json", []

    def fail(event, arguments):
        if event == "os.link" and str(arguments[1]) == str(path) and not failed:
            failed.append(1)
            raise OSError(116, "Stale file handle")

    sys.addaudithook(fail)
    assert LocalStore(tmp_path).create_json("record.json", 1)
    assert failed
    assert LocalStore(tmp_path).read_json("record.json") == 1
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_file_system_without_hard_links_is_enough(tmp_path):
    refused = []

    def refuse(event, arguments):
        if event == "os.link" and str(arguments[1]).startswith(str(tmp_path)):
            refused.append(1)
            raise PermissionError(1, "Operation not permitted")

    sys.addaudithook(refuse)
    assert LocalStore(tmp_path).create_json("record.json", 1)
    assert not LocalStore(tmp_path).create_json("record.json", 2)
    assert len(refused) == 2
    assert LocalStore(tmp_path).read_json("record.json") == 1
    assert os.listdir(tmp_path) == ["record.json"]


def test_unfinished_writes_are_not_listed(tmp_path):
    (tmp_path / ".a.json.1234").write_bytes(b"half")
    store = LocalStore(tmp_path)
    store.create_json("b.json", 1)
    assert store.names("", ".json") == ["b"]
    assert store.names("absent") == []
    assert store.read_json("absent") is None


def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="free some space"):
        LocalStore(tmp_path).create("x", b"1")
    assert os.listdir(tmp_path) == []


def test_a_link_that_was_made_although_it_is_reported_as_taken_is_ours(tmp_path):
    path, made = tmp_path / "record.json", []

    def link_first(event, arguments):
        # As NFS does when the first answer is lost: the link is there, and said to be another's.
        if event == "os.link" and str(arguments[1]) == str(path) and not made:
            made.append(1)
            os.link(arguments[0], path)

    sys.addaudithook(link_first)
    assert LocalStore(tmp_path).create_json("record.json", 1)
    assert not LocalStore(tmp_path).create_json("record.json", 2)
    assert LocalStore(tmp_path).read_json("record.json") == 1
    assert os.listdir(tmp_path) == ["record.json"]


def test_records_share_their_keys():
    first, second = (lean_json('{"counts": {"rows_in": 1}}') for _ in range(2))
    assert first == {"counts": {"rows_in": 1}}
    assert next(iter(first["counts"])) is next(iter(second["counts"]))
