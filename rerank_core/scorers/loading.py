"""Loads a checkpoint safely: safetensors only, no strangers' code, a head that is in the file.

Every way to fail ends in ModelUnavailable with the fix. It does not know how pairs are scored.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL_LMS
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED_LMS
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
# The part that a weight is of, and the layer.
_OF_A_LAYER = re.compile(r"((.*?\.\d+)\..+)\.(?:weight|bias)")


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
    name = f"model {resolved.config.model!r} ({type(model).__name__})"
    if unread := _unread(model, report["unexpected_keys"]):
        raise ModelUnavailable(
            f"{name}: its class in transformers has no place for weights of its layers"
            f" ({', '.join(unread[:3])}), so scores would be without them; name another reranker"
        )
    if not resolved.causal and _reads_forwards(model):
        raise ModelUnavailable(
            f"{name} is a language model turned classifier, of a type whose prompts are not known"
            " here: asked with a plain pair, its scores would mean nothing. Name another reranker"
        )
    return model.eval()


def _unread(model: Any, unexpected: Collection[str]) -> list[str]:
    """Return weights of the model's layers that its code, if it is transformers', does not read.

    Harmless ones lie beside the layers (poolers, other heads, layers that are left out), or are no
    weights (positions, frequencies, masks).
    """
    prefix, found = f"{model.base_model_prefix}.", []
    modules = dict(getattr(model, model.base_model_prefix, model).named_modules())
    for key in unexpected if type(model).__module__.startswith("transformers.models.") else ():
        place = _OF_A_LAYER.fullmatch(key.removeprefix(prefix))
        if place is not None and place[2] in modules:
            # A "bias" of a part that has no weight is a mask.
            weighty = f"{key.rpartition('.')[0]}.weight" in unexpected
            found += [key] if hasattr(modules.get(place[1]), "weight") or weighty else []
    return sorted(found)


def _reads_forwards(model: Any) -> bool:
    """Whether transformers knows the body of a classifier only as a language model's."""
    kind = model.config.model_type
    known = kind in CAUSAL_LMS and kind not in MASKED_LMS and kind != "xlnet"
    converted = isinstance(model, GenericForSequenceClassification)
    return converted or (known and not model.config.is_encoder_decoder)


def load_tokenizer(resolved: Resolved, embeddings: int) -> Any:
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
    if largest >= embeddings:
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
    if "lora_alpha" not in settings:
        raise ModelUnavailable(f"{name} has no lora_alpha in adapter_config.json; fetch it again")
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelUnavailable(f"{name} has no adapter_model.safetensors; save it as safetensors")
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
    # As peft reads them: expressions for the end of a name, from a dot on.
    fits = (a for p, a in patterns.items() if re.match(rf"(.*\.)?({p})$", module))
    alpha = next(fits, settings["lora_alpha"])
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
