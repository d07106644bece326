"""Scores what cannot be packed through sentence-transformers, in batches of bounded tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from safetensors import safe_open
from sentence_transformers import CrossEncoder
from torch import nn
from transformers.utils.hub import cached_file

from rerank_core.batching import plan_batches
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.checkpoints import (
    DTYPES,
    Source,
    clear_errors,
    declared_activation,
    refuse_missing_weights,
    resolve_device,
    usable_length,
    without_progress_bars,
)
from rerank_core.scorers.pair_texts import PairCutter
from rerank_core.types import Float32s, PairScores, QueryDocumentPair, ScorerInfo

# Padded batches hold the attention of whole rectangles, so they stay smaller than packed ones.
DEFAULT_BUDGETS = {"cpu": 2048, "cuda": 32768}


class CrossEncoderScorer:
    """Any checkpoint that `sentence_transformers.CrossEncoder` loads."""

    def __init__(self, source: Source) -> None:
        config = source.config
        device = resolve_device(config)
        with clear_errors(source), without_progress_bars():
            self._model = CrossEncoder(
                source.path,
                device=str(device),
                model_kwargs={"use_safetensors": True, "dtype": DTYPES[config.dtype]},
                **source.options,
            )
        model: Any = self._model.transformers_model
        refuse_absent_head(source, model)
        if self._model.num_labels != 1:
            raise ModelUnavailable(
                f"model {source.name!r} has {self._model.num_labels} outputs per pair; a reranker"
                " has one. It is probably a classifier for another task"
            )
        if config.dtype != "float32":
            self._model.set_keep_in_fp32_modules(_head_linears(self._model, model))
        max_length = usable_length(config, self._model.tokenizer, model.config, offset=0)
        self._model.max_seq_length = max_length
        self._cutter = PairCutter(self._model.tokenizer, max_length, config.max_query_tokens)
        self._info = ScorerInfo(
            model=source.name,
            revision=config.revision,
            backend="cross_encoder",
            device=str(device),
            dtype=config.dtype,
            max_length=max_length,
            max_batch_tokens=config.max_batch_tokens or DEFAULT_BUDGETS[device.type],
            activation=declared_activation(config, model.config),
            fingerprint=config.fingerprint(),
        )

    @property
    def info(self) -> ScorerInfo:
        """What was loaded."""
        return self._info

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order; a pair that cannot be scored fails alone."""
        cut, errors = self._cutter.cut(pairs)
        raw = np.full(len(pairs), np.nan, dtype=np.float32)
        ready = [i for i in range(len(pairs)) if i not in errors]
        lengths = [cut[i].tokens for i in ready]
        for batch in plan_batches(lengths, self._info.max_batch_tokens):
            places = [ready[i] for i in batch]
            raw[places] = self._forward([(cut[i].query, cut[i].document) for i in places])
        tokens = np.array([pair.tokens for pair in cut], dtype=np.int32)
        truncated = np.array([pair.truncated for pair in cut], dtype=np.bool_)
        return PairScores(raw, tokens, truncated, errors)

    def _forward(self, texts: list[tuple[str, str]]) -> Float32s:
        scores: Float32s = self._model.predict(
            texts,
            batch_size=len(texts),
            activation_fn=nn.Identity(),
            show_progress_bar=False,
        )
        return scores


def _head_linears(encoder: CrossEncoder, model: nn.Module) -> list[str]:
    body = getattr(model, str(model.base_model_prefix), None)
    inside = set() if body is None or body is model else set(body.modules())
    return [
        name
        for name, module in encoder.named_modules()
        if type(module) is nn.Linear and module not in inside and "lm_head" not in name
    ]


def refuse_absent_head(source: Source, model: Any) -> None:
    """Raise ModelUnavailable when a weight outside the body is not in the checkpoint's files.

    Reads only the files' headers. Weights tied to others (a language model's output layer) need
    not be there.
    """
    stored = _stored_weights(source)
    body = f"{model.base_model_prefix}."
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    absent = [
        name
        for name, _ in model.named_parameters()
        if not name.startswith(body) and name not in stored and name not in tied
    ]
    refuse_missing_weights(source.name, {"missing_keys": absent, "mismatched_keys": []})


def _stored_weights(source: Source) -> set[str]:
    options = {k: v for k, v in source.options.items() if k != "trust_remote_code"}

    def locate(name: str) -> str | None:
        path: str | None = cached_file(
            source.path, name, _raise_exceptions_for_missing_entries=False, **options
        )
        return path

    index = locate("model.safetensors.index.json")
    if index is not None:
        with open(index, encoding="utf-8") as file:
            return set(json.load(file)["weight_map"])
    weights = locate("model.safetensors")
    if weights is None:
        raise ModelUnavailable(f"model {source.name!r} has no model.safetensors")
    with safe_open(weights, framework="pt") as tensors:
        return set(tensors.keys())
