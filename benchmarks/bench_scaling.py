"""Scaling and overload through the real service, with replicas whose scorer only takes time.

python benchmarks/bench_scaling.py replicas    throughput of 1, 2, 4 and 8 replicas
python benchmarks/bench_scaling.py autoscale   a load that rises and falls, 1 to 8 replicas
python benchmarks/bench_scaling.py nodes       the same on a cluster that starts from no GPU
python benchmarks/bench_scaling.py overload    ten times the load that it can bear
python benchmarks/bench_scaling.py sizes       a large request alone; small ones beside large ones
python benchmarks/bench_scaling.py cold        the first request to an idle embedded model, in parts

GPUs are logical and a pass sleeps for tokens / rate: HTTP, Ray, routing, admission and autoscaling
are real, the model is not. Each ends in one JSON line; --svg FILE draws it; --small is a smoke run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import serve

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.chart import chart
from benchmarks.local_serve import deploy, growing_serve, local_serve, machine
from benchmarks.open_loop import Sample, answer_all, done_per_s, keep_busy, send_at_rate, summarise
from benchmarks.service_model import shipped
from benchmarks.simulated_scorer import simulated

TOKENS_PER_S, DOCUMENTS, WORDS = 10_000.0, 100, 20
# A request as the gateway's estimate and the scorer count it: about 2,200 tokens, 0.22 s of work.
BODY = {"query": "what is it", "documents": ["word " * WORDS + str(i) for i in range(DOCUMENTS)]}
SETTINGS: dict[str, Any] = {
    # The model's name only names it; loading is simulated.
    "model": "lexical",
    "unit_tokens": 2048,
}


def scaling(**values: Any) -> dict[str, Any]:
    """Return settings with one logical GPU a replica."""
    return {**SETTINGS, "scaling": {"gpus_per_replica": 1, "cpus_per_replica": 0.1, **values}}


def replicas(small: bool) -> tuple[dict[str, Any], str]:
    """Measure documents/s at saturation for several numbers of replicas."""
    counts, seconds = ((1, 2), 1.5) if small else ((1, 2, 4, 8), 10.0)
    found: dict[int, float] = {}
    with local_serve(gpus=8) as url:
        for count in counts:
            deploy(url, scaling(min_replicas=count, max_replicas=count), simulated(TOKENS_PER_S))
            samples = asyncio.run(keep_busy(f"{url}/v2/rerank", [BODY], 4 * count, seconds))
            found[count] = done_per_s(samples, seconds / 4) * DOCUMENTS
            print(f"{count} replicas: {found[count]:,.0f} documents/s")
    one = found[counts[0]]
    lines = {
        "measured": [(0.0, 0.0), *found.items()],
        "linear": [(0.0, 0.0), (counts[-1], one * counts[-1])],
    }
    share = found[counts[-1]] / one / counts[-1]
    return (
        {"documents_per_s": {k: round(v) for k, v in found.items()}, "of_linear": round(share, 3)},
        chart("Throughput by replicas", "replicas", "documents/s", lines),
    )


class Watch:
    """Notes how many scorer replicas run and how many nodes have a GPU, every half second."""

    def __init__(self) -> None:
        self.replicas: list[tuple[float, float]] = []
        self.nodes: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """How long it has been watching."""
        return self.replicas[-1][0] if self.replicas else 0.0

    def _loop(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(0.5):
            at = time.monotonic() - started
            self.replicas.append((at, running_replicas()))
            self.nodes.append((at, gpu_nodes()))


def running_replicas() -> int:
    """Return how many scorer replicas run."""
    states = serve.status().applications["bench"].deployments["Scorer"].replica_states
    return int(states.get("RUNNING", 0))


def gpu_nodes() -> int:
    """Return how many living nodes have a GPU."""
    return sum(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in ray.nodes())


def autoscale(small: bool) -> tuple[dict[str, Any], str]:
    """Let a load rise and fall; note replicas, latency and refusals."""
    phases = ((2.0, 2), (10.0, 6)) if small else ((2.0, 30), (23.0, 240), (1.0, 30))
    changed = {"scaling": {"max_replicas": 2 if small else 8}}
    with local_serve(gpus=changed["scaling"]["max_replicas"]) as url:
        deploy(url, shipped(**changed).model_dump(), simulated(TOKENS_PER_S))
        with Watch() as watch:
            summaries, offered = phases_of_load(url, phases)
            while not small and running_replicas() > 1 and watch.seconds < 600:
                # One request a second goes on: nothing is left to zero.
                asyncio.run(send_at_rate(f"{url}/v2/rerank", [BODY], 1.0, 10))
    return (
        {
            "changed": changed,
            "phases": summaries,
            "peak_replicas": int(max(number for _, number in watch.replicas)),
            "last_replicas": int(watch.replicas[-1][1]),
        },
        chart(
            "Replicas follow the load",
            "seconds",
            "replicas",
            {"replicas": watch.replicas, "load, in replicas' worth": offered},
        ),
    )


def phases_of_load(
    url: str, phases: tuple[tuple[float, int], ...]
) -> tuple[list[dict[str, Any]], list[tuple[float, float]]]:
    """Offer each rate for its seconds; return summaries, and the load in replicas' worth."""
    # Requests a second of one replica, as the scorer counts tokens.
    one = TOKENS_PER_S / (DOCUMENTS * (WORDS + 4))
    summaries, offered, start = [], [], 0.0
    for rate, seconds in phases:
        part: list[Sample] = asyncio.run(send_at_rate(f"{url}/v2/rerank", [BODY], rate, seconds))
        summaries.append({"rate": rate, **asdict(summarise(part, seconds))})
        print(summaries[-1])
        offered += [(start, rate / one), (start + seconds, rate / one)]
        start += seconds
    return summaries, [*offered, (start, 0.0)]


