"""Scores what cannot be packed through sentence-transformers, in batches of bounded tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from safetensors import safe_open
from sentence_transformers import CrossEncoder
from torch import Tensor, nn

from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.body import position_offset, readable_length
from rerank_core.scorers.device import DTYPES, in_float32, resolve_device
from rerank_core.scorers.loading import (
    Source,
    clear_errors,
    declared_activation,
    refuse_missing_weights,
    stored_file,
    without_progress_bars,
)
from rerank_core.scorers.pair_texts import CutPair, PairCutter
from rerank_core.scorers.pipeline import score_pool
from rerank_core.scorers.runner import BatchRunner
from rerank_core.types import PairScores, QueryDocumentPair, ScorerInfo

# Padded batches hold the attention of whole rectangles, so they stay smaller than packed ones.
DEFAULT_BUDGETS = {"cpu": 2048, "cuda": 32768}


class CrossEncoderScorer:
    """Any checkpoint that `sentence_transformers.CrossEncoder` loads."""

    def __init__(self, source: Source) -> None:
        config = source.config
        device = resolve_device(config)
        self._instruction = config.instruction
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
            _keep_head_norms(model)
        offset = position_offset(getattr(model, str(model.base_model_prefix), None))
        max_length = readable_length(config, self._model.tokenizer, model.config, offset)
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
            activation=declared_activation(source, model.config),
            fingerprint=config.fingerprint(),
        )

        budget = self._info.max_batch_tokens
        self._runner = BatchRunner(self._forward, self._score_in_float32, budget, padded=True)

    @property
    def info(self) -> ScorerInfo:
        """What was loaded."""
        return self._info

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order; a pair that cannot be scored fails alone."""
        return score_pool(pairs, self._cutter.cut, self._runner)

    @property
    def document_tokens(self) -> PairCutter:
        """What splitting long documents needs to know."""
        return self._cutter

    def warm_up(self) -> None:
        """Score one batch of the largest size, so that the first caller meets a warm device."""
        pair = CutPair("warm up", "word " * self._info.max_length, self._info.max_length, True)
        self._runner.run([pair] * max(1, self._info.max_batch_tokens // self._info.max_length))

    def _forward(self, pairs: Sequence[CutPair]) -> Tensor:
        texts = [(pair.query, pair.document) for pair in pairs]
        scores: Tensor = self._model.predict(
            texts,
            prompt=self._instruction,
            batch_size=len(texts),
            activation_fn=nn.Identity(),
            show_progress_bar=False,
            convert_to_tensor=True,
        )
        return scores

    def _score_in_float32(self, pair: CutPair) -> float:
        with in_float32(self._model):
            return float(self._forward([pair])[0])


def _inside_body(model: nn.Module) -> set[nn.Module]:
    body = getattr(model, str(model.base_model_prefix), None)
    return set() if body is None or body is model else set(body.modules())


def _head_linears(encoder: CrossEncoder, model: nn.Module) -> list[str]:
    inside = _inside_body(model)
    return [
        name
        for name, module in encoder.named_modules()
        if type(module) is nn.Linear and module not in inside and "lm_head" not in name
    ]


def _keep_head_norms(model: nn.Module) -> None:
    """Keep a head's normalisation (ModernBERT's) in float32, which its linear layers hand it."""

    def in_float32(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Each time, because `to(dtype)` on the whole model would halve it again.
        module.float()
        return tuple(part.float() for part in inputs)

    inside = _inside_body(model)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm) and module not in inside:
            module.register_forward_pre_hook(in_float32)


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
    index = stored_file(source, "model.safetensors.index.json")
    if index is not None:
        with open(index, encoding="utf-8") as file:
            return set(json.load(file)["weight_map"])
    weights = stored_file(source, "model.safetensors")
    if weights is None:
        raise ModelUnavailable(
            f"model {source.name!r} has no model.safetensors; fetch the complete checkpoint"
        )
    with safe_open(weights, framework="pt") as tensors:
        return set(tensors.keys())
