"""The GPU benchmark runs whole on a CPU, keeps what it measured, and its sums are right."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import bench_gpu
from benchmarks.bench_gpu import PARTS, main, unpack
from benchmarks.gpu.gpu_tests import outcome
from benchmarks.gpu.precision import distance
from benchmarks.gpu.profiles import merged, summary
from benchmarks.gpu.session import Session, read

pytestmark = pytest.mark.seconds

ROOT = Path(__file__).parents[2]
OURS = ("ours", "ours, graphs", "ours, compile")
# What each part must have measured, or heard that it is not for this device.
FIGURES = {
    "tests": {"result"},
    "peak": {"bfloat16_tflops", "float16_tflops", "float32_tflops", "copy_gb_s", "upload_gb_s"},
    "chunks": {*OURS, "predict, its best settings", "predict", "predict, compiled"},
    "requests": {*OURS, "predict", "launch cost"},
    "table": {"2 x 64, float32", "1 x 128, float32"},
    "causal": {"ours", "ours, prompts not shared", "the authors' way"},
    "precision": {
        *("ours, float32", "ours, bfloat16", "ours, float16", "ours, int8"),
        *("ours, tf32", "ours, float8", "ours, float8, compile"),
        "spread of the float32 logits",
    },
    "profile": {"small", "large", "long"},
}


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    """The record and the folder of one dry run of every part."""
    out = tmp_path_factory.mktemp("gpu")
    main(["--dry-run", "--out", str(out)])
    return read(out / "gpu.json"), out


def test_a_dry_run_measures_every_part(dry_run):
    result, _ = dry_run
    assert {name: run["state"] for name, run in result["runs"].items()} == dict.fromkeys(
        PARTS, "done"
    )
    for part, names in FIGURES.items():
        assert result["parts"][part].keys() >= names, part


def test_nothing_in_a_dry_run_failed_or_was_skipped(dry_run):
    text = json.dumps(dry_run[0]["parts"])
    assert ('"failed":' in text, '"skipped":' in text) == (False, False)


def test_what_only_a_gpu_has_is_refused_in_its_place_and_nothing_else(dry_run):
    parts = dry_run[0]["parts"]
    refused = {
        (part, name)
        for part, found in parts.items()
        for name, figures in found.items()
        if isinstance(figures, dict) and "refused" in figures
    }
    switched = {(part, name) for part in ("chunks", "requests") for name in OURS[1:]}
    precisions = {("precision", f"ours, {name}") for name in ("tf32", "float8", "float8, compile")}
    assert refused == switched | precisions
    assert "CUDA devices" in parts["requests"]["ours, graphs"]["refused"]


def test_a_language_model_is_measured_with_and_without_sharing_its_prompt(dry_run):
    causal = dry_run[0]["parts"]["causal"]
    assert causal["ours"].keys() == causal["ours, prompts not shared"].keys()
    assert causal["ours"].keys() >= {"one query", "as many queries"}


def test_the_record_says_what_it_was_taken_on(dry_run):
    result, _ = dry_run
    assert result["machine"]["torch"] == torch.__version__
    assert (result["settings"]["device"], result["settings"]["dry_run"]) == ("cpu", True)


def test_the_rivals_own_compiling_really_compiled(dry_run):
    result, _ = dry_run
    assert result["parts"]["chunks"]["predict, compiled"]["compiled_graphs"] >= 1


def test_pictures_show_what_was_measured(dry_run):
    pytest.importorskip("matplotlib")
    _, out = dry_run
    assert {path.name for path in out.glob("*.svg")} == {"gpu-chunks.svg", "gpu-requests.svg"}


def session(tmp_path, **changes):
    wanted = {"file": tmp_path / "gpu.json", "work": tmp_path, "device": "cpu", "until_s": 1e12}
    return Session(**wanted | changes)


def test_each_figure_is_on_disk_at_once(tmp_path):
    measuring = session(tmp_path)
    measuring.record("peak", "a", 1)
    assert read(measuring.file) == {"parts": {"peak": {"a": 1}}}
    measuring.record("peak", "b", 2)
    assert read(measuring.file) == {"parts": {"peak": {"a": 1, "b": 2}}}


def test_what_fails_is_recorded_and_costs_nothing_else(tmp_path):
    measuring = session(tmp_path)
    measuring.attempt("peak", "a", lambda: 1 / 0)
    measuring.attempt("peak", "b", lambda: 2)
    assert read(measuring.file)["parts"]["peak"] == {
        "a": {"failed": "ZeroDivisionError: division by zero"}, "b": 2
    }  # fmt: skip


def test_what_would_take_longer_than_is_left_is_not_begun(tmp_path):
    measuring = session(tmp_path, until_s=0)
    measuring.attempt("peak", "a", lambda: 1, need_s=45)
    assert "skipped" in read(measuring.file)["parts"]["peak"]["a"]


def test_a_part_that_hangs_is_stopped_and_its_figures_stay(tmp_path, monkeypatch):
    out, hangs = tmp_path / "out", tmp_path / "python"
    figures = json.dumps({"parts": {"peak": {"copy_gb_s": 7}}})
    hangs.write_text(f"#!/bin/sh\necho '{figures}' > {out}/gpu.json\nexec sleep 60\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hangs))
    monkeypatch.setattr(bench_gpu, "LEAST_S", 0)
    main(["--parts", "peak", "--seconds", "1", "--device", "cpu", "--out", str(out)])
    result = read(out / "gpu.json")
    assert result["parts"]["peak"] == {"copy_gb_s": 7}
    assert result["runs"]["peak"]["state"].startswith("stopped after 1 s")


def test_a_part_without_time_is_skipped_and_said_so(tmp_path):
    main(["--parts", "peak", "--seconds", "1", "--device", "cpu", "--out", str(tmp_path)])
    assert read(tmp_path / "gpu.json")["runs"]["peak"]["state"] == "skipped: no time was left"


def test_it_imports_nothing_that_a_gpu_machine_lacks():
    code = (
        "import sys; sys.argv = ['x']; sys.path.insert(0, '.');"
        "import benchmarks.bench_gpu, benchmarks.gpu.encoders, benchmarks.gpu.causal,"
        " benchmarks.gpu.precision, benchmarks.gpu.profiles, benchmarks.gpu.ceilings;"
        "wanted = {'ray', 'fastapi', 'starlette', 'pydantic_settings'};"
        "print(sorted(wanted & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_wheels_that_come_along_can_be_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with zipfile.ZipFile(tmp_path / "brought_along-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought_along_here.py", "VALUE = 7\n")
    unpack(tmp_path, tmp_path / "site")
    import brought_along_here

    assert brought_along_here.VALUE == 7


def test_the_outcome_of_the_tests_is_read_from_their_report(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.a.test_b" name="one"/>'
        '<testcase classname="tests.a.test_b" name="two"><failure message="bad\nmore"/></testcase>'
        '<testcase classname="tests.a.test_b" name="three"><skipped message="no"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert outcome(report) == {
        "passed": 1, "failed": {"test_b::two": "bad more"}, "skipped": {"test_b::three": "no"}
    }  # fmt: skip


def test_intervals_that_touch_are_one():
    assert merged([(5, 7), (0, 2), (1, 3), (7, 8)]) == [(0, 3), (5, 8)]


def test_idle_time_is_what_no_event_covers():
    events = [("gemm", (0.0, 40.0)), ("gemm", (30.0, 60.0)), ("Memcpy HtoD", (80.0, 90.0))]
    found = summary(events, wall_us=100.0)
    assert (found["busy_ms"], found["idle_share"], found["gaps_over_10_us"]) == (0.07, 0.3, 1)
    assert (found["copies"], list(found["longest"])) == (1, ["gemm", "Memcpy HtoD"])


def test_the_distance_of_equal_order_is_one():
    exact = np.array([0.1, 3.0, -2.0], dtype=np.float32)
    assert distance(exact, exact * 2)["rank_correlation"] == 1.0
    assert distance(exact, np.array([1, np.nan, 2])) == {"not_finite": 1}