def nodes(small: bool) -> tuple[dict[str, Any], str]:
    """Let a load come and go where there is no GPU before; note nodes and replicas until none is.

    A node is a process of this machine with one logical GPU, added and removed by Ray's autoscaler.
    """
    top, phases = (1, ((2.0, 40),)) if small else (3, ((2.0, 60), (10.0, 90)))
    settings = scaling(
        min_replicas=0,
        max_replicas=top,
        target_units=2,
        upscale_delay_s=2,
        downscale_delay_s=10,
        look_back_period_s=10.5,
    )
    # A first request may wait for a node.
    settings |= {"admission": {"max_wait_s": 60}, "limits": {"request_timeout_s": 120}}
    with growing_serve(top) as url:
        deploy(url, settings, simulated(TOKENS_PER_S))
        with Watch() as watch:
            summaries, offered = phases_of_load(url, phases)
            deadline = time.monotonic() + 240
            while gpu_nodes():
                if time.monotonic() > deadline:
                    raise RuntimeError("the nodes did not go")
                time.sleep(1)
    return (
        {
            "phases": summaries,
            "peak_nodes": max(number for _, number in watch.nodes),
            "peak_replicas": max(number for _, number in watch.replicas),
            "seconds_until_none": round(watch.nodes[-1][0]),
        },
        chart(
            "Nodes and replicas follow the load",
            "seconds",
            "nodes, replicas",
            {
                "nodes": watch.nodes,
                "replicas": watch.replicas,
                "load, in replicas' worth": offered,
            },
        ),
    )


def cold(small: bool) -> tuple[dict[str, Any], str]:
    """Ask an idle model once; say how long its replica took to load and to warm up."""
    model = "lexical" if small else "embedded"
    idle = {"min_replicas": 0, "upscale_delay_s": 0, "downscale_delay_s": 1}
    settings = {"scorer": {"model": model}, "scaling": {**idle, "look_back_period_s": 10.1}}

    def ask(url: str) -> float:
        return asyncio.run(answer_all(f"{url}/v2/rerank", [BODY], 1))

    with local_serve() as url:
        deploy(url, settings)
        deadline = time.monotonic() + 120
        while running_replicas():
            if time.monotonic() > deadline:
                raise RuntimeError("the idle replica did not go")
            time.sleep(0.5)
        whole = ask(url)
        state = serve.get_deployment_handle("Scorer", "bench").state.remote().result()
        warm = ask(url)
    rest = whole - warm - state["load_s"] - state["warm_up_s"]
    parts = {
        "process, imports and routing": round(rest, 2),
        "loading": state["load_s"],
        "warm-up": state["warm_up_s"],
        "the request itself": round(warm, 2),
    }
    bars = {name: [(0.0, place), (took, place)] for place, (name, took) in enumerate(parts.items())}
    return {"model": model, "seconds": parts}, chart("A cold start", "seconds", "part", bars)


