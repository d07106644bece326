"""The layers of BERT and its kin in int8: three calls a layer, nothing between them in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from rerank_core.scorers.attention import Segments
from rerank_core.scorers.int8 import heads, kernels
from rerank_core.scorers.int8.instructions import SHAPE
from rerank_core.scorers.int8.threads import alone, share_out
from rerank_core.scorers.int8.weights import pack
from rerank_core.scorers.passes.bert_layers import PackedLayers

# Neighbouring pairs go through all layers together as long as what they need stays in a core's
# cache: on short passages attention took 0.63 of its time in whole batches.
_GROUP_TOKENS = 128

Share = Callable[..., None]


class QuantizedLayers(nn.Module):
    """Stands where PackedLayers stood, whose weights it rounds."""

    def __init__(self, packed: PackedLayers) -> None:
        super().__init__()
        self._layers = [_Layer(layer) for layer in packed.layers]

    def forward(self, hidden_states: Tensor, *_: Any, segments: Segments, **__: Any) -> Any:
        """Take (1, tokens, size) as transformers' encoders do; the states are overwritten."""
        rows = hidden_states[0].contiguous().numpy()
        bounds = segments.bounds.numpy().astype(np.int64)
        out = np.empty((len(bounds) - 1, rows.shape[1]), np.float32)
        groups = _groups(bounds)
        if len(groups) < torch.get_num_threads():
            self._run(rows, bounds, out, share_out)
        else:

            def part(low: int, high: int) -> None:
                for first, last in groups[low:high]:
                    own = bounds[first : last + 1]
                    self._run(rows[own[0] : own[-1]], own - own[0], out[first:last], alone)

            share_out(len(groups), part, least=1)
        found = torch.from_numpy(out)[None]
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=found)

    def _run(self, rows: Any, bounds: Any, out: Any, share: Share) -> None:
        """Change `rows` layer by layer, and write the last layer's first tokens to `out`."""
        for layer in self._layers:
            asked = known = layer.project(rows, layer.projections, share), bounds
            if layer.query is not None:
                out[:] = rows[bounds[:-1]]
                rows = out
                asked = layer.project(rows, layer.query, share), np.arange(len(bounds))
            layer.finish(layer.attend(asked, known, share), rows, share)


class _Layer:
    """A layer's weights, and the three things that are done with them."""

    def __init__(self, layer: Any) -> None:
        self.projections = pack(layer.projections)
        self.query = pack(layer.query) if hasattr(layer, "query") else None
        self._heads, self._size = layer.heads, layer.mix.in_features
        norms = _norm(layer.mix_norm), _norm(layer.output_norm)
        widen, narrow = pack(layer.intermediate.dense), pack(layer.output)
        self._rest = (pack(layer.mix), norms[0], widen, narrow, norms[1])

    def project(self, rows: Any, weights: Any, share: Share) -> Any:
        """Return queries, keys and values of rows, side by side, or those that `weights` make."""
        out = np.empty((len(rows), len(weights[0]) * SHAPE.width), np.float32)
        share(len(rows), lambda low, high: kernels.project(rows, low, high, weights, out))
        return out

    def attend(self, asked: Any, known: Any, share: Share) -> Any:
        """Return what each row of `asked` sees of its pair's rows of `known`; both with bounds."""
        out = np.empty((len(asked[0]), self._size), np.float32)
        # Queries stand before keys and values, or apart.
        before = self._size if asked is known else 0
        places = (0, before, before + self._size)
        shape = (self._heads, self._size // self._heads, places)
        units = (len(known[1]) - 1) * self._heads
        share(units, lambda *part: heads.attend(asked, known, shape, part, out), least=1)
        return out

    def finish(self, seen: Any, rows: Any, share: Share) -> None:
        """Do in `rows` what follows attention."""
        share(len(rows), lambda low, high: kernels.finish(seen, rows, low, high, self._rest))


def _norm(norm: Any) -> tuple[Any, Any, Any]:
    gain, shift = (part.detach().float().numpy().copy() for part in (norm.weight, norm.bias))
    return gain, shift, np.float32(norm.eps)


def _groups(bounds: Any) -> list[tuple[int, int]]:
    """Return groups of neighbouring pairs: (first, behind the last)."""
    groups, first = [], 0
    for pair in range(1, len(bounds) - 1):
        if bounds[pair + 1] - bounds[first] > _GROUP_TOKENS:
            groups.append((first, pair))
            first = pair
    return [*groups, (first, len(bounds) - 1)]
