"""Gives the untrained cross-encoder two heads that see a word of the question in the passage.

A small model trained for an hour hardly learns exact matching on long passages, which BM25 has for
nothing. So the two heads of the first layer that matter least are overwritten: their queries and
keys are one projection in which pieces are far apart whatever their position, so that a token
looks at its own copies; their values carry the segment. A token whose copies stand in the other
segment then differs along one spare direction, and training decides what to do with it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from transformers import BertForSequenceClassification

HEADS = 2
# Attention logit of a token with its own copy, and sizes relative to a token's norm.
_MATCH = 11.0
_SEGMENT = 0.5
_SIGNAL = 0.15
_POSITIONS = 400
_SAMPLES = 6

Array = NDArray[np.float64]


def add_match_heads(model: BertForSequenceClassification, seed: int) -> None:
    """Overwrite two heads of the first layer and the second token type, in place."""
    rng = np.random.default_rng(seed)
    _set_segments(model)
    rows, types = _sample(model, rng)
    centre = rows.mean((0, 1))
    within = _covariance((rows - rows.mean(1, keepdims=True)).reshape(-1, rows.shape[-1]))
    between = _covariance(rows.mean(1) - centre)
    ridge = 1e-4 * np.trace(within) / len(within) * np.eye(len(within))
    _, directions = eigh(between, within + ridge)
    directions = directions[:, ::-1]
    flat, kinds = rows.reshape(-1, rows.shape[-1]), types.reshape(-1)
    gap = flat[kinds == 1].mean(0) - flat[kinds == 0].mean(0)
    spread = _covariance(flat - np.outer(kinds, gap) - flat[kinds == 0].mean(0))
    reader = np.linalg.solve(spread + ridge, gap)
    reader *= 2 / (reader @ gap)
    middle = reader @ (flat[kinds == 1].mean(0) + flat[kinds == 0].mean(0)) / 2
    spare = np.linalg.eigh(_covariance(flat - centre))[1]
    size = np.linalg.norm(flat, axis=1).mean()
    for turn, head in enumerate(_weakest_heads(model)):
        width = model.config.hidden_size // model.config.num_attention_heads
        part = directions[:, turn::HEADS][:, :width]
        part = part / np.sqrt(((rows.mean(1) - centre) @ part).var(0))
        part *= np.sqrt(_MATCH / np.sqrt(width))
        signal = spare[:, 1 + turn] * _SIGNAL * size
        _write_head(model, head, part, -centre @ part, (reader, -middle), signal)


def _covariance(rows: Array) -> Array:
    return rows.T @ rows / len(rows)


def _set_segments(model: BertForSequenceClassification) -> None:
    """Move the second token type along the direction that words and positions use least."""
    embeddings = model.bert.embeddings
    words = embeddings.word_embeddings.weight.detach().double().numpy()
    places = embeddings.position_embeddings.weight.detach().double().numpy()[:_POSITIONS]
    unused = np.linalg.eigh(
        _covariance(words - words.mean(0)) + _covariance(places - places.mean(0))
    )[1][:, 0]
    size = np.linalg.norm(words + places.mean(0), axis=1).mean()
    with torch.no_grad():
        types = embeddings.token_type_embeddings.weight
        types[1] = types[0] + torch.from_numpy(unused * size * _SEGMENT).float()


def _sample(
    model: BertForSequenceClassification, rng: np.random.Generator
) -> tuple[Array, NDArray[np.int64]]:
    """Input of the first layer for each piece at a few places, with the token types used."""
    pieces = model.config.vocab_size
    places = torch.from_numpy(rng.integers(0, _POSITIONS, (pieces, _SAMPLES)))
    types = rng.integers(0, 2, (pieces, _SAMPLES))
    ids = torch.arange(pieces)[:, None].expand(-1, _SAMPLES)
    with torch.no_grad():
        rows = model.bert.embeddings(
            input_ids=ids, position_ids=places, token_type_ids=torch.from_numpy(types)
        )
    return rows.double().numpy(), types


def _weakest_heads(model: BertForSequenceClassification) -> list[int]:
    layer = model.bert.encoder.layer[0].attention
    count = model.config.num_attention_heads
    value = layer.self.value.weight.detach().chunk(count, 0)
    out = layer.output.dense.weight.detach().chunk(count, 1)
    sizes = [float((o @ v).norm()) for o, v in zip(out, value, strict=True)]
    return sorted(range(count), key=lambda i: sizes[i])[:HEADS]


def _write_head(
    model: BertForSequenceClassification,
    head: int,
    projection: Array,
    shift: Array,
    segment: tuple[Array, float],
    signal: Array,
) -> None:
    layer = model.bert.encoder.layer[0].attention
    width = projection.shape[1]
    mine = slice(head * width, (head + 1) * width)
    with torch.no_grad():
        for side in (layer.self.query, layer.self.key):
            side.weight[mine] = torch.from_numpy(projection.T).float()
            side.bias[mine] = torch.from_numpy(shift).float()
        layer.self.value.weight[mine] = 0
        layer.self.value.bias[mine] = 0
        layer.self.value.weight[mine.start] = torch.from_numpy(segment[0]).float()
        layer.self.value.bias[mine.start] = segment[1]
        layer.output.dense.weight[:, mine] = 0
        layer.output.dense.weight[:, mine.start] = torch.from_numpy(signal).float()
