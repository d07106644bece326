"""Our greedy batcher against `@serve.batch`, in the same kind of replica, at the same arrivals.

A pass sleeps for a fixed cost plus a cost for each request, as a small GPU pass does; nothing else
differs. Arrivals are open-loop (they do not wait for answers), so a queue that grows shows.

python benchmarks/bench_batcher.py --rates 20 50 100 --seconds 8
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.about import measured_on
from benchmarks.chart import chart
from benchmarks.local_serve import local_serve
from rerank_core import PairScores, QueryDocumentPair
from rerank_core.batcher import MicroBatcher

FIXED_S, EACH_S = 0.020, 0.004
MAX_BATCH = 32


def one_pass(count: int) -> None:
    """Take as long as a pass over `count` requests."""
    time.sleep(FIXED_S + EACH_S * count)


class Greedy:
    """Ours: one worker thread takes what waits whenever it is free."""

    def __init__(self) -> None:
        self._batcher = MicroBatcher(self._score, merge_tokens=MAX_BATCH, max_queued_tokens=10**9)

    def _score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        one_pass(len(pairs))
        n = len(pairs)
        return PairScores(np.zeros(n, np.float32), np.ones(n, np.int32), np.zeros(n, np.bool_))

    async def __call__(self, caller: str) -> int:
        """Answer with the number of requests in the pass, as far as this side knows: 1."""
        await self._batcher.submit([QueryDocumentPair("q", "d")], 1, caller=caller)
        return 1


class ServeBatch:
    """Serve's own decorator, with the pass in a thread, as everything that scores should be."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.01)
    async def _score(self, callers: list[str]) -> list[int]:
        async with self._one_at_a_time:
            await asyncio.to_thread(one_pass, len(callers))
        return [len(callers)] * len(callers)

    async def __call__(self, caller: str) -> int:
        """Answer with the number of requests in the pass."""
        return int(await self._score(caller))


async def drive(handle: Any, rate: float, seconds: float, seed: int) -> list[float]:
    """Send Poisson arrivals; return latencies in seconds, counted from the scheduled time."""
    rng = random.Random(seed)
    latencies: list[float] = []

    async def one(number: int, due: float) -> None:
        await handle.remote(str(number))
        latencies.append(time.perf_counter() - due)

    tasks, due, started = [], 0.0, time.perf_counter()
    while due < seconds:
        await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(len(tasks), started + due)))
        due += rng.expovariate(rate)
    await asyncio.gather(*tasks)
    return latencies


def measure(kind: type, rate: float, seconds: float) -> dict[str, Any]:
    """Run one of the two at one rate."""
    deployment = serve.deployment(
        name=kind.__name__,
        max_ongoing_requests=100_000,
        ray_actor_options={"num_cpus": 0.5},
    )(kind)
    handle = serve.run(deployment.bind(), name=kind.__name__, route_prefix=None)
    asyncio.run(drive(handle, 10, 1, 0))
    latencies = asyncio.run(drive(handle, rate, seconds, 1))
    serve.delete(kind.__name__)
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    print(f"{kind.__name__:>10} at {rate:>5g}/s: p50 {p50:8.1f} ms  p99 {p99:8.1f} ms")
    return {
        "batcher": kind.__name__,
        "rate": rate,
        "requests": len(latencies),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
    }


def main() -> None:
    """Measure both at each rate; print a line each and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[20, 50, 100])
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--svg", type=Path, help="draw a picture into this file")
    parser.add_argument("--small", action="store_true", help="a smoke run; figures mean nothing")
    options = parser.parse_args()
    rates, seconds = ([20.0], 1.0) if options.small else (options.rates, options.seconds)
    with local_serve():
        rows = [measure(kind, rate, seconds) for rate in rates for kind in (Greedy, ServeBatch)]
    if options.svg:
        lines = {
            kind: [(row["rate"], row["p50_ms"]) for row in rows if row["batcher"] == kind]
            for kind in ("Greedy", "ServeBatch")
        }
        picture = chart("Greedy batcher and @serve.batch", "requests/s", "p50, ms", lines)
        options.svg.write_text(picture, encoding="utf-8")
    about = {"benchmark": "batcher", **measured_on(), "pass_ms": [20, 4]}
    print(json.dumps({**about, "rows": rows}))


if __name__ == "__main__":
    main()
