"""Loads a checkpoint safely: safetensors only, no strangers' code, a head that is in the file.

Every way to fail ends in ModelUnavailable with the fix. It does not know how pairs are scored.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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
from rerank_core.scorers.load_errors import explain, no_safetensors

# Untyped in transformers.
loading_logs: Any = transformers_logging

_UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


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
        raise ModelUnavailable(no_safetensors(config.model, pickled))
    return Source(config.model, str(folder), config)


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


@contextlib.contextmanager
def clear_errors(source: Source) -> Iterator[None]:
    """Turn what loaders raise into ModelUnavailable with the fix."""
    try:
        yield
    except ModelUnavailable:
        raise
    except Exception as error:
        raise ModelUnavailable(explain(source.name, error)) from error


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
