"""Who is measured: ours through the public API, and sentence-transformers' predict at its best."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.machine import seconds_of
from benchmarks.gpu.session import Session
from benchmarks.pair_mixes import Pair
from rerank_core import LoadedScorer, QueryDocumentPair, ScorerConfig, load_scorer

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Settings that ship off because no GPU has judged them, and the seconds that each takes to start.
SWITCHES = {"graphs": 10, "compile": 40}


def ours(session: Session, folder: Path, **settings: Any) -> LoadedScorer:
    """Load our scorer as a user would, and warm it up as both front ends do."""
    wanted = {"device": session.device, "dtype": session.dtype, "self_check": False} | settings
    if session.dry:
        # Warming up fills the longest pair: seconds at 8,192 tokens on one core.
        wanted["max_length"] = 256
    scorer = load_scorer(ScorerConfig(model=str(folder), **wanted))
    scorer.warm_up()
    return scorer


def switches(session: Session) -> dict[str, tuple[dict[str, Any], float]]:
    """Return the variants of ours by name, each with its settings and the seconds it must have."""
    found: dict[str, tuple[dict[str, Any], float]] = {"ours": ({}, 0)}
    for name, need_s in SWITCHES.items():
        found[f"ours, {name}"] = {name: True}, 0 if session.dry else need_s
    return found


def pairs_of(texts: Sequence[Pair]) -> list[QueryDocumentPair]:
    """Return texts as our scorer takes them."""
    return [QueryDocumentPair(query, document) for query, document in texts]


@contextlib.contextmanager
def freed() -> Iterator[None]:
    """Give the device's memory back afterwards: the next scorer's figures must not share it."""
    yield
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def predictor(
    session: Session, folder: Path, dtype: str | None = None, attention: str = "sdpa"
) -> CrossEncoder:
    """Load sentence-transformers' reranker."""
    # It takes seconds to import, and tests of other parts read this module.
    from sentence_transformers import CrossEncoder

    options = {"dtype": DTYPES[dtype or session.dtype], "attn_implementation": attention}
    return CrossEncoder(str(folder), device=session.device, model_kwargs=options)


def predict(encoder: CrossEncoder, batch_size: int) -> Callable[[Sequence[Pair]], Any]:
    """Return a function that scores texts, raw."""

    def score(texts: Sequence[Pair]) -> Any:
        return encoder.predict(
            list(texts),
            batch_size=batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )

    return score


def compile_predict(encoder: CrossEncoder, backend: str) -> None:
    """Compile predict's model for rectangles of any size.

    predict asks for the model's `forward` by name, so `model.compile()` would change nothing.
    """
    model: Any = encoder.transformers_model
    model.forward = torch.compile(model.forward, dynamic=True, backend=backend)


def compiled_graphs() -> int:
    """Return how many graphs torch has compiled in this process; 0 says that compiling failed."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def attentions() -> list[str]:
    """Return the attention implementations that predict can be given here."""
    flash = importlib.util.find_spec("flash_attn") is not None
    return ["sdpa", "flash_attention_2"] if flash else ["sdpa"]


def best_predict(session: Session, folder: Path, texts: Sequence[Pair]) -> dict[str, Any]:
    """Return predict's fastest settings on these texts, with all that were tried, in seconds."""
    tried: dict[str, float] = {}
    best: dict[str, Any] = {}
    dtypes = ["bfloat16", "float16"] if session.dtype == "bfloat16" else [session.dtype]
    for attention in attentions():
        for dtype in dtypes:
            with freed():
                encoder = predictor(session, folder, dtype, attention)
                predict(encoder, 32)(texts[:32])
                for size in session.sizes.batch_sizes:
                    score = predict(encoder, size)
                    taken = seconds_of(session.device, lambda score=score: score(texts))
                    tried[f"{attention}, {dtype}, {size}"] = round(taken, 4)
                    if not best or taken < best["seconds"]:
                        best = {"attention": attention, "dtype": dtype, "batch_size": size}
                        best["seconds"] = taken
                del encoder, score
    return {**best, "seconds": round(best["seconds"], 4), "tried_s": tried}
