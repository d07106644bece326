"""The hash of what decides a score, as resolved. It does not know how a score is computed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from rerank_core.catalog.checkpoint import Checkpoint
from rerank_core.catalog.content import content_hash
from rerank_core.catalog.resolve import Resolved, resolve

if TYPE_CHECKING:
    from rerank_core.config import ScorerConfig

# Raised whenever a release computes another score from the same settings and files.
SCORING_VERSION = 3


def fingerprint(config: ScorerConfig) -> str:
    """Return 16 hex digits; see ScorerConfig.fingerprint. Reads no weights but to hash them."""
    return resolved_fingerprint(resolve(config))


def resolved_fingerprint(resolved: Resolved) -> str:
    """Return the fingerprint of a config that is resolved already."""
    config = resolved.config
    fields: dict[str, Any] = {
        "scoring": SCORING_VERSION,
        "engine": resolved.engine,
        "max_length": resolved.max_length,
        "max_query_tokens": resolved.max_query_tokens,
        "activation": resolved.activation,
    }
    if resolved.checkpoint is not None:
        modules, adapter = resolved.engine == "sentence_transformers", resolved.adapter
        fields |= {
            "weights": content_hash(
                resolved.checkpoint, with_modules=modules, with_code=resolved.code is not None
            ),
            "adapter": adapter and content_hash(Checkpoint(str(adapter), str(adapter))),
            "code": resolved.code,
            "dtype": config.dtype,
            "prompt": resolved.family and resolved.family.prompt,
            "instruction": resolved.instruction,
            "head": [resolved.causal, resolved.answers, resolved.outputs, resolved.positive],
        }
        if config.dtype == "int8":
            from rerank_core.scorers.int8 import int8_scheme

            fields["int8"] = int8_scheme()
    if config.long_documents == "split":
        size = min(config.passage_tokens or resolved.max_length, resolved.max_length)
        overlap = min(config.passage_overlap, size // 2)
        fields["split"] = [size, overlap, config.passage_score, config.max_passages]
    first = config.first_stage_config()
    if first is not None and config.first_stage is not None:
        fields["first_stage"] = [fingerprint(first), config.first_stage.keep]
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
