"""The manual: it builds without a warning, and what it names exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import plan
from pipelines.settings import load_config
from rerank_core import ScorerConfig
from serve_app.config import Admission, Batching, Limits, Scaling, ServeConfig

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
ALL = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manual as `make docs` builds it; nothing was said while it did."""
    folder = tmp_path_factory.mktemp("manual") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    config = ["--config-file", "deploy/mkdocs.yml", "--site-dir", str(folder)]
    run = subprocess.run(
        command + config,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    return folder


@pytest.mark.seconds
def test_it_builds_without_a_warning(site: Path) -> None:
    assert len(list(site.glob("*.html"))) == len(PAGES) + 1


@pytest.mark.seconds
def test_search_knows_every_page_and_every_setting(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    assert {place["location"].partition("#")[0] for place in index} == {
        path.with_suffix(".html").name for path in PAGES
    }
    (scaling,) = [place for place in index if place["location"] == "settings.html#scaling"]
    assert [name for name in Scaling.model_fields if name not in scaling["text"]] == []


@pytest.mark.seconds
def test_its_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in site.glob("*.html"))
    fetched = re.findall(r"<(?:script|img|iframe|source)[^>]*src(?:set)?=\"?([^\">\s]+)", pages)
    fetched += re.findall(r"<link[^>]*rel=\"?stylesheet\"?[^>]*href=\"?([^\">\s]+)", pages)
    fetched += re.findall(r"<link[^>]*href=\"?([^\">\s]+)\"?[^>]*rel=\"?stylesheet", pages)
    assert len(fetched) > len(PAGES)
    assert [address for address in fetched if "//" in address] == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "deploy" / "mkdocs.yml").read_text(encoding="utf-8")
    assert {page.name for page in PAGES} == set(re.findall(r"\b[a-z-]+\.md\b", text))


def test_every_test_that_is_named_exists() -> None:
    tests = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", ALL))
    assert named
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_links_into_the_repository_lead_somewhere() -> None:
    targets = set(re.findall(r"\]\(\.\./([^)#]+)", ALL))
    assert {target for target in targets if not (ROOT / target).exists()} == set()


def test_settings_that_are_named_with_their_block_exist() -> None:
    blocks = {
        "scorer": ScorerConfig,
        "limits": Limits,
        "admission": Admission,
        "batching": Batching,
        "scaling": Scaling,
    }
    named = set(re.findall(r"`(scorer|limits|admission|batching|scaling)\.(\w+)", ALL))
    assert {f"{b}.{f}" for b, f in named if f not in blocks[b].model_fields} == set()


def first_column(page: str, heading: str) -> list[str]:
    """Return the names in backticks in the first column of the table under a heading."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    rows = re.findall(r"^\| (`[^|]*) \|", text.split("\n## ")[0], flags=re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_scorer_settings_to_tune_are_real_ones() -> None:
    names = first_column("tuning.md", "The scorer, online and offline")
    assert names
    assert set(names) <= ScorerConfig.model_fields.keys()


def test_the_settings_in_the_readme_are_valid() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", readme, flags=re.DOTALL)
    ServeConfig.model_validate(yaml.safe_load(block))


def test_every_picture_is_there_and_shown_somewhere() -> None:
    text = ALL + (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"pictures/([\w-]+\.\w+)", text))
    assert shown == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}


def commands_with(start: str) -> list[list[str]]:
    """Return the words behind `start` of every command in the manual and the README."""
    text = ALL + (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line.split(start)[1], comments=True) for line in lines if start in line]


def test_every_job_command_is_understood() -> None:
    commands = [c for c in commands_with("-m pipelines.rerank_job") if c[0] != "verify"]
    assert len(commands) > 5
    for words in commands:
        # A config file brings what its command leaves out.
        rest = [] if "--config" not in words else ["--input", "in", "--output", "out"]
        kept = [w for i, w in enumerate(words) if "--config" not in words[max(0, i - 1) : i + 1]]
        load_config(kept + rest)


def test_every_argument_of_serve_run_is_a_setting() -> None:
    commands = [c for c in commands_with("serve run serve_app:app") if c]
    assert len(commands) > 2
    for words in commands:
        ServeConfig.model_validate(dict(word.split("=", 1) for word in words))


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*.yaml")), ids=lambda p: p.name)
def test_yaml_beside_the_manual_names_an_application_that_starts(path: Path) -> None:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    for application in config.get("applications", []):
        ServeConfig.model_validate(application["args"])


@pytest.mark.seconds
def test_the_planner_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    found = re.search(r"python -m benchmarks\.plan (.+?)\n.*?```text\n(.+?)```", page, re.DOTALL)
    assert found
    assert plan.main(shlex.split(found[1])) == 0
    assert found[2] in capsys.readouterr().out


ROOMS = ("rerank_core", "serve_app", "pipelines")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_room_has_a_line_in_the_architecture() -> None:
    rooms = {
        f"{path.relative_to(ROOT)}/"
        for room in ROOMS
        for path in [ROOT / room, *(ROOT / room).rglob("*/")]
        if path.is_dir() and path.name != "__pycache__"
    }
    lines = set(re.findall(r"^\| `([^`]+/)` \|", ARCHITECTURE, flags=re.MULTILINE))
    assert {line for line in lines if line.startswith(ROOMS)} == rooms


def test_every_path_in_the_architecture_exists() -> None:
    paths = set(re.findall(r"`((?:rerank_core|serve_app|pipelines)/[\w/.]*)`", ARCHITECTURE))
    assert len(paths) > 30
    assert {path for path in paths if not (ROOT / path).exists()} == set()
