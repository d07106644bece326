"""What comes out of a model: how many outputs, which of two means relevant, which activation.

It does not know torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_core.catalog.checkpoint import WEIGHTS, Checkpoint
from rerank_core.errors import ModelUnavailable

if TYPE_CHECKING:
    from rerank_core.config import ScorerConfig

_HEADS = ("classifier.weight", "score.weight", "out_proj.weight", "classification_head.weight",
          "logits_proj.weight")  # fmt: skip
_YES = frozenset({"yes", "true", "relevant", "positive", "1"})
_NO = frozenset({"no", "false", "irrelevant", "not_relevant", "not relevant", "non-relevant",
                 "negative", "0"})  # fmt: skip


def output_count(checkpoint: Checkpoint, settings: Any) -> int:
    """Return what the config says, else the rows of the head in the weights' file, else one."""
    if settings.get("num_labels") or settings.get("id2label"):
        return int(settings.get("num_labels") or len(settings["id2label"]))
    shards = checkpoint.shards()
    heads = {shard for weight, shard in shards.items() if weight.endswith(_HEADS)}
    for shard in heads if shards else {WEIGHTS}:
        path = checkpoint.file(shard)
        for weight, entry in (_header(path) if path else {}).items():
            if weight.endswith(_HEADS) and len(entry["shape"]) == 2:
                return int(entry["shape"][0])
    return 1


def _header(path: Path) -> Any:
    """Read the JSON in front of a safetensors file; empty for a damaged one, told at loading."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            return json.loads(file.read(size)) if size < 10**8 else {}
        except ValueError:
            return {}


def positive_label(
    config: ScorerConfig, checkpoint: Checkpoint, settings: Any, outputs: int, no_then_yes: bool
) -> int | None:
    """Return which of two outputs means relevant, None where there is one.

    `no_then_yes` says that the order is known: a language model's answers, converted.
    """
    # By number: JSON's own order is only that in which they were written.
    labels = sorted(
        (int(number), str(name)) for number, name in (settings.get("id2label") or {}).items()
    )
    names = [name for _, name in labels]
    asked = config.positive_label
    if outputs == 1:
        if asked is not None:
            raise ModelUnavailable(
                f"model {config.model!r} has one output per pair; leave `positive_label` out"
            )
        return None
    names = names if len(names) == outputs else [f"LABEL_{i}" for i in range(outputs)]
    if outputs > 2:
        raise ModelUnavailable(
            f"model {config.model!r} has {outputs} outputs per pair ({', '.join(names[:6])}); a"
            " reranker has one, or two. It is probably a classifier for another task"
        )
    if asked is not None:
        found = [i for i in (0, 1) if asked in (names[i], str(i))]
        if not found:
            raise ModelUnavailable(f"`positive_label` {asked!r} is none of {', '.join(names)}")
        return found[0]
    spelled = [name.lower() for name in names]
    for place in (0, 1):
        if spelled[place] in _YES and spelled[1 - place] in _NO:
            return place
    if no_then_yes:
        return 1
    raise ModelUnavailable(
        f"model {config.model!r} has two outputs per pair ({', '.join(names)}), and nothing says"
        " which means relevant; set `positive_label` to its name"
    )


def declared_activation(
    config: ScorerConfig, checkpoint: Checkpoint, settings: Any, answers: bool
) -> str:
    """Return `sigmoid` or `identity`: what the config asks for, else what the checkpoint says."""
    if config.activation != "auto":
        return config.activation
    if answers:
        return "sigmoid"
    # sentence-transformers 6 writes it to a file of its own, before that it stood in config.json.
    declared = (
        checkpoint.json("config_sentence_transformers.json").get("activation_fn")
        or (settings.get("sentence_transformers") or {}).get("activation_fn")
        or settings.get("sbert_ce_default_activation_function")
    )
    kind = str(declared or "Sigmoid").rsplit(".", 1)[-1].lower()
    if kind not in ("sigmoid", "identity"):
        raise ModelUnavailable(
            f"model {config.model!r} declares the activation {declared!r}, which is unknown here;"
            " set `activation` to sigmoid or identity"
        )
    return kind
