"""What the import contracts cannot see: what is loaded in a clean interpreter, and sizes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("rerank_core", "serve_app", "pipelines")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MODULES_PER_FOLDER, LINES_PER_MODULE, LINES_PER_FUNCTION, PARAMETERS = 15, 200, 50, 6


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


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Return every function of the three packages with the name of its module before its own."""
    return [
        (f"{name_of(path)}:{node.name}", node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_no_folder_has_too_many_modules():
    counts: dict[str, int] = {}
    for path in MODULES:
        if path.stem not in ("__init__", "__main__"):
            counts[name_of(path.parent)] = counts.get(name_of(path.parent), 0) + 1
    found = {folder for folder, count in counts.items() if count > MODULES_PER_FOLDER}
    assert found == set()


def test_no_module_is_too_long():
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    found = {name for name, count in lines.items() if count > LINES_PER_MODULE}
    assert found == set()


def test_no_function_is_too_long():
    found = {name for name, f in functions() if f.end_lineno - f.lineno + 1 > LINES_PER_FUNCTION}
    assert found == set()


def test_no_function_takes_too_many_positional_parameters():
    taken = {
        name: [a.arg for a in (*f.args.posonlyargs, *f.args.args) if a.arg not in ("self", "cls")]
        for name, f in functions()
    }
    found = {name for name, parameters in taken.items() if len(parameters) > PARAMETERS}
    assert found == set()


def test_every_folder_of_tests_has_a_room():
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("*.py")}
    assert {str(folder) for folder in folders if not (ROOT / folder).is_dir()} == set()
