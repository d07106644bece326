import os
import sys
import threading

import pytest

from pipelines.commits import store


def test_exactly_one_of_many_creators_wins(tmp_path):
    path = tmp_path / "folder" / "record.json"
    won = []
    threads = [
        threading.Thread(target=lambda n=n: won.append(n) if store.create_json(path, n) else None)
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.read_json(path)] == won
    assert os.listdir(path.parent) == ["record.json"]


def test_a_server_that_fails_once_costs_no_record(tmp_path):
    path, failed = tmp_path / "record.json", []

    def fail(event, arguments):
        if event == "os.link" and str(arguments[1]) == str(path) and not failed:
            failed.append(1)
            raise OSError(116, "Stale file handle")

    sys.addaudithook(fail)
    assert store.create_json(path, 1)
    assert failed
    assert store.read_json(path) == 1
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_file_system_without_hard_links_is_enough(tmp_path):
    refused = []

    def refuse(event, arguments):
        if event == "os.link" and str(arguments[1]).startswith(str(tmp_path)):
            refused.append(1)
            raise PermissionError(1, "Operation not permitted")

    sys.addaudithook(refuse)
    path = tmp_path / "record.json"
    assert store.create_json(path, 1)
    assert not store.create_json(path, 2)
    assert len(refused) == 2
    assert store.read_json(path) == 1
    assert os.listdir(tmp_path) == ["record.json"]


def test_unfinished_writes_are_not_listed(tmp_path):
    (tmp_path / ".a.json.1234").write_bytes(b"half")
    store.create_json(tmp_path / "b.json", 1)
    assert store.names(tmp_path, ".json") == ["b"]
    assert store.names(tmp_path / "absent") == []
    assert store.read_json(tmp_path / "absent") is None


def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(store.StorageFull, match="free some space"):
        store.create(tmp_path / "x", b"1")
    assert os.listdir(tmp_path) == []


def test_a_link_that_was_made_although_it_is_reported_as_taken_is_ours(tmp_path):
    path, made = tmp_path / "record.json", []

    def link_first(event, arguments):
        # As NFS does when the first answer is lost: the link is there, and said to be another's.
        if event == "os.link" and str(arguments[1]) == str(path) and not made:
            made.append(1)
            os.link(arguments[0], path)

    sys.addaudithook(link_first)
    assert store.create_json(path, 1)
    assert not store.create_json(path, 2)
    assert store.read_json(path) == 1
    assert os.listdir(tmp_path) == ["record.json"]
