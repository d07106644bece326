"""What the offline job costs: against the bare core loop, a plain script, and as rows grow.

python benchmarks/bench_job.py speed --pairs 20000 [--model embedded] [--svg FILE]
    pairs/s of the whole job and of its scoring alone, of the core in a plain loop, and of a plain
    sentence-transformers script at its default batch size, on the same Parquet file; and how far
    the job's scores and ranks are from the core's.
python benchmarks/bench_job.py rows --rows 10000 100000 1000000 10000000 [--svg FILE]
    rows/s and peak memory of driver and workers with the lexical scorer: the pipeline's own cost.

python benchmarks/bench_job.py busy --units 10 [--svg FILE]
    share of its time that a scorer is busy which takes 1.5 s for 16,384 pairs of 230 tokens, four
    times an H100, and no CPU. One logical GPU, so that units are as large as on a real one.
python benchmarks/bench_job.py end --rows 1000000 10000000
    what comes after the last unit as rows grow of which every query lies in many units: seconds,
    the driver's peak memory, and store operations a unit, as a bucket would count them. The scorer
    is a checksum of the text, so that scoring is over soon; each size has a process of its own.
python benchmarks/bench_job.py bucket --pairs 20000 [--model embedded]
    the whole job into a bucket beside the same job into a folder. The bucket is moto's S3 server in
    a process of its own on this machine, so what it takes of the CPUs counts, too.

With --small they only show that they run. Each ends in one JSON line. Everything runs at the same
priority; nothing else should run beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.about import measured_on
from benchmarks.pair_mixes import documentation
from pipelines import run as job_run
from pipelines.commits.local_store import LocalStore
from pipelines.commits.records import JobFolder
from pipelines.commits.store import open_store
from pipelines.config import RerankJobConfig
from pipelines.rerank_job import run_job
from rerank_core import PairScores, QueryDocumentPair, ScorerConfig, activate, load_scorer

MODULES = (
    *("argparse", "builtins", "collections", "csv", "datetime", "decimal", "email", "functools"),
    *("inspect", "io", "itertools", "json", "logging", "os", "pathlib", "random", "re", "shutil"),
    *("socket", "statistics", "string", "subprocess", "tarfile", "threading", "time", "zipfile"),
)
SCHEMA = pa.schema([(name, pa.string()) for name in ("query_id", "query", "doc_id", "text")])


def documents() -> list[str]:
    """Real text in chunks, to 1,200 letters."""
    return documentation(MODULES, lambda text: textwrap.shorten(text, 1200, placeholder=""))


def write_pairs(path: Path, rows: int) -> None:
    """Write pairs of a first line as query and whole texts as documents, 50 a query."""
    texts, rng = documents(), random.Random(0)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, 100_000):
            lines = []
            for row in range(start, min(rows, start + 100_000)):
                query = row // 50
                place = rng.randrange(len(texts))
                about = texts[query % len(texts)].split(".")[0][:200]
                lines.append((f"q{query}", about, f"d{row}", f"{texts[place]} {row}"))
            columns = [pa.array(column) for column in zip(*lines, strict=True)]
            writer.write_table(pa.table(columns, schema=SCHEMA))


def descendants(root: int) -> Iterator[int]:
    """Yield the living descendants of a process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    waiting = list(children.get(root, []))
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


