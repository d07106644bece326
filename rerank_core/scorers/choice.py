"""Decides how a checkpoint is scored: packed with torch's kernel, packed in runs, or padded.

The first whose scores agree with the padded reference, where it serves, is taken. It does not know
how any of them computes.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GenericForSequenceClassification

from rerank_core.catalog.checks import probe_pairs
from rerank_core.catalog.resolve import Resolved
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers import heads
from rerank_core.scorers.attention import ATTENTION_NAME, plug_attention
from rerank_core.scorers.body import (
    NotPackable,
    PackedForward,
    PaddedForward,
    body_of,
    refuse_unpackable,
)
from rerank_core.scorers.device import DTYPES, optimize, resolve_device, set_precision
from rerank_core.scorers.encoder import PairEncoder, items_of
from rerank_core.scorers.frame import Frame, PromptFrame, read_frame
from rerank_core.scorers.int8.loading import quantize, refuse_int8
from rerank_core.scorers.loading import clear_errors, load_model, load_tokenizer
from rerank_core.scorers.passes.agreement import disagreement, take_best_way, take_first_head
from rerank_core.scorers.passes.bert_layers import flatten_layers, fold_biases
from rerank_core.scorers.passes.float8 import to_float8
from rerank_core.scorers.passes.last_layer import narrow_last_layer
from rerank_core.scorers.passes.rows import Rows
from rerank_core.scorers.passes.switches import refuse_settings, switch_on, without_packing
from rerank_core.scorers.scorer import TorchScorer
from rerank_core.scorers.texts import TextTokenizer

logger = logging.getLogger(__name__)

# What is rounded once the rest is known to be right: the precision before, and what rounds.
_ROUNDED = {"int8": ("float32", quantize), "float8": ("bfloat16", to_float8)}


def load_torch_scorer(resolved: Resolved, fingerprint: str) -> TorchScorer:
    """Load a checkpoint; ModelUnavailable says the fix where it cannot be served."""
    config = resolved.config
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.max_length is not None and config.max_length > resolved.max_length:
        logger.warning("max_length %d is more than %r can read; using %d", config.max_length,
                       config.model, resolved.max_length)  # fmt: skip
    device = resolve_device(config)
    refuse_settings(resolved, device)
    if config.dtype == "int8":
        refuse_int8(device)
    if resolved.engine == "sentence_transformers":
        # Imported here, because it takes seconds and nothing else needs it.
        from rerank_core.scorers.sentence_transformers import load_modules

        with clear_errors(resolved):
            encoder, forward = load_modules(resolved, device)
        return TorchScorer(resolved, fingerprint, encoder, forward)
    model = load_model(resolved)
    tokenizer = load_tokenizer(resolved, model.get_input_embeddings().num_embeddings)
    frame: Frame
    if resolved.family is None:
        frame = read_frame(tokenizer, TextTokenizer(tokenizer))
    else:
        frame = PromptFrame(resolved.family, resolved.instruction, tokenizer)
    pairs = PairEncoder(frame, resolved.max_length, config.max_query_tokens, resolved.policy)
    # XLNet reads its summary off the last place.
    left = model.config.model_type == "xlnet"
    offset = _first_position(resolved, body_of(model))
    rows = Rows(frame.types, offset, tokenizer.pad_token_id or 0, left=left)
    with clear_errors(resolved):
        chosen = _choose(resolved, model, rows, pairs, device)
    return TorchScorer(resolved, fingerprint, pairs, chosen)


def _choose(
    resolved: Resolved, model: Any, rows: Rows, encoder: PairEncoder, device: torch.device
) -> PackedForward | PaddedForward:
    config = resolved.config
    if config.backend != "cross_encoder":
        try:
            return _packed(resolved, model, rows, encoder, device)
        except NotPackable as reason:
            if fix := without_packing(config):
                raise ModelUnavailable(
                    f"model {config.model!r} cannot be scored packed: {reason}; {fix}"
                ) from reason
            logger.warning("%s is scored padded: %s", config.model, reason)
            if model.config._attn_implementation == ATTENTION_NAME:
                # It was taken apart on the way; what serves is a whole one.
                model = load_model(resolved)
    padded = _padded(resolved, model, rows, encoder, device)
    set_precision(padded.module, DTYPES[config.dtype])
    padded.to(device)
    return padded


def _packed(
    resolved: Resolved, model: Any, rows: Rows, encoder: PairEncoder, device: torch.device
) -> PackedForward:
    """Take the model apart and check it; NotPackable where no way to pack it can be trusted."""
    config, body = resolved.config, body_of(model)
    refuse_unpackable(model)
    settings = model.config
    window = getattr(settings, "local_attention", None) or getattr(settings, "sliding_window", None)
    probes = items_of(encoder.encode(probe_pairs(min(int(window or 0), 4096))))
    padded = _padded(resolved, model, rows, encoder, device)
    if resolved.causal and padded.head is None:
        raise NotPackable(f"{type(model).__name__} has no head that is found")
    expected = padded(probes)
    plug_attention(model)
    mean = not resolved.causal and getattr(settings, "classifier_pooling", "cls") == "mean"
    pool = heads.last_token if resolved.causal else heads.first_token
    flat = not mean and flatten_layers(body)
    if mean:
        pool = heads.mean_of_tokens
    elif flat or narrow_last_layer(body):
        pool = heads.one_row
    dtype = DTYPES[config.dtype]
    if device.type == "cpu" and config.dtype == "float32":
        optimize(body)
    elif flat and config.dtype in ("bfloat16", "float16"):
        fold_biases(body)
    head = padded.head or heads.OwnHead(model, body)
    forward = PackedForward(body, head, pool, rows, padded.positive)
    set_precision(body, dtype)
    forward.to(device)
    forward.tf32 = config.dtype == "tf32"
    unrounded, rounding = _ROUNDED.get(config.dtype, (config.dtype, None))
    take_best_way(forward, probes, expected, unrounded, shares=resolved.causal)
    if rounding is not None:
        rounding(body)
        reason = disagreement(forward, probes, expected, config.dtype)
        if reason is not None:
            raise ModelUnavailable(
                f"model {config.model!r} does not bear {config.dtype} ({reason});"
                f" {without_packing(config)}"
            )
    switch_on(config, forward, probes, expected)
    return forward


def _padded(
    resolved: Resolved, model: Any, rows: Rows, encoder: PairEncoder, device: torch.device
) -> PaddedForward:
    """Return the padded forward; a language model's where it will run, with its head apart.

    Such a one's score is held against what the model's own code makes of a pair.
    """
    converted, positive = isinstance(model, GenericForSequenceClassification), resolved.positive
    name = f"model {resolved.config.model!r} ({type(model).__name__})"
    if resolved.answers and isinstance(encoder.frame, PromptFrame):
        answers, layer = encoder.frame.answers(), model.get_output_embeddings()
        if body_of(model) is None or layer in (None, model.get_input_embeddings()):
            raise ModelUnavailable(f"{name} has no head that is found; name another reranker")
        heads.keep_answers(layer, answers)
        positive = 0 if len(answers) > 1 else None
    padded = PaddedForward(model, rows, positive)
    if resolved.answers or converted:
        # Large, and loaded in the precision it serves in: the reference is computed where it runs.
        padded.to(device)
        prepared = encoder.encode(probe_pairs(0)[:1])
        if prepared[0].error:
            raise ModelUnavailable(f"{name}: {prepared[0].error}")
        probe = items_of(prepared)
        own = padded.own_score(probe[0])
        # Where its own code looks inside the body (OPT), the output layer alone may be all of it.
        ways = (model.score,) if converted else (heads.OwnHead(model, padded.module), layer)
        if reason := take_first_head(padded, ways, probe, own, resolved.config.dtype):
            raise ModelUnavailable(f"{name} does not score as its own code ({reason});"
                                   " name another reranker")  # fmt: skip
    elif resolved.causal:
        # Its own code computes all of it, and what is not its body in float32.
        model.float()
    return padded


def _first_position(resolved: Resolved, body: Any) -> int:
    """RoBERTa types start counting after the id of the padding token; the others at 0.

    Refuses a model whose table of positions is shorter than the length that was resolved.
    """
    table: Any = getattr(getattr(body, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return 0
    offset = 0 if table.padding_idx is None else int(table.padding_idx) + 1
    if table.num_embeddings - offset < resolved.max_length:
        raise ModelUnavailable(
            f"model {resolved.config.model!r} has {table.num_embeddings - offset} positions and"
            f" would read {resolved.max_length}; set max_length to the smaller"
        )
    return offset
