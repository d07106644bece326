"""The service over HTTP against the bare core and against infinity, on the same model and machine.

python benchmarks/bench_serve.py [--model embedded] [--infinity VENV] [--svg FILE] [--small]

For each size of request: documents/s at saturation (the same 40 requests from 8 clients), then
latency and goodput as an open loop offers shares of the core's own rate; and what HTTP and Ray cost
a single small request. One service runs at a time, with the same threads. infinity-emb is measured
where VENV, a virtual environment of its own, has it. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.chart import chart
from benchmarks.local_serve import deploy, free_port, local_serve, machine, wait_until
from benchmarks.open_loop import Summary, answer_all, keep_busy, send_at_rate, summarise
from rerank_core import Candidate, Reranker, RerankRequest, ScorerConfig, load_scorer

Ask = Callable[[dict[str, Any]], None]
# A request is good if it is answered within this.
WITHIN_S = 1.0


@dataclass(frozen=True)
class Plan:
    """How long and how hard to measure."""

    sizes: tuple[int, ...] = (10, 50)
    shares: tuple[float, ...] = (0.3, 0.6, 0.9)
    seconds: float = 20.0
    requests: int = 40
    clients: int = 8
    singles: int = 200


SMALL = Plan(sizes=(10,), shares=(0.5,), seconds=2.0, requests=6, clients=2, singles=5)


def bodies(documents: int, count: int = 40) -> list[dict[str, Any]]:
    """Return requests of real text: the documentation of Python's own modules."""
    modules = (argparse, asyncio, contextlib, json, os, statistics, subprocess, textwrap, time)
    texts = [
        textwrap.shorten(value.__doc__, 1500, placeholder="")
        for module in modules
        for value in vars(module).values()
        if callable(value) and len(value.__doc__ or "") > 80
    ]
    size = len(texts)
    return [
        {
            "query": texts[number * 7 % size][:100],
            "documents": [texts[(number * 13 + place * 5) % size] for place in range(documents)],
        }
        for number in range(count)
    ]


@contextlib.contextmanager
def ours(model: str, threads: int) -> Iterator[str]:
    """Serve the model with one replica; yields the base URL."""
    scorer = {"model": model, "threads": threads}
    with local_serve() as url:
        deploy(url, {"scorer": scorer, "admission": {"max_wait_s": 10}})
        yield url


