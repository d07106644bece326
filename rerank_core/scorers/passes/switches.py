"""Settings that only some devices and ways to score can honour: refused elsewhere, with the fix.

What they switch on is compared before it serves. It does not know how any of it computes.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rerank_core.catalog.resolve import Resolved
from rerank_core.config import ScorerConfig
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.body import PackedForward
from rerank_core.scorers.encoder import TokenizedPair
from rerank_core.scorers.passes.agreement import disagreement
from rerank_core.scorers.passes.graphs import Graphs, Recorder

logger = logging.getLogger(__name__)


class _Switch(NamedTuple):
    """A setting that only packed scoring has: its spelling, what to do without, and the least
    compute capability of the CUDA devices that it is for (None: it is not for them).
    """

    spelling: str
    fix: str
    capability: tuple[int, int] | None


_DTYPES = {
    "int8": _Switch("dtype int8", "use dtype float32", None),
    "tf32": _Switch("dtype tf32", "use dtype float32", (8, 0)),
    "float8": _Switch("dtype float8", "use dtype bfloat16", (8, 9)),
}
_GRAPHS = _Switch("`graphs`", "leave `graphs` out", (8, 0))
_COMPILE = _Switch("`compile`", "leave `compile` out", (8, 0))


def _switches(config: ScorerConfig) -> list[_Switch]:
    found = [_DTYPES.get(config.dtype), config.graphs and _GRAPHS, config.compile and _COMPILE]
    return [switch for switch in found if switch]


def without_packing(config: ScorerConfig) -> str | None:
    """Return what to change where a model cannot be scored packed and must be; None: nothing."""
    fixes = [switch.fix for switch in _switches(config)]
    fixes += ["use backend auto"] if config.backend == "packed" else []
    return fixes[0] if fixes else None


def refuse_settings(resolved: Resolved, device: torch.device) -> None:
    """Raise ModelUnavailable for a setting that this device or this model's scoring has not."""
    config = resolved.config
    for spelling, fix, capability in _switches(config):
        if capability is not None and not _is_cuda(device, capability):
            least = ".".join(map(str, capability))
            raise ModelUnavailable(
                f"{spelling} is for CUDA devices of compute capability {least} and later, and"
                f" {device} is none; {fix}"
            )
        if config.backend == "cross_encoder":
            raise ModelUnavailable(f"{spelling} is for packed scoring; use backend auto, or {fix}")
        if resolved.engine == "sentence_transformers":
            raise ModelUnavailable(
                f"model {config.model!r} leaves the forward pass to sentence-transformers, which"
                f" has no {spelling} of ours; {fix}"
            )
    if config.graphs and resolved.causal:
        raise ModelUnavailable(
            f"`graphs` is for classifiers: model {config.model!r} is a language model, whose pairs"
            f" share their prompts, in passes of any shape; {_GRAPHS.fix}"
        )


def switch_on(
    config: ScorerConfig, forward: PackedForward, probes: list[TokenizedPair], expected: Tensor
) -> None:
    """Compile the body and replay small passes, as configured, where scores stay as expected.

    What does not agree stays off, said in the log. Raises ModelUnavailable without the kernel.
    """
    for switch, name in ((_COMPILE, "compiled"), (_GRAPHS, "graphs")):
        if switch not in _switches(config):
            continue
        if not forward.kernel:
            raise ModelUnavailable(
                f"{switch.spelling} needs torch's kernel for packed rows, without which model"
                f" {config.model!r} is scored in {config.dtype}: use dtype bfloat16 or float16, or"
                f" {switch.fix}"
            )
        way: Any = Graphs(forward.compute_filled, forward.device, Recorder(forward.device))
        if switch is _COMPILE:
            way = torch.compile(forward.module, dynamic=True)
        setattr(forward, name, way)
        reason = disagreement(forward, probes, expected, config.dtype)
        if reason is not None:
            setattr(forward, name, None)
            logger.warning("%s is scored without %s: %s", config.model, switch.spelling, reason)


def _is_cuda(device: torch.device, capability: tuple[int, int]) -> bool:
    # ROCm, which torch calls cuda, too, counts its capabilities in another way.
    here = device.type == "cuda" and not torch.version.hip
    return here and torch.cuda.get_device_capability(device) >= capability
