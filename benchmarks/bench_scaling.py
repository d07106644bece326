"""Scaling and overload through the real service, with replicas whose scorer only takes time.

python benchmarks/bench_scaling.py replicas    throughput of 1, 2, 4 and 8 replicas
python benchmarks/bench_scaling.py autoscale   a load that rises and falls, 1 to 8 replicas
python benchmarks/bench_scaling.py nodes       the same on a cluster that starts from no GPU
python benchmarks/bench_scaling.py overload    ten times the load that it can bear
python benchmarks/bench_scaling.py sizes       a large request alone; small ones beside large ones
python benchmarks/bench_scaling.py cold        the first request to an idle embedded model, in parts

Settings are those of serve.yaml; what a run changes it names. GPUs are logical and a pass sleeps
for tokens / rate: HTTP, Ray, routing, admission and autoscaling are real, the model is not. Each
ends in one JSON line; --svg FILE draws it; --small is a smoke run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.about import measured_on
from benchmarks.chart import chart
from benchmarks.local_serve import deploy, growing_serve, local_serve, open_here
from benchmarks.open_loop import Sample, answer_all, done_per_s, keep_busy, send_at_rate, summarise
from benchmarks.service_model import shipped
from benchmarks.simulated_scorer import simulated

TOKENS_PER_S, DOCUMENTS, WORDS = 10_000.0, 100, 20
# A request as the gateway's estimate and the scorer count it: about 2,200 tokens, 0.22 s of work.
BODY = {"query": "what is it", "documents": ["word " * WORDS + str(i) for i in range(DOCUMENTS)]}


def fixed(count: int) -> dict[str, Any]:
    """Return what differs from the settings that ship: the number of replicas."""
    return {"scaling": {"min_replicas": count, "max_replicas": count}}


def replicas(small: bool) -> tuple[dict[str, Any], str]:
    """Measure documents/s at saturation for several numbers of replicas."""
    counts, seconds = ((1, 2), 1.5) if small else ((1, 2, 4, 8), 10.0)
    found: dict[int, float] = {}
    with local_serve(gpus=8) as url:
        for count in counts:
            deploy(url, shipped(**fixed(count)).model_dump(), simulated(TOKENS_PER_S))
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
    phases = ((2.0, 1), (10.0, 2)) if small else ((2.0, 30), (23.0, 240), (1.0, 30))
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
    quick = {"upscale_delay_s": 2, "downscale_delay_s": 10, "look_back_period_s": 10.5}
    changed: dict[str, dict[str, Any]] = {
        "scaling": {"min_replicas": 0, "max_replicas": top, "target_units": 2, **quick},
        # A first request may wait for a node.
        "admission": {"max_wait_s": 60},
        "limits": {"request_timeout_s": 120},
    }
    with growing_serve(top) as url:
        deploy(url, shipped(**changed).model_dump(), simulated(TOKENS_PER_S))
        with Watch() as watch:
            summaries, offered = phases_of_load(url, phases)
            deadline = time.monotonic() + 240
            while gpu_nodes():
                if time.monotonic() > deadline:
                    raise RuntimeError("the nodes did not go")
                time.sleep(1)
    return (
        {
            "changed": changed,
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


@serve.deployment
class Empty:
    """Answers at once: what a request costs on this machine that nobody works for."""

    async def __call__(self, request: Any) -> str:
        """Read the body, as a gateway does."""
        await request.body()
        return "{}"


def overload(small: bool) -> tuple[dict[str, Any], str]:
    """Find the capacity of one replica, then offer four fifths of that and ten times that."""
    seconds = 1.0 if small else 20.0
    changed = fixed(1)
    settings = shipped(**changed)
    with local_serve(gpus=1) as url:
        serve.run(Empty.bind(), name="empty", route_prefix="/empty")  # type: ignore[attr-defined]
        deploy(url, settings.model_dump(), simulated(TOKENS_PER_S))
        path = f"{url}/v2/rerank"
        # Twice: the first teaches admission what throughput is.
        for _ in range(2):
            samples = asyncio.run(keep_busy(path, [BODY], 3, seconds))
        capacity = done_per_s(samples, seconds / 4)
        rows = {}
        for name, times in (("at_80_percent", 0.8), ("overload", 10.0)):
            samples = asyncio.run(send_at_rate(path, [BODY], capacity * times, seconds))
            rows[name] = asdict(summarise(samples, seconds))
            print(name, rows[name])
        nothing = asyncio.run(send_at_rate(f"{url}/empty", [BODY], capacity * 10, seconds))
        refusal_ms = refusals_ms(url)
    refused = [s for s in samples if s.status == 429]
    answered = [s for s in samples if s.status == 200]
    wait_ms = 1000 * settings.admission.max_wait_s
    found = {
        "changed": changed,
        "proxy": "HAProxy" if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" else "Serve's",
        "capacity_per_s": round(capacity, 2),
        **rows,
        "goodput_of_capacity": round(done_per_s(samples) / capacity, 3),
        "p99_of_bound": round(
            rows["overload"]["p99_ms"] / (wait_ms + 2 * rows["at_80_percent"]["p99_ms"]), 2
        ),
        "refusals_with_retry_after": sum(s.retry_after is not None for s in refused),
        "refusal_in_gateway_mean_ms": refusal_ms,
        "refusal_p99_ms": round(p99([s.seconds * 1000 for s in refused]), 1),
        "empty_deployment_p99_ms": round(p99([s.seconds * 1000 for s in nothing]), 1),
    }
    lines = {
        name: sorted((s.due, s.seconds * 1000) for s in part)
        for name, part in (("answered", answered), ("refused", refused))
    }
    return found, chart("Ten times the load", "seconds", "latency, ms", lines)


def p99(values: list[float]) -> float:
    """Return the 99th percentile."""
    return float(np.percentile(values, 99)) if values else 0.0


def refusals_ms(url: str) -> float:
    """Return the mean time of refusals inside the gateway, by its own figures."""
    with open_here(f"{url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    sums = {
        kind: sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(f"rerank_request_duration_seconds_{kind}{{")
            and 'outcome="refused"' in line
        )
        for kind in ("sum", "count")
    }
    return round(1000 * sums["sum"] / sums["count"], 2) if sums["count"] else 0.0


def sizes(small: bool) -> tuple[dict[str, Any], str]:
    """Ask for 1,000 documents on 1 and 8 replicas, and for 5 documents while large ones run.

    Once with documents of 20 words, once with twice as many: what HTTP, Ray and eight processes on
    one machine add to a request does not grow with them.
    """
    counts, seconds = ((2,), 1.5) if small else ((1, 8), 8.0)
    large = {**BODY, "documents": BODY["documents"] * (1000 // DOCUMENTS)}
    longer = {**large, "documents": ["word " * WORDS + each for each in large["documents"]]}
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
            deploy(url, shipped(**fixed(count)).model_dump(), simulated(TOKENS_PER_S))
            alone = {
                name: sorted(
                    sample.seconds for sample in asyncio.run(keep_busy(path, [body], 1, seconds))
                )
                for name, body in (("large_ms", large), ("longer_ms", longer))
            }
            quiet = summarise(asyncio.run(send_at_rate(path, [few], 5.0, seconds)), seconds)
            samples = asyncio.run(beside(path))
            lines[f"5 documents, {count} replicas"] = sorted(
                (s.due, s.seconds * 1000) for s in samples
            )
            found[str(count)] = {
                **{name: round(1000 * took[len(took) // 2], 1) for name, took in alone.items()},
                "small_p50_ms": quiet.p50_ms,
                "small_beside_large_p50_ms": summarise(samples, seconds).p50_ms,
            }
            print(count, found[str(count)])
    first, last = found[str(counts[0])], found[str(counts[-1])]
    figures = {
        "changed": "min_replicas and max_replicas: the number in each row",
        "by_replicas": found,
        **{
            f"{name}_times_equal_share": round(
                last[f"{name}_ms"] / first[f"{name}_ms"] * counts[-1] / counts[0], 2
            )
            for name in ("large", "longer")
        },
    }
    return figures, chart("Small requests beside a large one", "s", "ms", lines)


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
        **measured_on(),
        "simulated_tokens_per_s": TOKENS_PER_S,
    }
    print(json.dumps({**about, **found}))


if __name__ == "__main__":
    main()
