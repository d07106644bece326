"""The Dockerfile, as far as it can be checked without building it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from serve_app.http.proxy import UPGRADES

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8")
CLUSTER, OPERATIONS = (
    (ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("cluster.md", "operations.md")
)


def test_hadolint_has_nothing_to_say() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    run = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def test_everything_copied_from_the_context_is_let_in() -> None:
    ignore = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    let_in = {line[1:] for line in ignore if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+)$", TEXT, flags=re.MULTILINE)
    assert {source for copy in copies for source in copy.split()[:-1]} == let_in


def test_the_image_runs_as_the_user_that_the_manifests_name() -> None:
    assert re.findall(r"^USER (\S+)$", TEXT, flags=re.MULTILINE) == ["1000"]
    assert "--uid 1000" in TEXT


def test_the_health_check_asks_whether_scoring_works() -> None:
    assert "HEALTHCHECK" in TEXT
    assert "http://127.0.0.1:8000/health/ready" in TEXT


def test_weights_are_baked_in_only_at_a_pinned_commit() -> None:
    assert "${MODEL_REVISION:?" in TEXT
    assert "*.bin" not in TEXT


def test_the_image_stops_politely_and_takes_java_clients() -> None:
    assert 'CMD ["rerank-serve", "/app/serve.yaml"]' in TEXT
    assert all(f"{name}={value}" in TEXT for name, value in UPGRADES.items())


def test_the_extras_of_the_image_are_ours() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set(re.findall(r"EXTRAS=([\w,]+)", TEXT + CLUSTER + OPERATIONS))
    assert {extra for names in named for extra in names.split(",")} <= set(
        project["optional-dependencies"]
    )
    assert '".[$EXTRAS]"' in TEXT
