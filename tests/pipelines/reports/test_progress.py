"""No phase of a job is silent."""

import io
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import LEXICAL, InProcess

from pipelines.config import RerankJobConfig
from pipelines.inputs import listing
from pipelines.rerank_job import run_job
from rerank_core import load_scorer


def test_a_listing_that_lasts_is_said_to_go_on(tmp_path, pairs_input, monkeypatch):
    out, expand = io.StringIO(), listing._expand

    def slow(*given):
        until_s = time.monotonic() + 10
        while "listing" not in out.getvalue() and time.monotonic() < until_s:
            time.sleep(0.01)
        return expand(*given)

    monkeypatch.setattr(listing, "_expand", slow)
    places = {"input": (str(pairs_input),), "output": str(tmp_path / "out")}
    config = RerankJobConfig(**places, scorer=LEXICAL, progress_s=0.05)
    run_job(config, load_scorer, out, InProcess())
    assert out.getvalue().startswith("listing the input: 0:00:00 gone\n")
