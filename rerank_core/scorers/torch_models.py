"""Decides which torch scorer a checkpoint gets. It does not know how they score."""

from __future__ import annotations

import logging

import torch

from rerank_core.catalog import obvious_pairs
from rerank_core.config import ScorerConfig
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.checkpoints import (
    Source,
    find_source,
    load_classifier,
    load_config,
    stored_file,
)
from rerank_core.scorers.packed import NotPackable, PackedScorer
from rerank_core.types import LoadedScorer, Scorer

logger = logging.getLogger(__name__)


def load_torch_scorer(config: ScorerConfig) -> LoadedScorer:
    """Load the checkpoint that `config` names; the packed scorer wherever it fits.

    Raises ModelUnavailable, with the fix, when it cannot be loaded or `backend` does not fit it.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    scorer = _choose(find_source(config))
    if config.self_check:
        refuse_nonsense(config.model, scorer)
    return scorer


def refuse_nonsense(model: str, scorer: Scorer) -> None:
    """Raise ModelUnavailable for a model that fails on obvious pairs, or ranks them wrongly."""
    scores = scorer.score(obvious_pairs())
    if scores.errors:
        reason = next(iter(scores.errors.values()))
        raise ModelUnavailable(
            f"model {model!r} cannot score plain sentences: {reason}. Try dtype float32 or another"
            " backend"
        )
    relevant, irrelevant = scores.raw[0::2], scores.raw[1::2]
    if not (relevant > irrelevant).all():
        raise ModelUnavailable(
            f"model {model!r} ranks obvious pairs wrongly (relevant {relevant.round(3).tolist()},"
            f" irrelevant {irrelevant.round(3).tolist()}). A missing or wrong prompt template, a"
            " wrong head or weights that were never trained do that; for a model without English"
            " set self_check to false"
        )


def _choose(source: Source) -> LoadedScorer:
    config = source.config
    model_config = load_config(source)
    architecture = (model_config.architectures or ["unknown"])[0]
    if _is_bare_language_model(source, architecture):
        from rerank_core.scorers.causal import CausalScorer

        return CausalScorer(source, model_config.model_type)
    _refuse_prompts(source, architecture)
    if config.backend != "cross_encoder":
        try:
            return _load_packed(source, architecture)
        except NotPackable as reason:
            if config.backend == "packed":
                raise ModelUnavailable(
                    f"model {source.name!r} cannot be scored packed: {reason}; use backend auto"
                ) from reason
            logger.warning("%s is scored padded, by sentence-transformers: %s", source.name, reason)
    # Imported here, because it takes seconds and the packed path needs none of it.
    from rerank_core.scorers.cross_encoder import CrossEncoderScorer

    return CrossEncoderScorer(source)


def _refuse_prompts(source: Source, architecture: str) -> None:
    """Raise ModelUnavailable for settings that would change the fingerprint and no score."""
    config = source.config
    if architecture.endswith("ForSequenceClassification") and (
        config.template or config.instruction
    ):
        raise ModelUnavailable(
            f"model {source.name!r} is a classifier that takes neither `template` nor"
            " `instruction`; leave them out"
        )
    if config.template:
        raise ModelUnavailable(
            f"model {source.name!r} is not asked with our prompts under backend {config.backend!r},"
            " so `template` would do nothing; leave it out, or use backend auto"
        )


def _is_bare_language_model(source: Source, architecture: str) -> bool:
    """Whether it is a language model that does not say itself, in modules.json, how to ask it."""
    if not architecture.endswith("ForCausalLM") or source.config.backend != "auto":
        return False
    if source.config.template is not None:
        return True
    return stored_file(source, "modules.json") is None


def _load_packed(source: Source, architecture: str) -> PackedScorer:
    if not architecture.endswith("ForSequenceClassification"):
        raise NotPackable(f"{architecture} has no classification head")
    model, tokenizer = load_classifier(source)
    return PackedScorer(source, model, tokenizer)
