"""What a modules.json means: who computes, and whether a score comes out of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rerank_core.catalog.checkpoint import Checkpoint
from rerank_core.errors import ModelUnavailable

if TYPE_CHECKING:
    from rerank_core.config import ScorerConfig

_OURS = "sentence_transformers."


def needs_sentence_transformers(checkpoint: Checkpoint, architecture: str) -> bool:
    """Whether its modules.json says more than "this is one transformer with a head"."""
    kinds = _kinds(checkpoint)
    return bool(kinds) and (
        kinds != ["Transformer"] or not architecture.endswith("ForSequenceClassification")
    )


def refuse_modules(config: ScorerConfig, checkpoint: Checkpoint, adapter: Path | None) -> None:
    """Raise ModelUnavailable for modules that make embeddings, and for an adapter of modules."""
    name, kinds = f"model {config.model!r}", ", ".join(_kinds(checkpoint))
    # Of another type sentence-transformers takes the transformer alone, and makes a head up.
    said = checkpoint.json("config_sentence_transformers.json")
    if said.get("model_type") != "CrossEncoder":
        raise ModelUnavailable(
            f"{name} makes embeddings (its modules.json has {kinds}) and has no reranking head, so"
            " scores would be random; name a reranker"
        )
    if adapter is not None:
        raise ModelUnavailable(
            f"adapter {str(adapter)!r} would be left out: the modules.json of {name} leaves the"
            " model to sentence-transformers; merge it first, or set `template`"
        )


def own_kinds(checkpoint: Checkpoint) -> list[str]:
    """Return the kinds of modules that are not sentence-transformers' own."""
    kinds = [str(module.get("type", "")) for module in checkpoint.modules()]
    return [kind for kind in kinds if not kind.startswith(_OURS)]


def _kinds(checkpoint: Checkpoint) -> list[str]:
    return [str(module.get("type", "")).rsplit(".", 1)[-1] for module in checkpoint.modules()]