@contextlib.contextmanager
def infinity(venv: Path, folder: str, threads: int) -> Iterator[str]:
    """Serve the model by infinity-emb, with its own defaults; yields the base URL."""
    port = free_port()
    command = [str(venv / "bin" / "infinity_emb"), "v2", "--port", str(port)]
    options = ["--host", "127.0.0.1", "--engine", "torch", "--device", "cpu"]
    quiet = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    more = ["--served-model-name", "bench", "--no-bettertransformer"]
    with (
        readable_by_transformers_4(Path(folder)) as copy,
        subprocess.Popen(
            [*command, *options, *more, "--model-id", copy],
            env={**os.environ, **quiet},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            wait_until(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextlib.contextmanager
def readable_by_transformers_4(folder: Path) -> Iterator[str]:
    """Yield a copy of a model whose tokenizer has the name that it had before transformers 5."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(folder, Path(place) / "model"))
        file = copy / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        if settings.get("tokenizer_class") == "TokenizersBackend":
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
            file.write_text(json.dumps(settings), encoding="utf-8")
        yield str(copy)


def asker(config: ScorerConfig) -> Ask:
    """Return what answers a request by the core, in this process."""
    reranker = Reranker(load_scorer(config))

    def ask(body: dict[str, Any]) -> None:
        documents = enumerate(body["documents"])
        candidates = tuple(Candidate(str(i), text) for i, text in documents)
        reranker.rerank([RerankRequest(body["query"], candidates)])

    return ask


def core_rates(ask: Ask, plan: Plan) -> dict[int, float]:
    """Return documents/s of the core alone by size of request."""
    rates = {}
    for size in plan.sizes:
        asked = bodies(size, plan.requests)
        ask(asked[0])
        started = time.perf_counter()
        for body in asked:
            ask(body)
        rates[size] = len(asked) * size / (time.perf_counter() - started)
    return rates


def median_seconds(ask: Ask, count: int) -> float:
    """Return the median of single requests with one document, one after the other."""
    times = []
    for body in bodies(1, count):
        started = time.perf_counter()
        ask(body)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(url: str, plan: Plan, core: dict[int, float]) -> dict[str, Any]:
    """Measure one service."""
    path = f"{url}/rerank"
    saturated, rows = {}, []
    for size in plan.sizes:
        asked = bodies(size, plan.requests)
        asyncio.run(keep_busy(path, asked, 1, 1.0))
        took_s = asyncio.run(answer_all(path, asked, plan.clients))
        saturated[size] = round(len(asked) * size / took_s, 1)
        for share in plan.shares:
            rate = core[size] * share / size
            sent = asyncio.run(send_at_rate(path, asked, rate, plan.seconds))
            summary: Summary = summarise(sent, plan.seconds, WITHIN_S)
            rows.append({"documents": size, "share": share, **asdict(summary)})
    return {"saturated": saturated, "single_ms": round(single_ms(path, plan), 1), "rows": rows}


def single_ms(path: str, plan: Plan) -> float:
    """Return the median of requests with one document over one connection."""
    samples = asyncio.run(keep_busy(path, bodies(1), 1, plan.singles / 50))
    return statistics.median(sample.seconds for sample in samples) * 1000


def picture(found: dict[str, Any], size: int) -> str:
    """Draw p50 and p99 by offered rate, for requests of `size` documents."""
    lines: dict[str, Sequence[tuple[float, float]]] = {}
    for name, service in found.items():
        rows = [row for row in service["rows"] if row["documents"] == size]
        for figure in ("p50", "p99"):
            points = [(row["offered_per_s"], row[f"{figure}_ms"]) for row in rows]
            lines[f"{name} {figure}"] = sorted(points)
    return chart(f"Latency, {size} documents a request", "requests/s offered", "ms", lines)


def main() -> None:
    """Measure core, service and peer, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="embedded", help="a folder, or embedded")
    parser.add_argument("--infinity", type=Path, help="virtual environment with infinity-emb")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sizes", type=int, nargs="+", default=Plan.sizes, help="documents")
    parser.add_argument(
        "--shares", type=float, nargs="*", default=Plan.shares, help="of the core's rate, to offer"
    )
    parser.add_argument("--svg", type=Path, help="draw a picture into this file")
    parser.add_argument("--small", action="store_true", help="a smoke run; figures mean nothing")
    options = parser.parse_args()
    plan = SMALL if options.small else Plan(tuple(options.sizes), tuple(options.shares))
    config = ScorerConfig(model=options.model, threads=options.threads)
    ask = asker(config)
    before, alone_s = core_rates(ask, plan), median_seconds(ask, plan.singles)
    found = {}
    with ours(options.model, options.threads) as url:
        found["ray-rerank"] = measure(url, plan, before)
    # A shared machine drifts: the core before and after, and the mean of both.
    after = core_rates(ask, plan)
    rates = {size: (before[size] + after[size]) / 2 for size in before}
    if options.infinity:
        with infinity(options.infinity, str(config.model_dir), options.threads) as url:
            found["infinity"] = measure(url, plan, before)
    if options.svg:
        options.svg.write_text(picture(found, plan.sizes[-1]), encoding="utf-8")
    about = {"benchmark": "serve", "machine": machine(), "threads": options.threads}
    core = {"saturated": {k: round(v, 1) for k, v in rates.items()}}
    core["single_ms"] = round(alone_s * 1000, 1)
    ratios = {
        name: {size: round(service["saturated"][size] / rates[size], 3) for size in rates}
        for name, service in found.items()
    }
    print(json.dumps({**about, "core": core, **found, "of_core": ratios}))


if __name__ == "__main__":
    main()
