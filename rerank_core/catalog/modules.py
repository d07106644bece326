"""What a modules.json means: who computes, and whether a score comes out of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_core.catalog.checkpoint import Checkpoint
from rerank_core.errors import ModelUnavailable

if TYPE_CHECKING:
    from rerank_core.config import ScorerConfig

_OURS = "sentence_transformers."


def needs_sentence_transformers(checkpoint: Checkpoint, architecture: str) -> bool:
    """Whether its modules.json says more than "this is one transformer with a head".

    That of an embedding model which was trained on into a classifier is left over from before:
    sentence-transformers, too, then loads the classifier and none of the modules.
    """
    kinds = _kinds(checkpoint)
    if not kinds or not architecture.endswith("ForSequenceClassification"):
        return bool(kinds)
    return kinds != ["Transformer"] and _model_type(checkpoint) == "CrossEncoder"


def refuse_modules(config: ScorerConfig, checkpoint: Checkpoint, adapter: Path | None) -> None:
    """Raise ModelUnavailable for modules that make embeddings, and for an adapter of modules."""
    name, kinds = f"model {config.model!r}", ", ".join(_kinds(checkpoint))
    # Of another type sentence-transformers takes the transformer alone, and makes a head up.
    if _model_type(checkpoint) != "CrossEncoder":
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


def _model_type(checkpoint: Checkpoint) -> Any:
    return checkpoint.json("config_sentence_transformers.json").get("model_type")