class Usage:
    """Samples anonymous memory (so without Ray's shared store) of driver and scoring actors.

    `actors_cpu_s` is what the scoring actors used of the CPUs, loading included: unlike the clock,
    it hardly depends on what else runs.
    """

    def __init__(self) -> None:
        self.driver_mb = self.worker_mb = 0.0
        self._cpu_s: dict[int, float] = {}
        self._all_s: dict[int, float] = {}
        self._sums: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    @property
    def actors_cpu_s(self) -> float:
        """Seconds of CPU of all scoring actors."""
        return sum(self._cpu_s.values())

    def cpu_since_s(self, at: float) -> float:
        """Seconds of CPU of this process and all below it since a time, to a second."""
        before = [used for time_s, used in self._sums if time_s <= at]
        return self._sums[-1][1] - (before[-1] if before else 0.0)

    def __enter__(self) -> Usage:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.wait(1.0):
            self.driver_mb = max(self.driver_mb, _anonymous_mb(os.getpid()))
            below = list(descendants(os.getpid()))
            for pid in (os.getpid(), *below):
                # Ended processes keep what they have used.
                self._all_s[pid] = _cpu_s(pid) or self._all_s.get(pid, 0.0)
            self._sums.append((time.time(), sum(self._all_s.values())))
            for pid in below:
                try:
                    ours = "MapWorker" in Path(f"/proc/{pid}/cmdline").read_text()
                except OSError:
                    continue
                if ours:
                    self.worker_mb = max(self.worker_mb, _anonymous_mb(pid))
                    self._cpu_s[pid] = _cpu_s(pid) or self._cpu_s.get(pid, 0.0)


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _anonymous_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def run(path: Path, out: Path | str, scorer: ScorerConfig, unit_pairs: int) -> dict[str, Any]:
    """Run one whole job; return its seconds, those of scoring alone, and peak memory."""
    config = RerankJobConfig(
        input=(str(path),),
        output=str(out),
        scorer=scorer,
        unit_pairs=unit_pairs,
    )
    began_s = time.time()
    with Usage() as usage:
        manifest = run_job(config, out=io.StringIO())
    ended_s = time.time()
    records = list(JobFolder(open_store(out), 0).records("units").values())
    first_s = min(record["at"] - record["seconds"] for record in records)
    last_s = max(record["at"] for record in records)
    return {
        "rows": manifest["counts"]["rows_in"],
        "whole_s": round(ended_s - began_s, 2),
        "start_s": round(first_s - began_s, 2),  # Ray, its workers, the model in each
        "scoring_s": round(last_s - first_s, 2),
        "end_s": round(ended_s - last_s, 2),  # ranks over units, files, the commit
        "driver_mb": round(usage.driver_mb),
        "worker_mb": round(usage.worker_mb),
        "actors_cpu_s": round(usage.actors_cpu_s, 2),
    }


def core_loop(
    path: Path, config: ScorerConfig, pool: int, count: int
) -> tuple[dict[str, Any], list[float]]:
    """Score the first pairs with the core in a plain loop: pairs/s, seconds, lengths; scores."""
    started_s, began_cpu_s = time.perf_counter(), time.process_time()
    scorer = load_scorer(config)
    loaded_s = time.perf_counter() - started_s
    table = pq.read_table(path).slice(0, count)
    pairs = list(map(QueryDocumentPair, table["query"].to_pylist(), table["text"].to_pylist()))
    scorer.score(pairs[:32])
    started_s = time.perf_counter()
    pools = [pairs[start : start + pool] for start in range(0, len(pairs), pool)]
    results = [scorer.score(pairs) for pairs in pools]
    took_s = time.perf_counter() - started_s
    tokens = np.concatenate([result.tokens for result in results])
    figures = {
        "core_pairs_s": round(len(pairs) / took_s, 1),
        "core_load_s": round(loaded_s, 2),
        "core_cpu_s": round(time.process_time() - began_cpu_s, 2),
        "tokens": {f"p{p}": int(np.percentile(tokens, p)) for p in (10, 50, 90, 100)},
    }
    shown = [activate(result.raw, scorer.info.activation) for result in results]
    return figures, np.concatenate(shown).tolist()


def compare(path: Path, out: Path, scores: list[float]) -> dict[str, Any]:
    """Compare the job's scores with the core's of the first pairs, and its ranks with its order."""
    table = pq.read_table(path).slice(0, len(scores))
    expected = dict(zip(table["doc_id"].to_pylist(), scores, strict=True))
    output = pq.read_table(out, columns=["query_id", "doc_id", "score", "rank"]).to_pylist()
    apart = [abs(r["score"] - expected[r["doc_id"]]) for r in output if r["doc_id"] in expected]
    by_query: dict[str, list[tuple[int, float]]] = {}
    for row in output:
        by_query.setdefault(row["query_id"], []).append((row["rank"], row["score"]))
    ranked = [[score for _, score in sorted(found)] for found in by_query.values()]
    return {
        "compared_pairs": len(apart),
        "max_score_difference": max(apart),
        "queries_out_of_order": sum(s != sorted(s, reverse=True) for s in ranked),
    }


def plain_script(path: Path, config: ScorerConfig, count: int) -> float | None:
    """Return pairs/s of CrossEncoder.predict at its default batch size on the first pairs."""
    folder = config.model_dir
    if folder is None:
        return None
    from sentence_transformers import CrossEncoder

    table = pq.read_table(path).slice(0, count)
    pairs = list(zip(table["query"].to_pylist(), table["text"].to_pylist(), strict=True))
    # Weights saved in float16 would be multiplied in float16, which CPUs do slowly.
    encoder = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    encoder.predict(pairs[:32])
    started_s = time.perf_counter()
    encoder.predict(pairs)
    return len(pairs) / (time.perf_counter() - started_s)


