"""What is compiled for int8 computes what it says, and the same bits on every CPU."""

import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rerank_core.scorers.int8 import heads, kernels
from rerank_core.scorers.int8.instructions import SHAPE
from rerank_core.scorers.int8.threads import share_out
from rerank_core.scorers.int8.weights import QuantizedEmbedding, QuantizedLinear, rounded

pytestmark = pytest.mark.seconds

ROOT = Path(__file__).parents[4]
PRODUCT = """
import sys
import numpy as np
from rerank_core.scorers.int8 import instructions

instructions.SHAPE = instructions.Shape(sys.argv[1], False, *map(int, sys.argv[2:]))
import torch
from rerank_core.scorers.int8.weights import QuantizedLinear

torch.manual_seed(0)
linear, rows = torch.nn.Linear(301, 90), torch.randn(20, 301)
print(QuantizedLinear(linear)(rows).numpy().tobytes().hex())
"""


def in_groups(rows: np.ndarray) -> np.ndarray:
    """Round each group of a row to 256 steps between its ends and 0, as it is documented."""
    out = np.empty_like(rows)
    for begin in range(0, rows.shape[1], kernels.GROUP):
        part = rows[:, begin : begin + kernels.GROUP].astype(np.float64)
        low, high = part.min(1, initial=0)[:, None], part.max(1, initial=0)[:, None]
        step = (high - low) / 255
        zero = np.rint(-low / step)
        out[:, begin : begin + kernels.GROUP] = (np.rint(part / step + zero) - zero) * step
    return out


@pytest.mark.parametrize(("inputs", "outputs", "rows"), [(384, 128, 60), (301, 90, 7), (5, 3, 1)])
def test_a_product_is_that_of_the_rounded_numbers(inputs, outputs, rows):
    torch.manual_seed(0)
    linear, states = nn.Linear(inputs, outputs), torch.randn(rows, inputs) * 3
    parts = []
    for weight in linear.weight.split(kernels.GROUP, dim=1):
        whole, scale = rounded(weight)
        parts.append(whole.double() * scale)
    wanted = in_groups(states.numpy()) @ torch.cat(parts, 1).numpy().T
    found = QuantizedLinear(linear)(states).numpy()
    # A number in the middle between two steps may go either way.
    np.testing.assert_allclose(found, wanted + linear.bias.detach().numpy(), atol=0.02)
    assert np.abs(found - linear(states).detach().numpy()).max() < 0.2


def test_rows_have_the_same_bits_whoever_is_beside_them():
    torch.manual_seed(0)
    layer, states = QuantizedLinear(nn.Linear(200, 70)), torch.randn(131, 200)
    together = layer(states)
    for rows in (slice(0, 1), slice(5, 12), slice(47, 130)):
        assert torch.equal(layer(states[rows]), together[rows])


@pytest.mark.parametrize("shape", [("avx512", 16, 6, 2), ("avx2", 8, 3, 2)])
def test_cpus_without_its_instructions_give_the_same_bits(shape, tmp_path):
    command = [sys.executable, "-c", PRODUCT, *map(str, shape)]
    # Compiled code is kept by the CPU's name, which is the same here.
    told = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, check=True)
    torch.manual_seed(0)
    linear, rows = nn.Linear(301, 90), torch.randn(20, 301)
    assert bytes.fromhex(done.stdout) == QuantizedLinear(linear)(rows).numpy().tobytes()


@pytest.mark.parametrize(("count", "size"), [(12, 32), (3, 24), (1, 80)])
def test_attention_is_torchs(count, size):
    torch.manual_seed(0)
    lengths, width = [1, 6, 65, 33, 200], count * size
    bounds = np.cumsum([0, *lengths])
    rows = torch.randn(bounds[-1], 3 * width)
    out = np.empty((bounds[-1], width), np.float32)
    shape = (count, size, (0, width, 2 * width))
    # Heads of one pair may be shared out.
    for units in ((0, 1), (1, 3 * count - 1), (3 * count - 1, 5 * count)):
        packed = rows.numpy(), bounds
        heads.attend(packed, packed, shape, units, out)
    for begin, end in pairwise(bounds):
        parts = rows[begin:end].view(-1, 3, count, size).permute(1, 2, 0, 3)
        wanted = nn.functional.scaled_dot_product_attention(*parts).transpose(0, 1)
        np.testing.assert_allclose(out[begin:end], wanted.reshape(-1, width), atol=3e-6)


def test_gelu_and_exp_are_torchs():
    places = torch.linspace(-12, 12, 2001)
    found = [kernels._gelu(place) for place in places.numpy()]
    np.testing.assert_allclose(found, nn.functional.gelu(places), atol=2e-6)
    found = [heads._exp(place) for place in -places.abs().numpy()]
    np.testing.assert_allclose(found, torch.exp(-places.abs()), rtol=1e-6)


def test_an_embedding_keeps_each_row_s_own_scale():
    table = nn.Embedding(50, 40)
    with torch.no_grad():
        table.weight.mul_(torch.logspace(-3, 3, 50)[:, None])
        table.weight[7] = 0
    ids = torch.arange(50)
    error = (QuantizedEmbedding(table)(ids) - table(ids)).abs().amax(1)
    assert (error <= table.weight.abs().amax(1) / 127).all()


def test_work_is_shared_out_whole_and_its_errors_come_back(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    found, lock = [], threading.Lock()

    def work(low: int, high: int) -> None:
        with lock:
            found.append((low, high))
        if low > 60:
            raise MemoryError

    share_out(90, work, least=40)
    assert sorted(found) == [(0, 45), (45, 90)]
    with pytest.raises(MemoryError):
        share_out(100, work)


def test_this_cpu_is_known():
    flags = set()
    if Path("/proc/cpuinfo").is_file():
        text = Path("/proc/cpuinfo").read_text()
        flags = set(next((li for li in text.splitlines() if li.startswith("flags")), "").split())
    assert SHAPE.vnni == bool(flags & {"avx512_vnni", "avx_vnni"})
