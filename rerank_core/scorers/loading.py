"""Loads a checkpoint safely: safetensors only, no strangers' code, a head that is in the file.

Every way to fail ends in ModelUnavailable with the fix. It does not know how pairs are scored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from rerank_core.catalog.load_errors import explain, no_head
from rerank_core.catalog.refusals import no_tokenizer
from rerank_core.catalog.resolve import Resolved
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.device import DTYPES

# Untyped in transformers.
_logs: Any = transformers_logging
# Fewer are only the marks that a tokenizer class makes up.
_FEWEST_TOKENS = 32
_PEFT_PREFIX = "base_model.model."


def load_options(resolved: Resolved) -> dict[str, Any]:
    """Return keyword arguments for transformers' `from_pretrained`."""
    source, config = resolved.source, resolved.config
    options = {
        "revision": source.commit,
        "trust_remote_code": config.trust_remote_code,
        "local_files_only": config.local_files_only or source.folder is not None,
    }
    return options | ({"code_revision": config.code_revision} if config.code_revision else {})


def load_model(resolved: Resolved) -> Any:
    """Return the model on the CPU, its adapter merged.

    A classifier is in float32, a language model in the dtype that it will serve in: where its file
    is, too, the weights are the mapped file, and take memory first where they are moved. Raises
    ModelUnavailable for weights that are not in the file.
    """
    source = resolved.source
    loader: Any = AutoModelForSequenceClassification
    options = load_options(resolved) | {"dtype": torch.float32, "num_labels": resolved.outputs}
    if resolved.causal:
        options["dtype"] = DTYPES[resolved.config.dtype]
    if resolved.answers:
        loader = AutoModelForCausalLM
        del options["num_labels"]
    with clear_errors(resolved):
        model, report = loader.from_pretrained(
            source.place, use_safetensors=True, output_loading_info=True, **options
        )
    merged = _merge_adapter(resolved, resolved.adapter, model) if resolved.adapter else set()
    absent = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    random = [name for name in absent if name not in merged]
    if random:
        raise ModelUnavailable(no_head(resolved.config.model, random))
    return model.eval()


def load_tokenizer(resolved: Resolved, embeddings: int | None) -> Any:
    """Return the checkpoint's tokenizer; one that is absent or another model's is refused."""
    source, name = resolved.source, resolved.config.model
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.place, **load_options(resolved))
    except Exception as error:
        raise ModelUnavailable(no_tokenizer(name, source)) from error
    rust = getattr(tokenizer, "backend_tokenizer", None)
    # Without what its class adds: those ids stand in no text.
    known = tokenizer.get_vocab() if rust is None else rust.get_vocab(with_added_tokens=False)
    largest = max(known.values(), default=-1)
    if largest < _FEWEST_TOKENS:
        raise ModelUnavailable(no_tokenizer(name, source))
    if embeddings is not None and largest >= embeddings:
        raise ModelUnavailable(
            f"model {name!r} has the tokenizer of another model: its ids reach {largest}, the model"
            f" knows {embeddings}; copy the tokenizer of the model that it was trained from"
        )
    return tokenizer


def _merge_adapter(resolved: Resolved, folder: Path, model: Any) -> set[str]:
    """Add a LoRA adapter's products to the weights; return the names of weights it replaced."""
    settings, name = resolved.adapter_settings, f"adapter {str(folder)!r}"
    if settings.get("peft_type", "LORA") != "LORA" or settings.get("use_dora"):
        raise ModelUnavailable(f"{name} is not plain LoRA; merge it with peft, and give the result")
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelUnavailable(f"{name} has no adapter_model.safetensors; save it as safetensors")
    with clear_errors(resolved):
        tensors = {key.removeprefix(_PEFT_PREFIX): value for key, value in load_file(path).items()}
    weights = dict(model.named_parameters())
    replaced: set[str] = set()
    for key, tensor in tensors.items():
        if key.endswith(".lora_B.weight"):
            continue
        target = key.replace(".lora_A.weight", ".weight").replace(".modules_to_save", "")
        weight, value = weights.get(target), tensor
        second = tensors.get(key.replace("lora_A", "lora_B"))
        if key.endswith(".lora_A.weight"):
            value = torch.empty(0) if second is None else _product(settings, key, tensor, second)
        if weight is None or weight.shape != value.shape:
            raise ModelUnavailable(
                f"{name} does not fit model {resolved.source.name!r} ({key}); set `model` to"
                " the model that it was trained on"
            )
        if value is tensor:
            replaced.add(target)
            weight.data.copy_(value)
        else:
            weight.data.add_(value.to(weight.dtype))
    return replaced


def _product(settings: Any, key: str, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    rank = first.shape[0]
    module = key.removesuffix(".lora_A.weight")
    patterns = settings.get("alpha_pattern") or {}
    alpha = next((a for p, a in patterns.items() if module.endswith(p)), settings["lora_alpha"])
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    product: torch.Tensor = scale * (second.float() @ first.float())
    return product.T if settings.get("fan_in_fan_out") else product


@contextlib.contextmanager
def clear_errors(resolved: Resolved) -> Iterator[None]:
    """Turn what loaders raise into ModelUnavailable with the fix; no bars: a log is no terminal."""
    shown = _logs.is_progress_bar_enabled()
    _logs.disable_progress_bar()
    try:
        yield
    except ModelUnavailable:
        raise
    except Exception as error:
        raise ModelUnavailable(explain(resolved.config.model, error)) from error
    finally:
        if shown:
            _logs.enable_progress_bar()
