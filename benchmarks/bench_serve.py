"""The service over HTTP against the bare core and against infinity, on the same model and machine.

python benchmarks/bench_serve.py [--model embedded] [--infinity VENV] [--svg FILE] [--small]

For each size of request: documents/s at saturation (the same 40 requests from 8 clients), then
latency and goodput as an open loop offers shares of the core's own rate; and what HTTP and Ray cost
a single small request. One service runs at a time, with the same threads. infinity-emb is measured
where VENV, a virtual environment of its own, has it. A shared machine drifts, so saturation is
measured in rounds with the core alone before and after each: `of_core` is the median of the rounds'
ratios. Ends in one JSON line.
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
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.chart import chart
from benchmarks.local_serve import deploy, free_port, local_serve, machine, wait_until
from benchmarks.open_loop import Summary, answer_all, keep_busy, send_at_rate, summarise
from rerank_core import Candidate, Reranker, RerankRequest, ScorerConfig, load_scorer

Ask = Callable[[dict[str, Any]], None]
# A request is good if it is answered within so many times what the core needs for it alone.
GOOD = 4


@dataclass(frozen=True)
class Plan:
    """How long and how hard to measure."""

    sizes: tuple[int, ...] = (10, 50)
    shares: tuple[float, ...] = (0.3, 0.6, 0.9)
    seconds: float = 20.0
    requests: int = 40
    clients: int = 8
    singles: int = 200
    rounds: int = 3


SMALL = Plan(sizes=(10,), shares=(0.5,), seconds=2.0, requests=6, clients=2, singles=5, rounds=1)


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
def ours(config: ScorerConfig, fused: bool | str = "auto") -> Iterator[str]:
    """Serve the model with one replica; yields the base URL."""
    scorer = config.model_dump(include={"model", "dtype", "threads"})
    settings = {"admission": {"max_wait_s": 10}, "scaling": {"fused": fused}}
    with local_serve() as url:
        deploy(url, {"scorer": scorer, **settings})
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


def saturation(url: str, plan: Plan) -> dict[int, float]:
    """Return documents/s of a service that always has enough to do, by size of request."""
    rates = {}
    for size in plan.sizes:
        asked = bodies(size, plan.requests)
        asyncio.run(keep_busy(f"{url}/rerank", asked, 1, 1.0))
        took_s = asyncio.run(answer_all(f"{url}/rerank", asked, plan.clients))
        rates[size] = len(asked) * size / took_s
    return rates


def open_loop(url: str, plan: Plan, core: dict[int, float]) -> dict[str, Any]:
    """Return a service's answers to shares of the core's rate, and to single small requests."""
    path, rows = f"{url}/rerank", []
    for size in plan.sizes:
        asked = bodies(size, plan.requests)
        for share in plan.shares:
            rate, good_s = core[size] * share / size, GOOD * size / core[size]
            sent = asyncio.run(send_at_rate(path, asked, rate, plan.seconds))
            summary: Summary = summarise(sent, plan.seconds, good_s)
            about = {"documents": size, "share": share, "good_within_ms": round(good_s * 1000)}
            rows.append({**about, **asdict(summary)})
    return {"single_ms": round(single_ms(path, plan), 1), "rows": rows}


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
    parser.add_argument("--dtype", choices=("float32", "int8"), default="float32")
    parser.add_argument("--infinity", type=Path, help="virtual environment with infinity-emb")
    parser.add_argument("--split", action="store_true", help="ours also with the hop through Ray")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sizes", type=int, nargs="+", default=Plan.sizes, help="documents")
    parser.add_argument(
        "--shares", type=float, nargs="*", default=Plan.shares, help="of the core's rate, to offer"
    )
    parser.add_argument("--svg", type=Path, help="draw a picture into this file")
    parser.add_argument("--small", action="store_true", help="a smoke run; figures mean nothing")
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    options = parser.parse_args()
    plan = Plan(tuple(options.sizes), tuple(options.shares), rounds=options.rounds)
    plan = SMALL if options.small else plan
    config = ScorerConfig(model=options.model, dtype=options.dtype, threads=options.threads)
    ask = asker(config)
    services: dict[str, Callable[[], AbstractContextManager[str]]] = {
        "ray-rerank": lambda: ours(config)
    }
    if options.split:
        services["ray-rerank, split"] = lambda: ours(config, False)
    if options.infinity:
        folder = str(config.model_dir)
        services["infinity"] = lambda: infinity(options.infinity, folder, options.threads)
    alone_ms = round(median_seconds(ask, plan.singles) * 1000, 1)
    core = [core_rates(ask, plan)]
    rates: dict[str, list[dict[int, float]]] = {name: [] for name in services}
    ratios: dict[str, list[dict[int, float]]] = {name: [] for name in services}
    for _ in range(plan.rounds):
        for name, service in services.items():
            with service() as url:
                rates[name].append(saturation(url, plan))
            core.append(core_rates(ask, plan))
            beside = {size: (core[-2][size] + core[-1][size]) / 2 for size in plan.sizes}
            ratios[name].append({size: rates[name][-1][size] / beside[size] for size in beside})
    found: dict[str, dict[str, Any]] = {}
    for name, service in services.items():
        with service() as url:
            found[name] = open_loop(url, plan, medians(core, 1))
    if options.svg:
        options.svg.write_text(picture(found, plan.sizes[-1]), encoding="utf-8")
    about = {
        "benchmark": "serve",
        "machine": machine(),
        "threads": options.threads,
        "dtype": options.dtype,
    }
    for name, service_rates in rates.items():
        found[name] = {"saturated": medians(service_rates, 1), **found[name]}
    summary = {
        "core": {"saturated": medians(core, 1), "single_ms": alone_ms},
        **found,
        "of_core": {name: medians(each, 3) for name, each in ratios.items()},
        "of_core_each": {
            name: [{size: round(r, 3) for size, r in each.items()} for each in of]
            for name, of in ratios.items()
        },
    }
    print(json.dumps({**about, "rounds": plan.rounds, **summary}))


def medians(rounds: Sequence[dict[int, float]], digits: int) -> dict[int, float]:
    """Return the median over the rounds, by size of request."""
    return {
        size: round(statistics.median(found[size] for found in rounds), digits)
        for size in rounds[0]
    }


if __name__ == "__main__":
    main()
