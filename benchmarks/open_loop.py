"""Open-loop load: requests leave when they are due, whether or not earlier ones were answered.

Latency counts from when a request was due, so that a client that falls behind cannot hide a queue.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when it was due and how long it took, in seconds; 0 is a broken connection."""

    due: float
    seconds: float
    status: int
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a load. Goodput counts answers with 200, within the latency asked for."""

    offered_per_s: float
    good_per_s: float
    refused: int
    failed: int
    p50_ms: float
    p99_ms: float


async def send_at_rate(
    url: str,
    bodies: Sequence[Any],
    rate: float,
    seconds: float,
    *,
    seed: int = 0,
    timeout_s: float = 60.0,
) -> list[Sample]:
    """Post bodies in turn as a Poisson stream of `rate` a second; return when all are answered."""
    rng = random.Random(seed)
    samples: list[Sample] = []
    limit = aiohttp.ClientTimeout(total=timeout_s)
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=limit, connector=connections) as session:

        async def one(body: Any, due: float) -> None:
            try:
                async with session.post(url, json=body) as answer:
                    await answer.read()
                    status, wait = answer.status, answer.headers.get("retry-after")
            except (aiohttp.ClientError, TimeoutError):
                status, wait = 0, None
            now = time.perf_counter()
            samples.append(Sample(due - started, now - due, status, wait))

        tasks, started, due = [], time.perf_counter(), 0.0
        for body in itertools.cycle(bodies):
            due += rng.expovariate(rate)
            if due > seconds:
                break
            await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(body, started + due)))
        await asyncio.gather(*tasks)
    return samples


def summarise(samples: Sequence[Sample], seconds: float, within_s: float = float("inf")) -> Summary:
    """Return rates over `seconds`, and latencies of the answers with 200."""
    good = [sample for sample in samples if sample.status == 200]
    p50, p99 = np.percentile([s.seconds for s in good], [50, 99]) * 1000 if good else (0, 0)
    refused = sum(sample.status == 429 for sample in samples)
    return Summary(
        offered_per_s=round(len(samples) / seconds, 1),
        good_per_s=round(sum(s.seconds <= within_s for s in good) / seconds, 1),
        refused=refused,
        failed=len(samples) - len(good) - refused,
        p50_ms=round(float(p50), 1),
        p99_ms=round(float(p99), 1),
    )


async def keep_busy(
    url: str, bodies: Sequence[Any], clients: int, seconds: float, *, timeout_s: float = 60.0
) -> list[Sample]:
    """Post bodies in turn from `clients` that each wait for their answer; the closed loop.

    For finding the most that a service can do; latencies mean little here.
    """
    samples: list[Sample] = []
    waiting = itertools.cycle(bodies)
    limit = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=limit) as session:
        started = time.perf_counter()

        async def client() -> None:
            while (due := time.perf_counter() - started) < seconds:
                async with session.post(url, json=next(waiting)) as answer:
                    await answer.read()
                took = time.perf_counter() - started - due
                samples.append(Sample(due, took, answer.status, answer.headers.get("retry-after")))
                if answer.status == 429:
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(client() for _ in range(clients)))
    return samples


async def answer_all(
    url: str, bodies: Sequence[Any], clients: int, *, timeout_s: float = 300.0
) -> float:
    """Post every body once from `clients` that each wait for their answer; return the seconds.

    What is refused is asked again when the answer says, as clients do: asking at once would keep
    the service busy with refusals. The same work for every service, however long it takes.
    """
    left = list(reversed(bodies))
    limit = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=limit) as session:

        async def client() -> None:
            while left:
                body = left.pop()
                async with session.post(url, json=body) as answer:
                    await answer.read()
                if answer.status == 429:
                    left.append(body)
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
                else:
                    answer.raise_for_status()

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return time.perf_counter() - started


def done_per_s(samples: Sequence[Sample], skip_s: float = 0.0) -> float:
    """Return answers with 200 a second, from the end of `skip_s` to the last answer."""
    ends = sorted(s.due + s.seconds for s in samples if s.status == 200)
    counted = [end for end in ends if end >= skip_s]
    return len(counted) / (counted[-1] - skip_s) if counted and counted[-1] > skip_s else 0.0
