"""The service over HTTP against the bare core, infinity and stock Serve, on one model and machine.

python benchmarks/bench_serve.py [--parts ...] [--services ...] [--infinity VENV] [--small]

One service runs at a time, with the same threads; infinity-emb where VENV, a virtual environment of
its own, has it; Serve with one and two deployments that do nothing is its floor, "plain Serve" one
that does what the core does and nothing else. Parts:
  overhead    p50 and p99 of 1, 10 and 100 short documents over the core's own, which takes turns
              with the service, block by block; and requests/s of 16 clients with one such document
  gateway     the same requests/s of services whose model does nothing (`lexical`)
  saturation  documents/s of the same 40 requests from 8 clients
  open_loop   latency and goodput as an open loop offers shares of the core's own rate
A shared machine drifts, so all but the last are measured in rounds, saturation with the core alone
before and after each: `of_core` is the median of the rounds' ratios. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve
from starlette.requests import Request

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.about import measured_on
from benchmarks.chart import chart
from benchmarks.local_serve import deploy, free_port, local_serve, wait_until
from benchmarks.open_loop import Summary, answer_all, keep_busy, send_at_rate, summarise
from benchmarks.small_requests import floor, overhead, proxied, requests_per_s, stock_serve
from rerank_core import Candidate, Reranker, RerankRequest, ScorerConfig, load_scorer

Ask = Callable[[dict[str, Any]], None]
# Characters of a document where the model is to take little of the time.
SHORT = 100
# A request is good if it is answered within so many times what the core needs for it alone.
GOOD = 4


@dataclass(frozen=True)
class Plan:
    """How long and how hard to measure; `block` has the requests of one size in a row."""

    sizes: tuple[int, ...] = (10, 50)
    shares: tuple[float, ...] = (0.3, 0.6, 0.9)
    seconds: float = 20.0
    requests: int = 40
    clients: int = 8
    rounds: int = 3
    block: tuple[tuple[int, int], ...] = ((1, 40), (10, 8), (100, 1))
    blocks: int = 5
    busy_s: float = 8.0


SMALL = Plan(
    sizes=(10,),
    shares=(0.5,),
    seconds=2.0,
    requests=6,
    clients=2,
    rounds=1,
    block=((1, 3), (10, 2)),
    blocks=1,
    busy_s=0.5,
)


def bodies(documents: int, count: int = 40, characters: int = 1500) -> list[dict[str, Any]]:
    """Return requests of real text: the documentation of Python's own modules, up to a length."""
    modules = (argparse, asyncio, contextlib, json, os, statistics, subprocess, textwrap, time)
    texts = [
        textwrap.shorten(value.__doc__, characters, placeholder="")
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
def ours(config: ScorerConfig, fused: bool) -> Iterator[str]:
    """Serve the model with one replica and the defaults that ship; yields the base URL."""
    scorer = config.model_dump(include={"model", "dtype", "threads"})
    with local_serve() as url:
        deploy(url, {"scorer": scorer, "scaling": {"fused": fused}})
        yield url


@serve.deployment
class Plain:
    """The core behind Serve as it is written in ten lines."""

    def __init__(self, config: ScorerConfig) -> None:
        self._ask = asker(config)

    async def __call__(self, request: Request) -> str:
        """Score a request beside the event loop; nothing is answered."""
        await asyncio.to_thread(self._ask, await request.json())
        return ""


@contextlib.contextmanager
def plain_serve(config: ScorerConfig) -> Iterator[str]:
    """Serve the model by a deployment of ten lines; yields the base URL."""
    with local_serve() as url:
        serve.run(Plain.bind(config), name="bench", route_prefix="/rerank")
        yield url


@contextlib.contextmanager
def infinity(venv: Path, folder: str, threads: int) -> Iterator[str]:
    """Serve the model by infinity-emb, with its own defaults; yields the base URL."""
    # It takes seconds to import, for a peer alone.
    from benchmarks.scorer_rivals import readable_by_transformers_4

    port = free_port()
    command = [str(venv / "bin" / "infinity_emb"), "v2", "--port", str(port)]
    options = ["--host", "127.0.0.1", "--engine", "torch", "--device", "cpu"]
    quiet = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    more = ["--served-model-name", "bench", "--no-bettertransformer"]
    with tempfile.TemporaryDirectory() as work:
        model = str(readable_by_transformers_4(Path(folder), Path(work) / "model"))
        with subprocess.Popen(
            [*command, *options, *more, "--model-id", model],
            env={**os.environ, **quiet},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                wait_until(f"http://127.0.0.1:{port}/health")
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


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
    return {"rows": rows}


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
    """Measure core, services and peers, one after the other."""
    options = arguments()
    plan = Plan(tuple(options.sizes), tuple(options.shares), rounds=options.rounds)
    plan = replace(plan, block=tuple(one for one in plan.block if one[0] in options.documents))
    plan = SMALL if options.small else plan
    config = ScorerConfig(model=options.model, dtype=options.dtype, threads=options.threads)
    ask = asker(config)
    about = {
        "benchmark": "serve",
        **measured_on(),
        "threads": options.threads,
        "dtype": options.dtype,
        "rounds": plan.rounds,
    }
    services = {name: all_services(config, options)[name] for name in options.services}
    found: dict[str, dict[str, Any]] = {name: {} for name in services}
    if {"overhead", "gateway"} & set(options.parts):
        small_requests(found, services, options, (ask, plan))
    models = {name: one for name, one in services.items() if not name.startswith(STOCK)}
    core: list[dict[int, float]] = []
    of_core: dict[str, Any] = {}
    if {"saturation", "open_loop"} & set(options.parts):
        core.append(core_rates(ask, plan))
        of_core["core"] = {"saturated": core[0]}
    if "saturation" in options.parts:
        of_core |= saturated(found, models, core, (ask, plan))
    if "open_loop" in options.parts:
        for name, service in models.items():
            with service() as url:
                found[name] |= open_loop(url, plan, medians(core, 1))
        if options.svg:
            drawn = {name: found[name] for name in models}
            options.svg.write_text(picture(drawn, plan.sizes[-1]), encoding="utf-8")
    print(json.dumps({**about, **found, **of_core}))


Service = Callable[[], AbstractContextManager[str]]
STOCK = "stock Serve"
PARTS = ("overhead", "gateway", "saturation", "open_loop")


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="embedded", help="a folder, or embedded")
    parser.add_argument("--dtype", choices=("float32", "int8"), default="float32")
    parser.add_argument("--infinity", type=Path, help="virtual environment with infinity-emb")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--services", nargs="+", default=("ray-rerank",), help="or all")
    parser.add_argument("--env", nargs="*", default=(), help="NAME=VALUE for Ray, to try settings")
    parser.add_argument(
        "--threads", type=int, default=1, help="of the model; a replica of the shipped files has 1"
    )
    parser.add_argument(
        "--documents",
        type=int,
        nargs="+",
        choices=(1, 10, 100),
        default=(1, 10, 100),
        help="of the requests whose overhead is measured",
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=Plan.sizes, help="documents of the others"
    )
    parser.add_argument(
        "--shares", type=float, nargs="*", default=Plan.shares, help="of the core's rate, to offer"
    )
    parser.add_argument("--svg", type=Path, help="draw a picture into this file")
    parser.add_argument("--small", action="store_true", help="a smoke run; figures mean nothing")
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    options = parser.parse_args()
    every = all_services(ScorerConfig(model="lexical"), options)
    if options.services == ["all"]:
        options.services = list(every)
    if unknown := sorted(set(options.services) - set(every)):
        parser.error(f"no service {unknown[0]!r}; there are {', '.join(every)}")
    return options


def all_services(config: ScorerConfig, options: argparse.Namespace) -> dict[str, Service]:
    """Return what can be measured by name; of infinity only where it is."""
    more = dict(one.split("=", 1) for one in options.env)

    def behind(service: Service, *, haproxy: bool) -> Service:
        @contextlib.contextmanager
        def started() -> Iterator[str]:
            with proxied(haproxy=haproxy, more=more), service() as url:
                yield url

        return started

    alone: dict[str, Service] = {
        "ray-rerank": lambda: ours(config, True),
        "ray-rerank, split": lambda: ours(config, False),
        "plain Serve": lambda: plain_serve(config),
        f"{STOCK}, one deployment": lambda: stock_serve(1),
        f"{STOCK}, two deployments": lambda: stock_serve(2),
    }
    services = {}
    for name, service in alone.items():
        services[name] = behind(service, haproxy=False)
        services[f"{name}, HAProxy"] = behind(service, haproxy=True)
    if options.infinity:
        folder = str(config.model_dir)
        services["infinity"] = lambda: infinity(options.infinity, folder, options.threads)
    return services


def small_requests(
    found: dict[str, dict[str, Any]],
    services: dict[str, Service],
    options: argparse.Namespace,
    how: tuple[Ask, Plan],
) -> None:
    """Add each round's cost of a small request, and requests/s, to what was `found`."""
    ask, plan = how
    short = partial(bodies, characters=SHORT)
    idle = all_services(ScorerConfig(model="lexical"), options)
    for _ in range(plan.rounds):
        for name, service in services.items():
            stock = name.startswith(STOCK)
            with service() as url:
                if stock:
                    times: dict[str, Any] = floor(url, plan.block[0][1], plan.blocks)
                    times["requests_per_s"] = requests_per_s(url, short(1), plan.busy_s)
                elif "overhead" in options.parts:
                    times = overhead(url, ask, short, dict(plan.block), plan.blocks)
                    times["requests_per_s"] = requests_per_s(f"{url}/rerank", short(1), plan.busy_s)
            if not stock and "gateway" in options.parts and name != "infinity":
                with idle[name]() as url:
                    times["gateway_per_s"] = requests_per_s(f"{url}/rerank", short(1), plan.busy_s)
            found[name].setdefault("small_requests", []).append(times)
            print(name, json.dumps(times), file=sys.stderr, flush=True)


def saturated(
    found: dict[str, dict[str, Any]],
    services: dict[str, Service],
    core: list[dict[int, float]],
    how: tuple[Ask, Plan],
) -> dict[str, Any]:
    """Add each service's documents/s to what was `found`; return the shares of the core's own."""
    ask, plan = how
    rates: dict[str, list[dict[int, float]]] = {name: [] for name in services}
    ratios: dict[str, list[dict[int, float]]] = {name: [] for name in services}
    for _ in range(plan.rounds):
        for name, service in services.items():
            with service() as url:
                rates[name].append(saturation(url, plan))
            core.append(core_rates(ask, plan))
            beside = {size: (core[-2][size] + core[-1][size]) / 2 for size in plan.sizes}
            ratios[name].append({size: rates[name][-1][size] / beside[size] for size in beside})
    for name, service_rates in rates.items():
        found[name]["saturated"] = medians(service_rates, 1)
    return {
        "core": {"saturated": medians(core, 1)},
        "of_core": {name: medians(each, 3) for name, each in ratios.items()},
        "of_core_each": {
            name: [{size: round(r, 3) for size, r in each.items()} for each in of]
            for name, of in ratios.items()
        },
    }


def medians(rounds: Sequence[dict[int, float]], digits: int) -> dict[int, float]:
    """Return the median over the rounds, by size of request."""
    return {
        size: round(statistics.median(found[size] for found in rounds), digits)
        for size in rounds[0]
    }


if __name__ == "__main__":
    main()
