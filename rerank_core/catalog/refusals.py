"""What is refused of a checkpoint's small files, and the fix. It does not know torch."""

from __future__ import annotations

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


def refuse_unsupported(
    config: ScorerConfig, checkpoint: Checkpoint, settings: Any, architecture: str
) -> None:
    """Raise ModelUnavailable for kinds of rerankers that are not served, and for unpinned code."""
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
    _refuse_unpinned_code(config, checkpoint, settings.get("auto_map") or {})


def _refuse_unpinned_code(config: ScorerConfig, checkpoint: Checkpoint, auto_map: Any) -> None:
    """Refuse code of another repository without a commit, or that is not to be had."""
    places = [str(place) for place in auto_map.values() if "--" in str(place)]
    if not places:
        return
    name, repository = f"model {config.model!r}", places[0].split("--")[0]
    if not config.trust_remote_code:
        raise ModelUnavailable(
            f"{name} comes with its own Python code, from {repository}, which is refused; set"
            " trust_remote_code only if you have read that code, and pin it with code_revision"
        )
    if not config.code_revision:
        raise ModelUnavailable(
            f"{name} runs code of another repository, {repository}, which `revision` does not"
            " pin; set code_revision to a commit of it"
        )
    # Asked for here, so that a machine without a network hears at once what it lacks.
    offline = config.local_files_only or checkpoint.folder is not None
    for place in places:
        repository, _, code = place.partition("--")
        file = f"{code.split('.')[0]}.py"
        if Checkpoint(repository, repository, config.code_revision, offline).file(file) is None:
            raise ModelUnavailable(
                f"{name} needs {file} of {repository}, which is not in the local cache; fetch it:"
                f" hf download {repository} --revision {config.code_revision}"
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
