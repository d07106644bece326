"""The last layer of a body whose head reads one token of each pair: nothing else of it is computed.

Keys and values are of all tokens, the rest of one row a segment. For layers that norm before they
compute; BERT's are elsewhere. It does not know heads.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

from torch import Tensor, nn

from rerank_core.scorers.attention import How, Segments, attend
from rerank_core.scorers.passes.bert_layers import own_layers

# Whose layers are spelled as Qwen2's are. Whether they also compute what those do is seen at load.
_CAUSAL = ("gemma", "qwen2", "qwen3")


def narrow_last_layer(body: Any) -> bool:
    """Let the last hidden state be (1, segments, size) where the layer is known; return whether.

    It is of each segment's last token in a causal body, of its first in another.
    """
    layers = own_layers(body, "layers")
    known = bool(layers) and body.config.model_type in (*_CAUSAL, "modernbert")
    # torch's kernel counts a window from the last key, not from the first.
    if not known or getattr(getattr(layers[-1], "attn", None), "sliding_window", None) is not None:
        return False
    layers[-1] = _OneRowLayer(layers[-1])
    return True


class _OneRowLayer(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.attention_type = getattr(layer, "attention_type", None)
        self._last = hasattr(layer, "self_attn")
        attention = layer.self_attn if self._last else layer.attn
        if self._last:
            self.norm, self.mlp_norm = layer.input_layernorm, layer.post_attention_layernorm
            self.mix = attention.o_proj
            self.query, self.key, self.value = attention.q_proj, attention.k_proj, attention.v_proj
        else:
            self.norm, self.mlp_norm, self.mix = layer.attn_norm, layer.mlp_norm, attention.Wo
            self.query, self.key, self.value = (_third(attention.Wqkv, n) for n in range(3))
        self.query_norm = getattr(attention, "q_norm", nn.Identity())
        self.key_norm = getattr(attention, "k_norm", nn.Identity())
        self.mlp = layer.mlp
        window = getattr(attention, "sliding_window", None)
        # A segment's last token sees all of it without a mask.
        self._how = How(False, attention.head_dim**-0.5, window, one=True)
        self._shape = (-1, attention.head_dim)
        self._rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: Any, segments: Segments, **_: Any
    ) -> Tensor:
        """Take (1, tokens, size) as transformers' layers do; return (1, segments, size)."""
        places = segments.bounds[1:] - 1 if self._last else segments.bounds[:-1]
        normed = self.norm(hidden_states)
        query = self.query_norm(self._heads(self.query(normed.index_select(1, places))))
        key = self.key_norm(self._heads(self.key(normed)))
        cos, sin = position_embeddings
        asked = cos.index_select(1, places), sin.index_select(1, places)
        query, key = self._rotated(query, *asked), self._rotated(key, cos, sin)
        seen = attend(query[0], key[0], self._heads(self.value(normed))[0], segments, self._how)
        rows = hidden_states.index_select(1, places) + self.mix(seen.flatten(1)[None])
        found: Tensor = rows + self.mlp(self.mlp_norm(rows))
        return found

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:-1], *self._shape)

    def _rotated(self, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # Queries and keys are rotated together; here these are of other tokens.
        rotated: Tensor = self._rotate(heads, heads[:, :, :0], cos, sin, unsqueeze_dim=2)[0]
        return rotated


def _third(joined: nn.Linear, which: int) -> nn.Linear:
    """Return the layer for a third of the outputs, on the same weights."""
    part = copy.deepcopy(joined)
    part.out_features //= 3
    for own, whole in zip(part.parameters(), joined.parameters(), strict=True):
        own.data = whole.data.chunk(3)[which]
    return part
