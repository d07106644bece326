"""A job that is done: run again, in the way of another, and what it says of itself."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from protocol import LEXICAL, job, snapshot

from pipelines.config import RerankJobConfig
from pipelines.rerank_job import main, run_job
from rerank_core import ScorerConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_rows, write_files) -> tuple[Path, Path]:
    """Input and output of a job that is done; a test leaves both as they are."""
    work = tmp_path_factory.mktemp("finished")
    folder = write_files(work / "in", make_rows(30, 20), files=3, group=70)
    job(folder, work / "out", unit_pairs=64)
    return folder, work / "out"


def test_a_finished_job_again_changes_nothing_and_loads_no_model(finished):
    folder, done = finished
    before = snapshot(done)

    def no_model(config: ScorerConfig) -> Any:
        raise AssertionError("a model was loaded")

    out = io.StringIO()
    config = RerankJobConfig(input=(str(folder),), output=str(done), scorer=LEXICAL, unit_pairs=64)
    run_job(config, no_model, out)
    assert "already complete" in out.getvalue()
    assert snapshot(done) == before


@pytest.mark.seconds
def test_neither_a_dry_run_nor_a_finished_job_again_loads_ray_or_torch(finished):
    folder, done = finished
    options = ["--input", str(folder), "--output", str(done), "--model", "lexical"]
    code = f"""import sys; from pipelines.rerank_job import main
for more in (["--dry-run"], ["--unit-pairs", "64"]):
    assert main([*{options}, *more]) == 0
    assert not {{"ray", "torch"}} & set(sys.modules), more"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "rows: 600" in run.stdout
    assert "already complete" in run.stderr


def test_another_job_or_a_foreign_folder_is_refused_byte_for_byte(tmp_path, finished, capsys):
    folder, done = finished
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.parquet").write_bytes(b"mine")
    options = ["--input", str(folder), "--model", "lexical", "--unit-pairs", "64"]
    assert main([*options, "--output", str(foreign)]) == 4
    assert snapshot(foreign) == {"thesis.parquet": b"mine"}
    assert "nothing was touched" in capsys.readouterr().err
    before = snapshot(done)
    assert main([*options, "--output", str(done), "--top-k", "3"]) == 3
    assert "top_k changed" in capsys.readouterr().err
    assert snapshot(done) == before
    assert main(["verify", str(done)]) == 0


def test_the_manifest_says_what_ran(finished):
    manifest = json.loads((finished[1] / "_manifest.json").read_text())
    assert manifest["identity"]["scorer"] == LEXICAL.fingerprint()
    assert manifest["config"]["scorer"]["model"] == "lexical"
    assert [Path(item["path"]).name for item in manifest["inputs"]] == [
        "0.parquet", "1.parquet", "2.parquet"
    ]  # fmt: skip
    assert manifest["versions"]["ray"].startswith("2.")
