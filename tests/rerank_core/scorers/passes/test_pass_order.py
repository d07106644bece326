"""The order of a scorer's passes, on a device that is a script with a clock: one stream, one host.

Nothing is fetched before the next pass is launched, and fetching a pass waits for that pass alone.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.scorers.runner import BatchRunner


@dataclass
class Device:
    """Work is done in the order in which it was enqueued; the host's calls take no time there."""

    pack_ms: float
    pass_ms: float
    copy_ms: float = 0.0
    host_ms: float = 0.0
    free_at_ms: float = 0.0
    calls: list[str] = field(default_factory=list)
    ends_ms: list[float] = field(default_factory=list)
    asked_ms: list[float] = field(default_factory=list)
    collected_ms: list[float] = field(default_factory=list)

    def enqueue(self, cost_ms: float) -> float:
        """Return when the work that is enqueued now will be done."""
        self.free_at_ms = max(self.free_at_ms, self.host_ms) + cost_ms
        return self.free_at_ms

    def launch(self, batch):
        """Pack on the host, compute on the device."""
        self.host_ms += self.pack_ms
        self.ends_ms.append(self.enqueue(self.pass_ms))
        number = sum(call.startswith("launch") for call in self.calls)
        self.calls.append(f"launch {number}")
        return torch.tensor([float(len(item)) for item in batch])

    def download(self, logits):
        """Enqueue the copy out and an event behind it."""
        number = sum(call.startswith("launch") for call in self.calls) - 1
        return Arriving(self, number, logits, self.enqueue(self.copy_ms))


@dataclass
class Arriving:
    device: Device
    number: int
    logits: torch.Tensor
    event_ms: float

    def wait(self):
        """Let the host sleep until the event."""
        self.device.calls.append(f"fetch {self.number}")
        self.device.asked_ms.append(self.device.host_ms)
        self.device.host_ms = max(self.device.host_ms, self.event_ms)
        self.device.collected_ms.append(self.device.host_ms)
        return self.logits.numpy()


class Untouched:
    def __enter__(self):
        return None

    def __exit__(self, *error):
        return None


def run(device: Device, passes: int):
    runner = BatchRunner(device.launch, Untouched, 10, padded=False, download=device.download)
    return runner.run(["x" * 10] * passes)


def test_the_next_pass_is_launched_before_this_one_is_fetched():
    device = Device(pack_ms=1, pass_ms=10)
    raw, errors = run(device, 3)
    assert (raw.tolist(), errors) == ([10.0, 10.0, 10.0], {})
    assert device.calls == ["launch 0", "launch 1", "fetch 0", "launch 2", "fetch 1", "fetch 2"]


@settings(deadline=None)
@given(
    passes=st.integers(2, 12),
    pack_ms=st.floats(0, 20),
    pass_ms=st.floats(0.1, 50),
    copy_ms=st.floats(0, 2),
)
def test_collecting_a_pass_never_waits_for_the_one_behind_it(passes, pack_ms, pass_ms, copy_ms):
    device = Device(pack_ms, pass_ms, copy_ms)
    run(device, passes)
    expected = [
        max(asked, end + copy_ms)
        for asked, end in zip(device.asked_ms, device.ends_ms, strict=True)
    ]
    np.testing.assert_allclose(device.collected_ms, expected)


@settings(deadline=None)
@given(passes=st.integers(3, 12), pass_ms=st.floats(2, 50))
def test_a_device_that_is_slower_than_packing_never_idles(passes, pass_ms):
    device = Device(pack_ms=1, pass_ms=pass_ms)
    run(device, passes)
    assert device.free_at_ms <= 1 + passes * pass_ms + 1e-6
