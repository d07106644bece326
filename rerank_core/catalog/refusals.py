"""What is refused of a checkpoint's small files, and the fix. It does not know torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_core.catalog.checkpoint import Checkpoint
from rerank_core.catalog.families import FAMILIES, Family
from rerank_core.errors import ModelUnavailable

if TYPE_CHECKING:
    from rerank_core.config import ScorerConfig

_LAYERWISE = ("LayerWise", "CostWise")
_LISTWISE = ("JinaForRanking",)
_SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "sentencepiece.model",
                  "tokenizer.model")  # fmt: skip


def refuse_unsupported(config: ScorerConfig, settings: Any, architecture: str) -> None:
    """Raise ModelUnavailable for kinds of rerankers that are not served."""
    name = f"model {config.model!r}"
    if architecture.startswith(_LAYERWISE):
        raise ModelUnavailable(
            f"{name} is a layerwise reranker ({architecture}), whose score is chosen by"
            " `cutoff_layers`; that is not supported. Name bge-reranker-v2-gemma or -m3 instead"
        )
    if architecture in _LISTWISE:
        raise ModelUnavailable(
            f"{name} is a listwise reranker ({architecture}), which scores a query's documents"
            " together; that is not supported. Name one that scores pairs, such as Qwen3-Reranker"
        )
    if settings.get("is_encoder_decoder") and architecture.endswith("ForConditionalGeneration"):
        raise ModelUnavailable(
            f"{name} generates its answer ({architecture}); only its sequence-classification form"
            " can be scored. Convert it, or name another reranker"
        )


def refuse_adapter(adapter: Path | None, settings: Any) -> None:
    """Refuse a classifier's adapter on a language model, whose output layer it does not know."""
    if settings.get("task_type") == "SEQ_CLS":
        raise ModelUnavailable(
            f"adapter {str(adapter)!r} brings a classifier's head (SEQ_CLS), for which its base, a"
            " language model, has no place; merge both first with peft"
            " (AutoPeftModelForSequenceClassification, merge_and_unload), and give the result"
        )


def refuse_unasked(
    config: ScorerConfig, family: Family | None, architecture: str, *, causal: bool
) -> None:
    """Refuse what no prompt is known for, and settings that would change no score."""
    name = f"model {config.model!r}"
    if causal and family is None and (config.template is None or architecture.endswith("CausalLM")):
        raise ModelUnavailable(
            f"{name} is a language model without a known reranking prompt, so its scores would mean"
            f" nothing; if it was trained with one of these, set `template` to it:"
            f" {', '.join(FAMILIES)}; or to a YAML file with its own prompt; or to `pair` for a"
            " classifier trained on plain pairs. Otherwise name a reranker"
        )
    if not causal and (config.template or config.instruction):
        raise ModelUnavailable(
            f"{name} is a classifier that takes neither `template` nor `instruction`; leave them"
            " out"
        )
    if config.instruction and (family is None or not family.takes_instruction):
        raise ModelUnavailable(
            f"{name} is asked without a place for an instruction; leave `instruction` out"
        )


def no_tokenizer(model: str, checkpoint: Checkpoint) -> str:
    """Say what to do about a checkpoint whose tokenizer is absent or cannot be read."""
    copy = "copy tokenizer.json and tokenizer_config.json of the model that it was trained from"
    if checkpoint.file("tokenizer.json") is None:
        for name in _SENTENCEPIECE:
            if checkpoint.file(name) is not None:
                return (
                    f"model {model!r} has its vocabulary only as {name}, which could not be read;"
                    f" that needs two packages: pip install 'ray-rerank[sentencepiece]'. Or {copy}"
                )
    return f"model {model!r} has no tokenizer, or one without a vocabulary that can be read; {copy}"
