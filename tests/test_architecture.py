"""What the import contracts cannot see: what is really loaded, in a clean interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_the_core_loads_neither_ray_nor_torch_nor_http_nor_parquet():
    modules = loaded_by("import rerank_core")
    assert modules.isdisjoint({"ray", "torch", "transformers", "starlette", "fastapi", "pyarrow"})


def test_the_shipped_fake_needs_no_torch():
    statement = (
        "from rerank_core import ScorerConfig, load_scorer;"
        " load_scorer(ScorerConfig(model='lexical'))"
    )
    assert loaded_by(statement).isdisjoint({"ray", "torch"})


@pytest.mark.parametrize(
    "room", [pytest.param("serve_app", marks=pytest.mark.seconds), "pipelines"]
)
def test_importing_a_front_end_starts_nothing_and_loads_no_model(room):
    modules = loaded_by(f"import {room}")
    assert modules.isdisjoint({"torch", "transformers", "sentence_transformers"})
