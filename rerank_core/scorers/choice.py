"""Decides which torch scorer a checkpoint gets. It does not know how they score."""

from __future__ import annotations

import logging

import torch

from rerank_core.config import ScorerConfig
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.body import NotPackable, PackedScorer
from rerank_core.scorers.loading import (
    Source,
    find_source,
    load_classifier,
    load_config,
    stored_file,
)
from rerank_core.scorers.self_check import refuse_nonsense
from rerank_core.types import LoadedScorer

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
    from rerank_core.scorers.sentence_transformers import CrossEncoderScorer

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