def overload(small: bool) -> tuple[dict[str, Any], str]:
    """Find the capacity of one replica, then offer what it can bear and ten times that."""
    seconds = 2.0 if small else 15.0
    with local_serve(gpus=1) as url:
        deploy(url, scaling(), simulated(TOKENS_PER_S))
        path = f"{url}/v2/rerank"
        # Twice: the first teaches admission what throughput is.
        for _ in range(2):
            samples = asyncio.run(keep_busy(path, [BODY], 3, seconds))
        capacity = done_per_s(samples, seconds / 4)
        rows = {}
        for name, times in (("at_capacity", 0.95), ("overload", 10.0)):
            samples = asyncio.run(send_at_rate(path, [BODY], capacity * times, seconds))
            rows[name] = asdict(summarise(samples, seconds))
            print(name, rows[name])
    refused = [s for s in samples if s.status == 429]
    answered = [s for s in samples if s.status == 200]
    found = {
        "capacity_per_s": round(capacity, 2),
        **rows,
        "goodput_of_capacity": round(done_per_s(samples) / capacity, 3),
        "p99_ratio": round(rows["overload"]["p99_ms"] / rows["at_capacity"]["p99_ms"], 2),
        "refusals_with_retry_after": sum(s.retry_after is not None for s in refused),
        "slowest_refusal_ms": round(max(s.seconds for s in refused) * 1000, 1),
    }
    lines = {
        name: sorted((s.due, s.seconds * 1000) for s in part)
        for name, part in (("answered", answered), ("refused", refused))
    }
    return found, chart("Ten times the load", "seconds", "latency, ms", lines)


def sizes(small: bool) -> tuple[dict[str, Any], str]:
    """Ask for 1,000 documents on 1 and 8 replicas, and for 5 documents while large ones run."""
    counts, seconds = ((2,), 1.5) if small else ((1, 8), 8.0)
    large = {**BODY, "documents": BODY["documents"] * (1000 // DOCUMENTS)}
    few = {**BODY, "documents": BODY["documents"][:5]}
    found: dict[str, Any] = {}
    lines: dict[str, list[tuple[float, float]]] = {}

    async def beside(path: str) -> list[Sample]:
        noise = asyncio.create_task(keep_busy(path, [large], 1, seconds))
        await asyncio.sleep(0.2)
        samples = await send_at_rate(path, [few], 5.0, seconds - 0.5)
        await noise
        return samples

    with local_serve(gpus=counts[-1]) as url:
        path = f"{url}/v2/rerank"
        for count in counts:
            settings = scaling(min_replicas=count, max_replicas=count)
            deploy(url, {**settings, "admission": {"max_wait_s": 30}}, simulated(TOKENS_PER_S))
            alone = asyncio.run(keep_busy(path, [large], 1, seconds))
            quiet = summarise(asyncio.run(send_at_rate(path, [few], 5.0, seconds)), seconds)
            samples = asyncio.run(beside(path))
            lines[f"5 documents, {count} replicas"] = sorted(
                (s.due, s.seconds * 1000) for s in samples
            )
            found[str(count)] = {
                "large_ms": round(1000 * sorted(s.seconds for s in alone)[len(alone) // 2], 1),
                "small_p50_ms": quiet.p50_ms,
                "small_beside_large_p50_ms": summarise(samples, seconds).p50_ms,
            }
            print(count, found[str(count)])
    return {"by_replicas": found}, chart("Small requests beside a large one", "s", "ms", lines)


def main() -> None:
    """Run one of them; print a line for each step and one JSON line at the end."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = {
        **{"replicas": replicas, "autoscale": autoscale, "nodes": nodes},
        **{"overload": overload, "sizes": sizes, "cold": cold},
    }
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--small", action="store_true", help="a smoke run; figures mean nothing")
    parser.add_argument("--svg", type=Path, help="draw a picture into this file")
    options = parser.parse_args()
    found, picture = kinds[options.kind](options.small)
    if options.svg:
        options.svg.write_text(picture, encoding="utf-8")
    about = {
        "benchmark": options.kind,
        "machine": machine(),
        "simulated_tokens_per_s": TOKENS_PER_S,
    }
    print(json.dumps({**about, **found}))


if __name__ == "__main__":
    main()
