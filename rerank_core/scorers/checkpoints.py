"""Loads a checkpoint safely: safetensors only, no strangers' code, a head that is in the file.

Every way to fail ends in ModelUnavailable with the fix. It does not know how pairs are scored.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from rerank_core.config import ScorerConfig
from rerank_core.errors import ModelUnavailable

logger = logging.getLogger(__name__)
# Untyped in transformers.
loading_logs: Any = transformers_logging

_UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint is, and the options that every loader gets."""

    name: str
    path: str
    config: ScorerConfig

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for transformers' `from_pretrained`."""
        return {
            "revision": self.config.revision,
            "trust_remote_code": self.config.trust_remote_code,
            "local_files_only": self.config.local_files_only or Path(self.path).is_dir(),
        }


def find_source(config: ScorerConfig) -> Source:
    """Say where the model is; a missing or unusable folder is ModelUnavailable."""
    folder = config.model_dir
    if folder is None:
        if config.model.startswith((".", "/", "~")) or config.model.count("/") > 1:
            raise ModelUnavailable(
                f"there is no folder {config.model!r}; give the path of a checkpoint folder"
                " (with config.json and model.safetensors) or a Hugging Face id"
            )
        return Source(config.model, config.model, config)
    if not (folder / "config.json").is_file():
        hint = (
            "this installation has no embedded weights; name another `model`"
            if config.model == "embedded"
            else "give the folder that holds config.json and model.safetensors"
        )
        raise ModelUnavailable(f"model {config.model!r}: no config.json in its folder; {hint}")
    if not any(folder.rglob("*.safetensors")):
        pickled = any(path for pattern in _UNSAFE_WEIGHTS for path in folder.glob(pattern))
        raise ModelUnavailable(_no_safetensors(config.model, pickled))
    return Source(config.model, str(folder), config)


def _no_safetensors(model: str, pickled: bool) -> str:
    if pickled:
        return (
            f"model {model!r} has only pickled weights, which can run code and are never loaded;"
            " use a revision with model.safetensors, or convert it with"
            " save_pretrained(..., safe_serialization=True)"
        )
    return f"model {model!r} has no model.safetensors; fetch the complete checkpoint"


def load_config(source: Source) -> Any:
    """Return the checkpoint's transformers config."""
    with clear_errors(source), without_progress_bars():
        return AutoConfig.from_pretrained(source.path, **source.options)


def load_classifier(source: Source) -> tuple[PreTrainedModel, Any]:
    """Return the sequence-classification model (float32, on the CPU) and its tokenizer.

    Raises ModelUnavailable for weights that are not in the file and for more than one output.
    """
    with clear_errors(source), without_progress_bars():
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source.path,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **source.options,
        )
        tokenizer = AutoTokenizer.from_pretrained(source.path, **source.options)
    refuse_missing_weights(source.name, report)
    if model.config.num_labels != 1:
        raise ModelUnavailable(
            f"model {source.name!r} has {model.config.num_labels} outputs per pair; a reranker has"
            " one. It is probably a classifier for another task"
        )
    return model.eval(), tokenizer


def refuse_missing_weights(name: str, report: dict[str, Any]) -> None:
    """Raise ModelUnavailable when loading left weights newly initialised, that is random."""
    absent = sorted([*report["missing_keys"], *(k for k, *_ in report["mismatched_keys"])])
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise ModelUnavailable(
            f"model {name!r}: weights are missing from the checkpoint ({shown}), so scores would be"
            " random. It is probably an embedding or language model without a reranking head; name"
            " a reranker"
        )


