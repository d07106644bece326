"""The layers of BERT and its kin on packed rows: the same sums with fewer calls.

Queries, keys and values are one product, rows stay two-dimensional, and the last layer computes
only what a head on first tokens reads. It does not know heads or other architectures.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from rerank_core.scorers.attention import How, Segments, attend

# Whose layers are spelled as BERT's are. Whether they also compute what BERT's do is seen at load.
_KIN = ("bert", "camembert", "roberta", "xlm-roberta")


def flatten_layers(body: Any) -> bool:
    """Replace the layers of `body` where they are BERT's; return whether they were.

    Its last hidden state is then (1, pairs, size): the first token of each pair.
    """
    if body.config.model_type not in _KIN or not (layers := own_layers(body, "encoder.layer")):
        return False
    body.encoder = PackedLayers(layers)
    return True


def own_layers(body: Any, place: str) -> Any:
    """Return a body's layers; nothing where they are a model's own code, whose parts are others."""
    layers = dict(body.named_modules()).get(place, ())
    known = [type(layer).__module__.startswith("transformers.models.") for layer in layers]
    return layers if all(known) else ()


def fold_biases(body: Any) -> None:
    """Let every product add onto the rows that it is added to anyway, without a call for the sum.

    Its bias goes into the norm that made those rows, and what else reads them has the bias taken
    out of its own: the same function, rounded elsewhere. Call it while weights are float32.
    """
    norm = body.embeddings.LayerNorm
    for layer in body.encoder.layers:
        readers = [layer.projections, *([layer.query] if hasattr(layer, "query") else [])]
        layer.mix = _Adding(layer.mix, norm, readers)
        layer.output = _Adding(layer.output, layer.mix_norm, [layer.intermediate.dense])
        norm, layer.folded = layer.output_norm, True


class _Adding(nn.Module):
    """A product that is added onto rows which have its bias already."""

    def __init__(self, product: Any, norm: Any, readers: list[Any]) -> None:
        super().__init__()
        bias = product.bias.detach()
        self.weight = nn.Parameter(product.weight.detach().t(), requires_grad=False)
        norm.bias = nn.Parameter(norm.bias.detach() + bias, requires_grad=False)
        for reader in readers:
            corrected = reader.bias.detach() - reader.weight.detach() @ bias
            reader.bias = nn.Parameter(corrected, requires_grad=False)

    def forward(self, inputs: Tensor, rows: Tensor) -> Tensor:
        # In place: on CUDA a product that adds onto another tensor copies that one first.
        return rows.addmm_(inputs, self.weight)


class PackedLayers(nn.Module):
    """Stands where the body's encoder was; its last layer has a `query` apart."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        *others, last = layers
        self.layers: Any = nn.ModuleList([*map(_Layer, others), _FirstTokensLayer(last)])

    def forward(self, hidden_states: Tensor, *_: Any, segments: Segments, **__: Any) -> Any:
        """Take (1, tokens, size) as transformers' encoders do."""
        rows = hidden_states[0]
        for layer in self.layers:
            rows = layer(rows, segments)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=rows[None])


class _Layer(nn.Module):
    folded = False

    def __init__(self, layer: Any) -> None:
        super().__init__()
        own, out = layer.attention.self, layer.attention.output
        self.heads = own.num_attention_heads
        self.projections = _joined(own.query, own.key, own.value)
        self.mix, self.mix_norm = out.dense, out.LayerNorm
        # Whole, so that on CPUs its activation is found and fused.
        self.intermediate = layer.intermediate
        self.output, self.output_norm = layer.output.dense, layer.output.LayerNorm

    def forward(self, rows: Tensor, segments: Segments) -> Tensor:
        parts = self.projections(rows).view(len(rows), 3, self.heads, -1)
        query, key, value = parts.unbind(1)
        return self._rest(attend(query, key, value, segments, How()), rows)

    def _rest(self, seen: Tensor, rows: Tensor) -> Tensor:
        mixed = self.mix_norm(self._add(self.mix, seen.reshape(len(rows), -1), rows))
        result: Tensor = self.output_norm(self._add(self.output, self.intermediate(mixed), mixed))
        return result

    def _add(self, product: Any, inputs: Tensor, rows: Tensor) -> Tensor:
        added: Tensor = product(inputs, rows) if self.folded else product(inputs) + rows
        return added


class _FirstTokensLayer(_Layer):
    """Keys and values of all tokens; everything else of each pair's first token alone."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        own = layer.attention.self
        self.query = own.query
        self.projections = _joined(own.key, own.value)

    def forward(self, rows: Tensor, segments: Segments) -> Tensor:
        first = rows.index_select(0, segments.bounds[:-1])
        key, value = self.projections(rows).view(len(rows), 2, self.heads, -1).unbind(1)
        query = self.query(first).view(len(first), self.heads, -1)
        return self._rest(attend(query, key, value, segments, How(one=True)), first)


def _joined(*linears: nn.Linear) -> nn.Linear:
    """Return one layer that gives the outputs of several, one behind another."""
    joined = copy.deepcopy(linears[0])
    joined.out_features *= len(linears)
    for own, *parts in zip(*(one.parameters() for one in (joined, *linears)), strict=True):
        own.data = torch.cat([part.data for part in parts])
    return joined
