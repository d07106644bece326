"""The order of a scorer's passes, on a device that is a script with a clock: one stream, one host.

Nothing is fetched before the next pass is launched, fetching a pass waits for that pass alone, and
the tokenising thread, which has a clock of its own, is chunks ahead. Nobody sleeps.
"""

import contextlib
from dataclasses import dataclass, field
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core import QueryDocumentPair
from rerank_core.scorers import pipeline
from rerank_core.scorers.encoder import PreparedPair, TokenizedPair
from rerank_core.scorers.runner import BatchRunner

# Of a pair, and so of a pass.
TOKENS = 10


class Pass(NamedTuple):
    """Milliseconds: the host packs and launches, the device computes and copies, the host reads."""

    launch: float
    compute: float
    copy: float
    collect: float


@dataclass
class Device:
    """Work is done in the order in which it was enqueued; the host's calls take no time there."""

    passes: list[Pass]
    host_ms: float = 0.0
    free_at_ms: float = 0.0
    launched: int = 0
    calls: list[str] = field(default_factory=list)
    ends_ms: list[float] = field(default_factory=list)
    asked_ms: list[float] = field(default_factory=list)
    arrived_ms: list[float] = field(default_factory=list)

    def enqueue(self, cost_ms: float) -> float:
        """Return when the work that is enqueued now will be done."""
        self.free_at_ms = max(self.free_at_ms, self.host_ms) + cost_ms
        return self.free_at_ms

    def launch(self, batch):
        """Pack on the host, compute on the device."""
        self.host_ms += self.passes[self.launched].launch
        self.ends_ms.append(self.enqueue(self.passes[self.launched].compute))
        self.calls.append(f"launch {self.launched}")
        self.launched += 1
        return torch.tensor([float(item.tail[0]) for item in batch])

    def download(self, logits):
        """Enqueue the copy out and an event behind it."""
        number = self.launched - 1
        return Arriving(self, number, logits, self.enqueue(self.passes[number].copy))


@dataclass
class Arriving:
    device: Device
    number: int
    logits: torch.Tensor
    event_ms: float

    def wait(self):
        """Let the host sleep until the event, and read."""
        device = self.device
        device.calls.append(f"fetch {self.number}")
        device.asked_ms.append(device.host_ms)
        device.arrived_ms.append(max(device.host_ms, self.event_ms))
        device.host_ms = device.arrived_ms[-1] + device.passes[self.number].collect
        return self.logits.numpy()


@dataclass
class Tokeniser:
    """In the tokenising thread's place: does what it is handed, one after the other."""

    device: Device
    chunks_ms: list[float]
    begun: int = 0
    free_at_ms: float = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def submit(self, encode, pairs):
        """Begin now or when it is free; the host, who hands over, goes on."""
        self.free_at_ms = max(self.free_at_ms, self.device.host_ms) + self.chunks_ms[self.begun]
        self.device.calls.append(f"prepare {self.begun}")
        self.begun += 1
        return Prepared(self.device, encode(pairs), self.free_at_ms)


@dataclass
class Prepared:
    device: Device
    encoded: list[PreparedPair]
    ready_ms: float

    def result(self):
        """Let the host sleep until it is there."""
        self.device.host_ms = max(self.device.host_ms, self.ready_ms)
        return self.encoded


def item(number: int) -> TokenizedPair:
    """A pair that fills a pass, whose score is its number."""
    return TokenizedPair(np.zeros(TOKENS - 1, np.int64), np.array([number]), False)


def runner_of(device: Device) -> BatchRunner:
    return BatchRunner(
        device.launch, contextlib.nullcontext, TOKENS, padded=False, download=device.download
    )


def run(*passes: Pass) -> Device:
    device = Device(list(passes))
    raw, errors = runner_of(device).run([item(n) for n in range(len(passes))])
    assert (raw.tolist(), errors) == (list(range(len(passes))), {})
    return device


