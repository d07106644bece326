"""Files that cannot be written, and outputs: one line, before the work where that can be known."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import KillSwitch, job

from pipelines.rerank_job import main

OPTIONS = ("--trec-run", "--json-lines")


def run(capfd, source, out, *options):
    """Run the command line; return its exit code and its only line."""
    given = ["--input", str(source), "--output", str(out), "--model", "lexical"]
    code = main([*given, "--unit-pairs", "100", *options])
    said = capfd.readouterr().err
    assert "Traceback" not in said
    return code, said.strip().splitlines()


@pytest.fixture
def a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file"


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/run", "file is no folder"),
        ("", "it is a folder"),
        ("new/run", "cannot be written to"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_done(
    tmp_path, pairs_input, a_file, capfd, monkeypatch, option, place, reason
):
    if place.startswith("new"):  # root may write anywhere
        monkeypatch.setattr("os.access", lambda path, mode: False)
    path = tmp_path / place
    code, said = run(capfd, pairs_input, tmp_path / "out", option, str(path))
    assert (code, len(said)) == (2, 1)
    assert said[0].startswith(f"error: {option} {path}: ")
    assert reason in said[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("number", "words", "code"),
    [(28, "No space left on device", 5), (13, "Permission denied", 2)],
)
def test_a_file_that_could_not_be_written_is_a_line_and_the_result_is_complete(
    tmp_path, pairs_input, capfd, option, number, words, code
):
    job(pairs_input, tmp_path / "out")
    switch = KillSwitch()
    switch.arm(tmp_path / "beside" / ".run", 0, OSError(number, words))
    path = tmp_path / "beside" / "run"
    ended, said = run(capfd, pairs_input, tmp_path / "out", option, str(path))
    switch.disarm()
    assert ended == code
    assert f"error: {option} {path}: {words}; all else is done" in "\n".join(said)
    assert list((tmp_path / "beside").iterdir()) == []
    assert run(capfd, pairs_input, tmp_path / "out", option, str(path))[0] == 0
    assert path.stat().st_size > 0


@pytest.mark.parametrize("number", [1, 13, 30])
def test_an_output_that_cannot_be_written_is_a_line(tmp_path, pairs_input, capfd, number):
    switch = KillSwitch()
    switch.arm(tmp_path / "out", 0, OSError(number, "words of the system"))
    code, said = run(capfd, pairs_input, tmp_path / "out")
    switch.disarm()
    assert (code, len(said)) == (2, 1)
    assert said[0].endswith(
        "cannot be written to: words of the system; give the job the right to it, or take another"
        " --output"
    )


def test_an_output_below_a_file_is_refused(pairs_input, a_file, capfd):
    code, said = run(capfd, pairs_input, a_file / "out")
    assert (code, len(said)) == (4, 1)
    assert said[0].endswith("out is a file, or lies below one; the output is a folder")


def test_another_error_of_the_system_is_a_line(tmp_path, pairs_input, capfd, monkeypatch):
    def fail(*options):
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr("pipelines.rerank_job.run_job", fail)
    code, said = run(capfd, pairs_input, tmp_path / "out")
    assert (code, len(said)) == (2, 1)
    assert said[0].endswith("Permission denied: /somewhere")
