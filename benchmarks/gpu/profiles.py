"""The part that says where time goes: kernels, copies and gaps on the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import scorers, shapes
from benchmarks.gpu.machine import seconds_of, wait
from benchmarks.gpu.session import Session
from benchmarks.pair_mixes import MIXES, Mix

Interval = tuple[float, float]


def profiles(session: Session) -> None:
    """Profile a small pass, a large one, and the device's idle share over a long pool."""
    folder = shapes.bge_reranker_v2_m3(session)
    texts = shapes.texts(folder, 512)
    documents = 2 if session.dry else 30
    tokens = 20 if session.dry else 100
    small = texts.request(documents, Mix("", tokens, 0.0, tokens), seed=1)
    large = texts.pool(MIXES["chunks"], session.sizes.pool_tokens // 8, seed=7)
    long = texts.pool(MIXES["chunks"], session.sizes.pool_tokens, seed=8)
    scorer = scorers.ours(session, folder)
    for name, pool in (("small", small), ("large", large), ("long", long)):
        pairs = scorers.pairs_of(pool)
        scorer.score(pairs)
        call = partial(scorer.score, pairs)
        # A profiler that watches the host slows it; over a long pool only the device is watched.
        watch_host = name != "long" or session.dry
        session.attempt("profile", name, partial(_profile, session, call, watch_host))


def _profile(session: Session, call: Callable[[], object], watch_host: bool) -> dict[str, Any]:
    on_gpu = session.device.startswith("cuda")
    watched = [ProfilerActivity.CUDA] if on_gpu else []
    if watch_host:
        watched.append(ProfilerActivity.CPU)
    plain_s = seconds_of(session.device, call)
    with profile(activities=watched) as found:
        profiled_s = seconds_of(session.device, call)
        wait(session.device)
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [
        event
        for event in found.events()
        if event.device_type == wanted and event.cpu_parent is None
    ]
    figures = summary(
        [(e.name, (e.time_range.start, e.time_range.end)) for e in events],
        profiled_s * 1e6,
    )
    return {"plain_ms": round(plain_s * 1000, 3)} | figures


def summary(events: Sequence[tuple[str, Interval]], wall_us: float) -> dict[str, Any]:
    """Return busy and idle time, the gaps, and the names that took longest, of device events."""
    busy = merged(interval for _, interval in events)
    busy_us = sum(end - start for start, end in busy)
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(busy)]
    times: Counter[str] = Counter()
    for name, (start, end) in events:
        times[name[:100]] += end - start
    return {
        "wall_ms": round(wall_us / 1000, 3),
        "busy_ms": round(busy_us / 1000, 3),
        "idle_share": round(1 - busy_us / wall_us, 4),
        "idle_between_events_ms": round(sum(gaps) / 1000, 3),
        "gaps_over_10_us": sum(gap > 10 for gap in gaps),
        "events": len(events),
        "copies": sum("memcpy" in name.lower() for name, _ in events),
        "longest": {name: round(us / 1000, 3) for name, us in times.most_common(10)},
    }


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Return intervals in order, those that touch joined."""
    out: list[Interval] = []
    for start, end in sorted(intervals):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out