def interleaved(first: int, last: int) -> list[str]:
    """Name the host's calls for some passes: each but the first is launched before a fetch."""
    between = [f"{what} {n + late}" for n in range(first, last - 1)
               for what, late in (("launch", 1), ("fetch", 0))]  # fmt: skip
    return [f"launch {first}", *between, f"fetch {last - 1}"]


def test_the_next_pass_is_launched_before_this_one_is_fetched():
    device = run(*[Pass(1, 10, 0, 0)] * 3)
    assert device.calls == ["launch 0", "launch 1", "fetch 0", "launch 2", "fetch 1", "fetch 2"]
    assert device.calls == interleaved(0, 3)


MS = st.floats(0.01, 50)
PASSES = st.builds(Pass, launch=MS, compute=MS, copy=st.floats(0, 2), collect=MS)


@settings(deadline=None)
@given(st.lists(PASSES, min_size=2, max_size=12))
def test_collecting_a_pass_never_waits_for_the_one_behind_it(passes):
    device = run(*passes)
    ends = [end + one.copy for end, one in zip(device.ends_ms, passes, strict=True)]
    np.testing.assert_allclose(device.arrived_ms, np.maximum(device.asked_ms, ends))


@settings(deadline=None)
@given(passes=st.integers(3, 12), pass_ms=st.floats(2, 50))
def test_a_device_that_is_slower_than_packing_never_idles(passes, pass_ms):
    device = run(*[Pass(1, pass_ms, 0, 0)] * passes)
    assert device.free_at_ms <= 1 + passes * pass_ms + 1e-6


def overlapped_ms(chunks: list[list[Pass]], prepare_ms: list[float]) -> float:
    """Return when all is read if thread, host and device do their own work one after the other and
    wait for nothing but what it needs: a chunk's tokens (two chunks are prepared ahead of the one
    that is scored), a pass's launch, and before a fetch the launch of the chunk's next pass.
    """
    thread = host = device = 0.0
    scored = [0.0, 0.0, 0.0]
    for passes, cost in zip(chunks, prepare_ms, strict=True):
        thread = max(thread, scored[-3]) + cost
        host = max(host, thread)
        ends = []
        for one, before in zip([*passes, None], [None, *passes], strict=True):
            if one:
                host += one.launch
                device = max(device, host) + one.compute + one.copy
                ends.append(device)
            if before:
                host = max(host, ends[-2 if one else -1]) + before.collect
        scored.append(host)
    return host


@settings(deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(5, 20))
def test_preparing_launching_computing_and_collecting_overlap(data, per_chunk, count):
    passes = data.draw(st.lists(PASSES, min_size=count, max_size=count))
    starts = range(0, count, per_chunk)
    prepare_ms = data.draw(st.lists(MS, min_size=len(starts), max_size=len(starts)))
    device = Device(passes)

    def encode(pairs):
        return [PreparedPair([item(int(pair.document))]) for pair in pairs]

    pairs = [QueryDocumentPair("", f"{number:010}") for number in range(count)]
    thread = Tokeniser(device, prepare_ms)
    with mock.patch.object(pipeline, "ThreadPoolExecutor", return_value=thread):
        scores = pipeline.score_pool(pairs, encode, runner_of(device).run, 10 * per_chunk)
    assert scores.raw.tolist() == list(range(count))

    calls = [f"prepare {chunk}" for chunk in (0, 1)]
    for chunk, start in enumerate(starts):
        calls += [f"prepare {chunk + 2}"] if chunk + 2 < len(starts) else []
        calls += interleaved(start, min(start + per_chunk, count))
    assert device.calls == calls
    chunks = [passes[start : start + per_chunk] for start in starts]
    expected = overlapped_ms(chunks, prepare_ms)
    np.testing.assert_allclose(device.host_ms, expected)
    assert expected < sum(map(sum, passes)) + sum(prepare_ms)