def speed(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure the job against the core loop and the plain script."""
    path = work / "pairs.parquet"
    write_pairs(path, options.pairs)
    config = ScorerConfig(model=options.model, dtype=options.dtype)
    before, scores = core_loop(path, config, options.unit_pairs, options.peer_pairs)
    sys.stderr.write(f"{before}\n")
    job = run(path, work / "out", config, options.unit_pairs)
    sys.stderr.write(f"{job}\n")
    # A shared machine drifts: the core before and after, and the mean of both.
    core, _ = core_loop(path, config, options.unit_pairs, options.peer_pairs)
    core["core_pairs_s"] = round((before["core_pairs_s"] + core["core_pairs_s"]) / 2, 1)
    sys.stderr.write(f"{core}\n")
    script = plain_script(path, config, options.peer_pairs)
    result = {
        "pairs": options.pairs,
        "model": options.model,
        "dtype": options.dtype,
        "job_pairs_s": round(options.pairs / job["whole_s"], 1),
        "job_scoring_pairs_s": round(options.pairs / job["scoring_s"], 1),
        "script_pairs_s": round(script, 1) if script else None,
        **core,
        **job,
    }
    result |= compare(path, work / "out", scores)
    result["job_of_core"] = round(result["job_pairs_s"] / core["core_pairs_s"], 3)
    result["scoring_of_core"] = round(result["job_scoring_pairs_s"] / core["core_pairs_s"], 3)
    if script:
        result["job_of_script"] = round(result["job_pairs_s"] / script, 3)
    return result


def rows(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure time and memory as rows grow, with the scorer that costs nothing."""
    lines = []
    for count in options.rows:
        path, out = work / f"{count}.parquet", work / f"out{count}"
        write_pairs(path, count)
        line = run(path, out, ScorerConfig(model="lexical"), options.unit_pairs)
        lines.append(line | {"rows_s": round(count / line["scoring_s"])})
        sys.stderr.write(f"{lines[-1]}\n")
        shutil.rmtree(out)
        path.unlink()
    return {"model": "lexical", "unit_pairs": options.unit_pairs, "runs": lines}


def serve_bucket(port: Any) -> None:
    """Serve S3 without end, one request after another; say the port."""
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *args: object) -> None:
            """Say nothing."""

    application, turn = create_backend_app("s3"), threading.Lock()

    def answer(environ: Any, start: Any) -> list[bytes]:
        with turn:  # moto looks, then writes
            return list(application(environ, start))

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
    port.put(server.server_port)
    server.serve_forever()


@contextlib.contextmanager
def local_bucket() -> Iterator[None]:
    """Serve `s3://bench` while the block runs, and say where in the environment.

    A Ray has the environment of when it started. Inside another one it is that one.
    """
    if "AWS_ENDPOINT_URL" in os.environ:
        yield
        return
    import boto3

    processes = multiprocessing.get_context("spawn")
    port = processes.Queue()
    server = processes.Process(target=serve_bucket, args=(port,), daemon=True)
    server.start()
    wanted = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port.get(timeout=60)}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    with mock.patch.dict(os.environ, wanted):
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bench")
        yield
    server.terminate()
    server.join()


