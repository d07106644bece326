"""python -m tools.demo: rerank Python's documentation offline and online, and compare.

The two front ends are run as a user runs them, as commands; this module only prints and judges.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from tools.demo.candidates import PER_QUESTION, propose, write_candidates
from tools.demo.documents import collect_documents
from tools.demo.questions import Question, read_questions
from tools.demo.service import (
    REQUEST_LIMIT_S,
    Answer,
    DemoFailed,
    ask,
    free_port,
    ray_environment,
    running,
    start_service,
)
from tools.demo.table import examples, largest_rise, table

TOLERANCE = 1e-5
JOB_LIMIT_S, SERVICE_LIMIT_S = 300.0, 180.0
Pairs = dict[str, list[dict[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if everything held, 1 if not, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("demo-out"), help="for the files")
    parser.add_argument("--model", default="embedded", help="any model that the core loads")
    parser.add_argument("--port", type=int, default=8123, help="another is taken if it is in use")
    options = parser.parse_args(arguments)
    folder = (options.work_dir / datetime.now().strftime("%Y%m%d-%H%M%S")).absolute()
    folder.mkdir(parents=True)
    # Short, because Ray's socket paths may not exceed 107 bytes.
    ray_folder = Path(tempfile.mkdtemp(prefix="rr-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    try:
        agreed = _demo(folder, ray_folder, options.model, options.port)
    except DemoFailed as failure:
        print(f"\nfailed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started is stopped", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)
    print(f"\nEverything is stopped. {time.monotonic() - start:.0f} s; the files are in {folder}")
    return 0 if agreed else 1


def _demo(folder: Path, ray_folder: Path, model: str, port: int) -> bool:
    questions = read_questions()
    environment = ray_environment(ray_folder)

    _say(1, "Candidates: what TF-IDF finds in the docstrings of Python's standard library")
    source = folder / "candidates.parquet"
    before = _candidates(questions, source)

    _say(2, "Offline: the job reranks them")
    after = _rerank(source, folder / "reranked", model, environment)
    _check_complete(before, after)

    _say(3, "Before and after")
    rankings = [_names(before), _names(after)]
    print(table(questions, *rankings))
    print(f"\nThe answers in [brackets], TF-IDF left, {model} right:\n")
    print(examples(questions, *rankings))

    _say(4, "Online: the service answers the same questions over HTTP")
    start = time.monotonic()
    with start_service(model, free_port(port), environment, folder, SERVICE_LIMIT_S) as url:
        print(f"ready at {url} after {time.monotonic() - start:.1f} s")
        with httpx.Client(base_url=url, timeout=REQUEST_LIMIT_S, trust_env=False) as client:
            answers = {key: _ask(client, rows) for key, rows in before.items()}
        agreed = _compare(after, answers)
        print("stopping the service")
    return agreed


def _say(step: int, title: str) -> None:
    print(f"\n{step}. {title}\n{'-' * (len(title) + 3)}", flush=True)


def _candidates(questions: Sequence[Question], path: Path) -> Pairs:
    start = time.monotonic()
    documents = collect_documents()
    found = propose(documents, questions)
    write_candidates(found, path)
    print(
        f"{len(documents):,} documents, {len(questions)} questions, {found.num_rows:,} pairs"
        f" (at most {PER_QUESTION} a question) in {time.monotonic() - start:.1f} s: {path.name}"
    )
    return _by_question(found, "first_stage_rank")


def _rerank(source: Path, output: Path, model: str, environment: Mapping[str, str]) -> Pairs:
    # Units small enough that every core gets some; the default suits millions of pairs.
    options = ["--input", str(source), "--output", str(output), "--model", model]
    options += ["--unit-pairs", "256"]
    print(f"$ python -m pipelines.rerank_job {' '.join(options)}", flush=True)
    start = time.monotonic()
    command = [sys.executable, "-m", "pipelines.rerank_job", *options]
    with running(command, environment) as process:
        try:
            code = process.wait(timeout=JOB_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"the job was not done within {JOB_LIMIT_S:.0f} s") from None
    if code:
        raise DemoFailed(f"the job ended with code {code}")
    print(f"{time.monotonic() - start:.1f} s with starting and stopping Ray")
    return _by_question(pq.read_table(output), "rank")


def _by_question(pairs: pa.Table, rank: str) -> Pairs:
    """Return each question's rows, best first."""
    found: Pairs = {}
    for row in pairs.sort_by([("query_id", "ascending"), (rank, "ascending")]).to_pylist():
        found.setdefault(row["query_id"], []).append(row)
    return found


def _names(pairs: Pairs) -> dict[str, list[str]]:
    return {key: [row["doc_id"] for row in rows] for key, rows in pairs.items()}


def _check_complete(before: Pairs, after: Pairs) -> None:
    for key, rows in before.items():
        if {row["doc_id"] for row in rows} != {row["doc_id"] for row in after.get(key, ())}:
            raise DemoFailed(f"the job's result for {key} has not the candidates that went in")


def _ask(client: httpx.Client, rows: Sequence[Mapping[str, Any]]) -> Answer:
    return ask(client, rows[0]["query"], {row["doc_id"]: row["text"] for row in rows})


def _compare(offline: Pairs, online: Mapping[str, Answer]) -> bool:
    """Print how the service's scores and orders compare with the job's; say if they agree."""
    largest, largest_swap, same = 0.0, 0.0, 0
    for key, rows in offline.items():
        expected = {row["doc_id"]: row["score"] for row in rows}
        scores = online[key].scores
        if scores.keys() != expected.keys():
            raise DemoFailed(f"the service left out documents of {key}")
        largest = max(largest, *(abs(scores[name] - expected[name]) for name in expected))
        largest_swap = max(largest_swap, largest_rise([expected[name] for name in scores]))
        same += list(scores) == list(expected)
    times = sorted(answer.seconds * 1000 for answer in online.values())
    p50, p95 = statistics.median(times), times[int(0.95 * (len(times) - 1))]
    print(f"{len(online)} requests of up to {PER_QUESTION} documents, one after the other")
    print(f"latency: p50 {p50:.0f} ms, p95 {p95:.0f} ms")
    print(f"largest difference between an online and an offline score: {largest:.1e}")
    swaps = f"; others swap scores at most {largest_swap:.1e} apart" if same < len(offline) else ""
    print(f"same order online and offline: {same} of {len(offline)} questions{swaps}")
    agreed = largest <= TOLERANCE and largest_swap <= TOLERANCE
    print(f"{'AGREE' if agreed else 'DISAGREE'} (allowed: {TOLERANCE:.0e}; closer scores are ties)")
    return agreed


if __name__ == "__main__":
    sys.exit(main())
