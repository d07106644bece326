"""The manual's page of metrics is what the code counts."""

import re
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    # Ray declares its own pydantic fields in a deprecated way.
    warnings.simplefilter("ignore")
    from tools.metrics_page import PAGE, page

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def text():
    return page()


def test_the_committed_page_is_the_generated_one(text):
    assert PAGE.read_text("utf-8") == text, "run `make settings`"


def test_every_name_of_the_code_has_a_row(text):
    sources = [
        p.read_text("utf-8") for r in ("serve_app", "pipelines") for p in (ROOT / r).rglob("*.py")
    ]
    named = {name for source in sources for name in re.findall(r'\(\s*"(rerank_\w+)",', source)}
    rows = set(re.findall(r"^\| `ray_(\w+?)(?:_total)?` \|", text, re.MULTILINE))
    assert len(rows) > 25
    assert rows == named


def test_a_counter_is_named_as_one_asks_for_it(text):
    (row,) = [line for line in text.splitlines() if "hedged" in line]
    assert row.startswith("| `ray_rerank_hedged_units_total` | counter | `model` | Late units")