def bucket(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure the job into a bucket and into a folder."""
    path = work / "pairs.parquet"
    write_pairs(path, options.pairs)
    config = ScorerConfig(model=options.model, dtype=options.dtype)
    result: dict[str, Any] = {"model": options.model, "load_before": os.getloadavg()[0]}
    with local_bucket():
        for place, out in (("folder", work / "out"), ("bucket", "s3://bench/out")):
            result[place] = run(path, out, config, options.unit_pairs)
            result[f"{place}_pairs_s"] = round(options.pairs / result[place]["whole_s"], 1)
            sys.stderr.write(f"{place}: {result[place]}\n")
    whole_s = result["bucket"]["whole_s"] / result["folder"]["whole_s"]
    return {**result, "bucket_of_folder_whole_s": round(whole_s, 3)}


class Sleeping:
    """A scorer on a device that is not here: it sleeps, and notes when in a file."""

    def __init__(self, notes: Path) -> None:
        self._inner, self._notes = load_scorer(ScorerConfig(model="lexical")), notes
        self.info = self._inner.info

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Give every pair the score 0."""
        begun = time.time()
        count = len(pairs)
        time.sleep(count * _PAIR_S)
        with self._notes.open("a", encoding="utf-8") as file:
            file.write(f"{begun} {time.time()}\n")
        zeros = np.zeros(count, np.float32)
        return PairScores(zeros, np.full(count, 230, np.int32), np.zeros(count, np.bool_))


_PAIR_S = 1.5 / 16_384


def busy(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure how much of its time between first and last unit a scorer without CPU work works."""
    rows = options.units * 16_384
    path, notes = work / "pairs.parquet", work / "passes"
    with pq.ParquetWriter(path, SCHEMA) as writer:
        text = " ".join(documents())
        for first in range(0, rows, 16_384):
            numbers = range(first, first + 16_384)
            texts = [text[i % 50_000 :][:1000] + f" {i}" for i in numbers]
            columns = [[str(i // 100) for i in numbers], ["what is it"] * 16_384]
            writer.write_table(pa.table([*columns, [str(i) for i in numbers], texts], SCHEMA))
    ray.init(address="local", num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        config = RerankJobConfig(
            input=[str(path)], output=str(work / "out"), scorer={"model": "lexical"}
        )
        run_job(config, lambda _: Sleeping(notes))
    finally:
        ray.shutdown()
    passes = sorted(tuple(map(float, line.split())) for line in notes.read_text().splitlines())
    worked = sum(end - begun for begun, end in passes)
    span = passes[-1][1] - passes[0][0]
    return {"units": len(passes), "pairs": rows, "busy": round(worked / span, 3)}


class Checksum:
    """A scorer that costs next to nothing: the score is a checksum of the document."""

    def __init__(self, config: ScorerConfig) -> None:
        self.info = load_scorer(config).info

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score each pair between -4 and 4."""
        sums = np.array([zlib.crc32(pair.document.encode()) for pair in pairs], np.float64)
        count = len(pairs)
        raw = (sums / 2**29 - 4).astype(np.float32)
        return PairScores(raw, np.full(count, 50, np.int32), np.zeros(count, np.bool_))


class Counting(LocalStore):
    """A folder that notes what a bucket would be asked for, in a file for each process."""

    def _note(self, kind: str, count: int = 1) -> None:
        with open(f"{self.root}.counts/{os.getpid()}", "a", encoding="utf-8") as file:
            file.write(f"{kind} {count}\n")

    def __getattribute__(self, name: str) -> Any:
        if name in _ASKED:
            self._note(name, _ASKED[name])
        return super().__getattribute__(name)

    def names(self, folder: str, suffix: str = "", most: int | None = None) -> list[str]:
        """Count a list by the thousand."""
        found = super().names(folder, suffix, most)
        self._note("list", 1 + len(found) // 1000)
        return found

    def delete(self, keys: Any) -> None:
        """Count deletes by the thousand."""
        keys = list(keys)
        self._note("delete", -(-len(keys) // 1000))
        super().delete(keys)

    def place(self, work: str, folder: str, names: list[str], say: Any) -> None:
        """Count a copy for each file."""
        self._note("copy", len(names))
        super().place(work, folder, names, say)


# Operations and what each asks of a bucket; a file is opened for its footer and two columns.
_ASKED = {"create": 1, "mark": 1, "replace": 1, "read": 1, "read_part": 1, "size": 1, "open": 3}


def end(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure what comes after the last unit, for each number of rows."""
    if len(options.rows) > 1:
        each = [sys.executable, __file__, "end", "--rows"]
        runs = []
        for count in options.rows:
            said = subprocess.run([*each, str(count)], check=True, stdout=subprocess.PIPE).stdout
            runs.append(json.loads(said.splitlines()[-1]))
            sys.stderr.write(f"{runs[-1]}\n")
        grown = {
            f"{name}_times": round(runs[-1][name] / runs[0][name], 2)
            for name in ("rows", "end_s", "end_cpu_s", "driver_mb", "operations_a_unit")
        }
        return {**grown, "runs": runs}
    (count,) = options.rows
    path, out = work / "rows.parquet", work / "out"
    if options.small:
        write_crossing(path, count)
    else:  # elsewhere, or what it takes of memory would be the driver's
        writer = multiprocessing.get_context("spawn").Process(
            target=write_crossing, args=(path, count)
        )
        writer.start()
        writer.join()
    Path(f"{out}.counts").mkdir()
    size = options.unit_pairs if options.small else None
    places = {"input": (str(path),), "output": str(out)}
    config = RerankJobConfig(**places, scorer={"model": "lexical"}, unit_pairs=size)
    begun_s = time.time()
    counted = mock.patch.object(job_run, "open_store", lambda address: Counting(Path(address)))
    with counted, Usage() as usage:
        run_job(config, Checksum, io.StringIO())
    ended_s = time.time()
    records = list(JobFolder(open_store(out), 0).records("units").values())
    last_s = max(record["at"] for record in records)
    asked: Counter[str] = Counter()
    for file in Path(f"{out}.counts").iterdir():
        for line in file.read_text().splitlines():
            kind, _, number = line.partition(" ")
            asked[kind] += int(number)
    return {
        "rows": count,
        "units": len(records),
        "whole_s": round(ended_s - begun_s, 1),
        "end_s": round(ended_s - last_s, 1),
        "end_cpu_s": round(usage.cpu_since_s(last_s), 1),
        "driver_mb": round(usage.driver_mb),
        "worker_mb": round(usage.worker_mb),
        "output_mb": round(sum(f.stat().st_size for f in (out / "data").iterdir()) / 1e6),
        "operations_a_unit": round(asked.total() / len(records), 2),
        "operations": dict(asked),
        "scorer": "checksum",
        "settings": {"unit_pairs": "default", "file_size": "default"},
    }


def write_crossing(path: Path, rows: int) -> None:
    """Write pairs of which each query's 100 lie as far apart as they can, so in 100 units."""
    texts = pa.array(documents())
    queries = rows // 100
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, 1_000_000):
            row = np.arange(start, min(rows, start + 1_000_000))
            numbers = [pa.array(row % queries).cast(pa.string()), pa.array(row).cast(pa.string())]
            text = pc.utf8_slice_codeunits(texts.take(pa.array(row % len(texts))), 0, 200)
            query = pa.array(["what is it"]).take(pa.array(np.zeros(len(row), np.int64)))
            columns = [
                numbers[0],
                query,
                numbers[1],
                pc.binary_join_element_wise(text, numbers[1], " "),
            ]
            writer.write_table(pa.table(columns, schema=SCHEMA))


def picture(result: dict[str, Any]) -> str:
    """Return the result as an SVG file: pairs/s side by side, or peak memory as rows grow."""
    # matplotlib is not everywhere that this runs.
    from benchmarks.chart import bars, chart

    if "runs" in result:
        memory = [(r["rows"] / 1e6, r["driver_mb"] + r["worker_mb"]) for r in result["runs"]]
        lines = {"driver and largest worker": memory}
        return chart("Peak memory as rows grow", "million rows", "MB", lines)
    names = ("job", "job_scoring", "core", "script", "folder", "bucket")
    found = {name: result[f"{name}_pairs_s"] for name in names if result.get(f"{name}_pairs_s")}
    rates = {name.replace("_", ", "): rate for name, rate in found.items()}
    return bars("Pairs per second", rates, coloured={"job", "job, scoring", "bucket"})


def main() -> None:
    """Run one benchmark and print its JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, measure in (
        ("speed", speed),
        ("rows", rows),
        ("busy", busy),
        ("end", end),
        ("bucket", bucket),
    ):
        kind = kinds.add_parser(name)
        kind.set_defaults(measure=measure)
        kind.add_argument("--unit-pairs", type=int, default=2048)
        kind.add_argument("--svg", type=Path)
        kind.add_argument("--small", action="store_true", help="only show that it runs")
    for name in ("speed", "bucket"):
        kind = kinds.choices[name]
        kind.add_argument("--pairs", type=int, default=20_000)
        kind.add_argument("--model", default="embedded")
        kind.add_argument("--dtype", choices=("float32", "int8"), default="float32")
    kinds.choices["speed"].add_argument(
        "--peer-pairs", type=int, default=5_000, help="core and script take the first so many"
    )
    kinds.choices["rows"].add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000]
    )
    kinds.choices["end"].add_argument(
        "--rows", type=int, nargs="+", default=[1_000_000, 10_000_000]
    )
    kinds.choices["busy"].add_argument("--units", type=int, default=10)
    options = parser.parse_args()
    if options.small:
        options.units = 2
        options.unit_pairs, options.pairs, options.rows = 100, 400, [400]
        options.model = "lexical"
    # Ray runs its workers at a lower priority than this loop; compare like with like.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with tempfile.TemporaryDirectory() as work:
        result = options.measure(options, Path(work))
    result |= measured_on()
    if options.svg:
        options.svg.write_text(picture(result), encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
