"""How many tokens of a pair a model can read, as its small files say it. No tokenizer is asked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rerank_core.catalog.checkpoint import Checkpoint
from rerank_core.catalog.families import Family
from rerank_core.limits import usable_length

if TYPE_CHECKING:
    from rerank_core.config import ScorerConfig

# Where neither the tokenizer nor the model names a limit.
_UNSAID_LENGTH = 512
# Types whose positions start behind the padding token's id.
_PADDED_POSITIONS = frozenset({
    "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer",
    "roberta-prelayernorm", "xmod", "data2vec-text", "ibert", "luke", "mluke", "esm",
})  # fmt: skip
# Types whose positions are relative: the table, where there is one, is no limit.
_RELATIVE_POSITIONS = frozenset({"t5", "mt5", "umt5", "xlnet"})


def longest_pair(
    config: ScorerConfig, checkpoint: Checkpoint, settings: Any, family: Family | None
) -> int:
    """Return the least of what config, family, tokenizer and table of positions allow."""
    text = settings.get("text_config") or settings
    kind = str(settings.get("model_type", ""))
    positions = _number(text, "max_position_embeddings") or _number(text, "n_positions")
    if kind in _RELATIVE_POSITIONS:
        positions = _number(text, "n_positions")
    if positions and kind in _PADDED_POSITIONS:
        pad = _number(settings, "pad_token_id")
        positions -= (1 if pad is None else pad) + 1
    if family is not None:
        limits: list[int | None] = [family.max_length, positions]
    else:
        said = _number(checkpoint.json("tokenizer_config.json"), "model_max_length")
        modules = _number(checkpoint.json("sentence_bert_config.json"), "max_seq_length")
        limits = [said, positions, modules]
    known = [limit for limit in limits if limit and 0 < limit < 10**9]
    return usable_length(config.max_length, *(known or [_UNSAID_LENGTH]))


def _number(settings: Any, name: str) -> int | None:
    """Return what a file says, also as a string of digits; None where it names no limit."""
    found = settings.get(name)
    if isinstance(found, str) and found.isdecimal():
        return int(found)
    if found is None or isinstance(found, int | float):
        # An infinity is how "no limit" is written, too.
        return int(found) if found is not None and math.isfinite(found) else None
    raise ValueError(f"{name} is {found!r}, which is no number")
