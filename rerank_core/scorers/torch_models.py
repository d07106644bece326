"""Decides which torch scorer a checkpoint gets. It does not know how they score."""

from __future__ import annotations

import logging

import torch

from rerank_core.config import ScorerConfig
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.checkpoints import Source, find_source, load_classifier, load_config
from rerank_core.scorers.packed import NotPackable, PackedScorer
from rerank_core.types import Scorer

logger = logging.getLogger(__name__)


def load_torch_scorer(config: ScorerConfig) -> Scorer:
    """Load the checkpoint that `config` names; the packed scorer wherever it fits.

    Raises ModelUnavailable, with the fix, when it cannot be loaded or `backend` does not fit it.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    source = find_source(config)
    if config.backend != "cross_encoder":
        try:
            return _load_packed(source)
        except NotPackable as reason:
            if config.backend == "packed":
                raise ModelUnavailable(
                    f"model {source.name!r} cannot be scored packed: {reason}; use backend auto"
                ) from reason
            logger.warning("%s is scored padded, by sentence-transformers: %s", source.name, reason)
    # Imported here, because it takes seconds and the packed path needs none of it.
    from rerank_core.scorers.cross_encoder import CrossEncoderScorer

    return CrossEncoderScorer(source)


def _load_packed(source: Source) -> PackedScorer:
    architectures = load_config(source).architectures or ["unknown"]
    if not architectures[0].endswith("ForSequenceClassification"):
        raise NotPackable(f"{architectures[0]} has no classification head")
    model, tokenizer = load_classifier(source)
    return PackedScorer(source, model, tokenizer)