def resolve_device(config: ScorerConfig) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1` into a device that exists."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
    except RuntimeError as error:
        raise ModelUnavailable(
            f"device {config.device!r} is unknown; use auto, cpu or cuda"
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ModelUnavailable(f"device {config.device!r} is not supported; use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelUnavailable(
            f"device {config.device!r} is not here: {torch.cuda.device_count()} CUDA devices are"
            " visible. Use device auto or cpu, or start on a GPU machine"
        )
    return device


def set_precision(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Change the precision of the weights alone.

    `model.to(dtype)` would also round rotary frequencies, which are buffers, and with them where
    the tokens of a long text stand.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


@contextlib.contextmanager
def in_float32(model: torch.nn.Module) -> Iterator[None]:
    """Hold the weights in float32 for a while; afterwards each is exactly what it was."""
    before = [(weight, weight.dtype) for weight in model.parameters()]
    try:
        set_precision(model, torch.float32)
        yield
    finally:
        for weight, dtype in before:
            weight.data = weight.data.to(dtype)


def stored_file(source: Source, name: str) -> str | None:
    """Return where a file of the checkpoint lies, or None if it has no such file."""
    options = {k: v for k, v in source.options.items() if k != "trust_remote_code"}
    with clear_errors(source):
        path: str | None = cached_file(
            source.path, name, _raise_exceptions_for_missing_entries=False, **options
        )
    return path


def declared_activation(source: Source, model_config: Any) -> str:
    """Return `sigmoid` or `identity`: what the config asks for, else what the checkpoint says."""
    config = source.config
    if config.activation != "auto":
        return config.activation
    # sentence-transformers 6 writes it to a file of its own, before that it stood in config.json.
    path = stored_file(source, "config_sentence_transformers.json")
    stored = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    saved = getattr(model_config, "sentence_transformers", None) or {}
    declared = (
        stored.get("activation_fn")
        or saved.get("activation_fn")
        or getattr(model_config, "sbert_ce_default_activation_function", None)
    )
    kind = str(declared or "Sigmoid").rsplit(".", 1)[-1].lower()
    if kind not in ("sigmoid", "identity"):
        raise ModelUnavailable(
            f"model {config.model!r} declares the activation {declared!r}, which is unknown here;"
            " set `activation` to sigmoid or identity"
        )
    return kind


def position_offset(body: Any) -> int:
    """RoBERTa types start counting after the id of the padding token; the others at 0."""
    embeddings: Any = getattr(body, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        return int(embeddings.padding_idx) + 1
    return 0


def usable_length(config: ScorerConfig, tokenizer: Any, model_config: Any, offset: int) -> int:
    """Return how many tokens of a pair the model can read.

    `offset` is how many positions the model leaves unused (pad id + 1 for RoBERTa types).
    """
    limits = [tokenizer.model_max_length]
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions and positions > 0:
        limits.append(positions - offset)
    return within(config, int(min(limits)))


def within(config: ScorerConfig, limit: int) -> int:
    """Return the configured `max_length`, or `limit` where it is less; a log line says so."""
    if config.max_length is None:
        return limit
    if config.max_length > limit:
        logger.warning("max_length %d is more than %r can read; using %d",
                       config.max_length, config.model, limit)  # fmt: skip
    return min(limit, config.max_length)


@contextlib.contextmanager
def clear_errors(source: Source) -> Iterator[None]:
    """Turn what loaders raise into ModelUnavailable with the fix."""
    try:
        yield
    except ModelUnavailable:
        raise
    except Exception as error:
        raise ModelUnavailable(_explain(source, error)) from error


def _explain(source: Source, error: BaseException) -> str:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    kinds = tuple(type(part) for part in chain)
    text = " ".join(str(part) for part in chain)
    name = f"model {source.name!r}"

    def met(*wanted: type[BaseException]) -> bool:
        return any(issubclass(kind, wanted) for kind in kinds)

    if met(GatedRepoError) or "gated repo" in text:
        return (
            f"{name} is gated: accept its terms on the hub, then set HF_TOKEN to a token that may"
            " read it"
        )
    if "trust_remote_code" in text:
        return (
            f"{name} comes with its own Python code, which is refused; set trust_remote_code only"
            " if you have read that code, and pin its revision"
        )
    if "safetensors" in text:
        return _no_safetensors(source.name, pickled=True)
    if met(LocalEntryNotFoundError, ConnectionError, TimeoutError) or "connect" in text.lower():
        return (
            f"{name} is neither a local folder nor in the local cache, and the hub cannot be"
            " reached; check the network, or fetch the model beforehand and give its folder"
        )
    if met(RepositoryNotFoundError) or "not a valid model identifier" in text:
        return f"{name} is not on the hub; check its spelling, or set HF_TOKEN if it is private"
    return f"{name} cannot be loaded ({type(error).__name__}: {_first_line(error)})"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0][:300]


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars: a service's log is no terminal."""
    shown = loading_logs.is_progress_bar_enabled()
    loading_logs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            loading_logs.enable_progress_bar()
