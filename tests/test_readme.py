"""The README's commands are run, and what it shows is what comes out.

They run in other folders than the repository's, by the wheel and without the source (`installed`).
A console block is a list of `$ command` lines, each followed by its output. Numbers may differ in
the last digits between machines; times differ always and are not compared.
"""

import contextlib
import gc
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
START_LIMIT_S = 180


def commands() -> list[tuple[str, str]]:
    """Return (command, output shown) for every `$` line of every console block."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README.read_text("utf-8"), re.DOTALL):
        for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.strip()))
    return found


def that_start_with(*prefixes: str) -> list[tuple[str, str]]:
    return [(command, out) for command, out in commands() if command.startswith(prefixes)]


@pytest.fixture(scope="module")
def environment(installed) -> dict[str, str]:
    """What a shell has in which the installed wheel is active."""
    path = f"{installed}{os.pathsep}{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, "PATH": path, "COLUMNS": "100"}


@pytest.fixture
def run(environment, tmp_path) -> Callable[[str], str]:
    """Return a function that runs a command in another folder than the repository's."""

    def run(command: str) -> str:
        words = shlex.split(command)
        program = shutil.which(words[0], path=environment["PATH"])
        done = subprocess.run(
            [program, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def assert_same_but_for_time(actual: str, shown: str) -> None:
    def words(text: str) -> list[str]:
        text = re.sub(r"in \d+ ms \(model loaded in [\d.]+ s\)", "", text)
        return re.sub(r"[█·]+", "", text).split()

    actual_words, shown_words = words(actual), words(shown)
    assert len(actual_words) == len(shown_words), actual
    for got, want in zip(actual_words, shown_words, strict=True):
        if re.fullmatch(r"\d+\.\d+", want):
            assert float(got) == pytest.approx(float(want), abs=2e-3)
        else:
            assert got == want


def test_every_make_command_in_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {command.split()[1] for command, _ in that_start_with("make ")}
    assert {"demo", "test"} <= shown <= targets


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("command", "shown"), that_start_with("rerank "), ids=lambda text: text[:60]
)
def test_the_terminal_prints_what_the_readme_shows(run, command, shown):
    assert_same_but_for_time(run(command), shown)


@pytest.mark.slow
def test_python_prints_what_the_readme_shows(run, tmp_path):
    ((code, shown),) = re.findall(
        r"```python\n(from rerank_core.*?)```\n\nprints\n\n```text\n(.*?)```",
        README.read_text(),
        re.DOTALL,
    )
    (tmp_path / "example.py").write_text(code)
    assert run("python example.py") == shown.strip()


@pytest.fixture(scope="module")
def running_service(environment, tmp_path_factory) -> Iterator[None]:
    """The README's `serve run`, on a Ray of its own, until the last test that needs it."""
    ((command, _),) = that_start_with("serve run")
    # Short, because Ray's socket paths may not exceed 107 bytes.
    ray_folder = tempfile.mkdtemp(prefix="rr-")
    folder = tmp_path_factory.mktemp("serve")
    log = folder / "log"
    program, *words = shlex.split(command)
    with log.open("wb") as output:
        service = subprocess.Popen(
            [shutil.which(program, path=environment["PATH"]), *words],
            cwd=folder,
            env={**environment, "RAY_TMPDIR": ray_folder},
            stdout=output,
            stderr=output,
            start_new_session=True,
            # A shell's background job ignores Ctrl-C and its children inherit that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
    try:
        wait_until_ready(service, log)
        yield
    finally:
        service.send_signal(signal.SIGINT)
        try:
            service.wait(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(service.pid, signal.SIGKILL)
            shutil.rmtree(ray_folder, ignore_errors=True)


def wait_until_ready(service: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit and service.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get("http://127.0.0.1:8000/health/ready", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    pytest.fail(f"the service did not become ready:\n{log.read_text()[-4000:]}")


@pytest.mark.slow
@pytest.mark.usefixtures("running_service")
def test_the_service_answers_curl_as_the_readme_shows(run):
    ((command, shown),) = that_start_with("curl ")
    actual, expected = json.loads(run(command)), json.loads(shown)
    assert actual.keys() == expected.keys()
    assert [hit["index"] for hit in actual["results"]] == [1, 0]
    for hit, want in zip(actual["results"], expected["results"], strict=True):
        assert hit["relevance_score"] == pytest.approx(want["relevance_score"], abs=2e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("running_service")
def test_the_cohere_client_ranks_as_the_readme_says(capsys):
    (code,) = re.findall(
        r"```python\n(import cohere.*?)```\n\nprints `(.*?)`", README.read_text(), re.DOTALL
    )
    with warnings.catch_warnings():
        # The client leaves its connection to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        exec(code[0], {})
        gc.collect()
    assert capsys.readouterr().out.strip() == code[1]


@pytest.mark.slow
def test_the_job_reranks_parquet_and_is_evaluated_as_the_readme_says(run, tmp_path):
    ((evaluate, _),) = that_start_with("rerank-evaluate ")
    ((command, _),) = that_start_with("rerank-job ")
    documents = {f"str.{name}": getattr(str, name).__doc__ for name in dir(str) if name[0] != "_"}
    query = "remove spaces around a text"
    columns = {
        "query_id": ["q"] * len(documents),
        "query": [query] * len(documents),
        "doc_id": list(documents),
        "text": list(documents.values()),
    }
    pq.write_table(pa.table(columns), tmp_path / "candidates.parquet")
    run(command)
    table = pq.read_table(tmp_path / "reranked").sort_by("rank")
    assert table.column_names == ["query_id", "query", "doc_id", "text", "score", "rank"]
    assert table["rank"].to_pylist() == list(range(1, 11))
    assert table["score"].to_pylist() == sorted(table["score"].to_pylist(), reverse=True)
    (tmp_path / "qrels.txt").write_text("q 0 str.strip 1\n")
    assert "1 judged queries" in run(evaluate)
