"""The built wheel is whole: test_readme runs its commands, here is what they do not reach."""

import json
import subprocess

import pytest

ROOMS = ("rerank_core", "serve_app", "pipelines")

pytestmark = pytest.mark.seconds


def test_what_is_imported_is_the_wheel_and_not_the_source(installed, tmp_path):
    code = "import json; print(json.dumps({name: __import__(name).__file__ for name in ROOMS}))"
    found = subprocess.run(
        [installed / "python", "-E", "-c", f"ROOMS = {ROOMS}; {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (packages,) = installed.parent.glob("lib/python*/site-packages")
    assert json.loads(found.stdout) == {
        name: str(packages / name / "__init__.py") for name in ROOMS
    }


def test_every_file_of_the_packages_that_is_no_code_is_in_it(installed, request):
    (packages,) = installed.parent.glob("lib/python*/site-packages")
    root = request.config.rootpath
    ours = {
        str(path.relative_to(root))
        for name in ROOMS
        for path in (root / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    there = {name for name in ours if (packages / name).is_file()}
    assert ours - there == set()


def test_the_console_scripts_are_there(installed):
    assert {"rerank", "rerank-job", "rerank-evaluate"} <= {
        path.name for path in installed.iterdir()
    }
