"""Parts on the shape of bge-reranker-v2-m3: a large pool, single requests, the reference table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from benchmarks.gpu import scorers, shapes
from benchmarks.gpu.machine import (
    matmul_flops,
    peak_memory_mb,
    percentiles_ms,
    repeated,
    seconds_of,
    wait,
)
from benchmarks.gpu.session import Session
from benchmarks.pair_mixes import MIXES, Mix, Pair
from rerank_core import Candidate, Reranker, RerankRequest

# Tokens of a pair beside its document: the query and the special ones.
_FRAME = 24


def chunks(session: Session) -> None:
    """Measure a pool of the chunks mix: ours, its share of the matmul peak, predict at its best."""
    folder = shapes.bge_reranker_v2_m3(session)
    longest = 100 if session.dry else 500
    pool = shapes.texts(folder, longest).pool(MIXES["chunks"], session.sizes.pool_tokens, seed=3)
    peak = matmul_flops(session, scorers.DTYPES[session.dtype])
    for name, (settings, need_s) in scorers.switches(session).items():
        measure = partial(_pool, session, folder, pool, settings, peak)
        with scorers.freed():
            session.attempt("chunks", name, measure, need_s)
    _predict_chunks(session, folder, pool)


def _pool(
    session: Session, folder: Any, pool: list[Pair], settings: dict[str, Any], peak: float
) -> dict[str, Any]:
    scorer = scorers.ours(session, folder, **settings)
    pairs = scorers.pairs_of(pool)
    lengths = [int(n) for n in scorer.score(pairs).tokens]
    taken = [seconds_of(session.device, lambda: scorer.score(pairs)) for _ in range(3)]
    seconds = statistics.median(taken)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder))
    flops = shapes.body_flops(model, lengths)
    found = {
        "pairs": len(pairs),
        "tokens": sum(lengths),
        "seconds": [round(s, 4) for s in taken],
        "tokens_s": round(sum(lengths) / seconds),
        "of_peak": round(flops / seconds / peak, 4),
        "peak_tflops": round(peak / 1e12, 1),
        "backend": scorer.info.backend,
        "dtype": scorer.info.dtype,
    }
    return found | _halves(session, scorer, pairs)


def _halves(session: Session, scorer: Any, pairs: Sequence[Any]) -> dict[str, float]:
    """Return what tokenising and running take alone, where this version tells them apart."""
    if not hasattr(scorer, "prepare"):
        return {}
    prepared: list[Any] = []
    tokenise_s = seconds_of(session.device, lambda: prepared.append(scorer.prepare(pairs)))
    run_s = seconds_of(session.device, lambda: scorer.run(prepared[0]))
    return {"prepare_s": round(tokenise_s, 4), "run_s": round(run_s, 4)}


def _predict_chunks(session: Session, folder: Any, pool: list[Pair]) -> None:
    quarter = pool[: max(4, len(pool) // 4)]
    best: dict[str, Any] = {}

    def search() -> dict[str, Any]:
        best.update(scorers.best_predict(session, folder, quarter))
        return best

    def whole(compiled: bool) -> dict[str, Any]:
        encoder = scorers.predictor(session, folder, best["dtype"], best["attention"])
        if compiled:
            scorers.compile_predict(encoder, "eager" if session.dry else "inductor")
        score = scorers.predict(encoder, best["batch_size"])
        first_s = seconds_of(session.device, lambda: score(quarter))
        taken = [seconds_of(session.device, lambda: score(pool)) for _ in range(2)]
        found = {"seconds": round(min(taken), 4), "pairs": len(pool), "first_s": round(first_s, 2)}
        return found | ({"compiled_graphs": scorers.compiled_graphs()} if compiled else {})

    session.attempt("chunks", "predict, its best settings", search)
    if "batch_size" not in best:
        return
    for name, compiled, need_s in (("predict", False, 5), ("predict, compiled", True, 45)):
        with scorers.freed():
            need = 0 if session.dry else need_s
            session.attempt("chunks", name, partial(whole, compiled), need)


def requests(session: Session) -> None:
    """Measure single requests, text to ranking: ours with each switch, predict, a bare graph."""
    folder = shapes.bge_reranker_v2_m3(session)
    texts = shapes.texts(folder, 512)
    asked = {
        f"{documents} x {tokens}": texts.request(documents, Mix("", tokens, 0.0, tokens), seed=1)
        for tokens in session.sizes.document_tokens
        for documents in session.sizes.documents
    }
    for name, (settings, need_s) in scorers.switches(session).items():
        measure = partial(_ours, session, folder, settings, asked)
        with scorers.freed():
            session.attempt("requests", name, measure, need_s)
    with scorers.freed():
        session.attempt("requests", "predict", partial(_predict, session, folder, asked))
    with scorers.freed():
        session.attempt("requests", "launch cost", partial(_launch_cost, session, folder))


def _each(asked: dict[str, list[Pair]], measure: Callable[[list[Pair]], Any]) -> dict[str, Any]:
    return {name: measure(texts) for name, texts in asked.items()}


def _ours(
    session: Session, folder: Any, settings: dict[str, Any], asked: dict[str, list[Pair]]
) -> dict[str, Any]:
    reranker = Reranker(scorers.ours(session, folder, **settings))

    def measure(texts: list[Pair]) -> dict[str, float]:
        candidates = tuple(Candidate(str(i), document) for i, (_, document) in enumerate(texts))
        request = RerankRequest(texts[0][0], candidates)
        return percentiles_ms(repeated(session, lambda: reranker.rerank([request])))

    return _each(asked, measure)


def _predict(session: Session, folder: Any, asked: dict[str, list[Pair]]) -> dict[str, Any]:
    encoder = scorers.predictor(session, folder)

    def at(size: int, texts: list[Pair]) -> dict[str, float]:
        score = scorers.predict(encoder, size)
        return percentiles_ms(repeated(session, lambda: score(texts))) | {"batch_size": size}

    def measure(texts: list[Pair]) -> dict[str, float]:
        # The smaller size only where it differs: below it both are one batch.
        sizes = (32, 128) if len(texts) > 32 else (128,)
        return min((at(size, texts) for size in sizes), key=lambda row: row["p50_ms"])

    return _each(asked, measure)


def _launch_cost(session: Session, folder: Any) -> dict[str, Any]:
    """Return the bare body on 30 x 128 tokens, launched and replayed: the difference is Python."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=scorers.DTYPES[session.dtype], attn_implementation="sdpa"
    )
    body: Any = model.roberta.to(session.device).eval()
    ids = torch.randint(5, 20_000, (2 if session.dry else 30, 128), device=session.device)
    positions = torch.arange(2, 130, device=session.device).expand_as(ids).contiguous()

    def forward() -> object:
        return body(input_ids=ids, position_ids=positions)

    with torch.inference_mode():
        found: dict[str, Any] = {"launched": percentiles_ms(repeated(session, forward))}
        if session.device.startswith("cuda"):
            wait(session.device)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                forward()
            found["replayed"] = percentiles_ms(repeated(session, graph.replay))
    return found


def table(session: Session) -> None:
    """Measure the model family's reference requests: time and device memory."""
    folder = shapes.bge_reranker_v2_m3(session)
    texts = shapes.texts(folder, 8192)
    for dtype in ("bfloat16", "float16") if session.dtype == "bfloat16" else (session.dtype,):
        with scorers.freed():
            scorer = scorers.ours(session, folder, dtype=dtype)
            for documents, tokens in session.sizes.table:
                exact = Mix("", tokens - _FRAME, 0.0, tokens)
                pairs = scorers.pairs_of(texts.request(documents, exact, seed=1))
                measure = partial(_table_row, session, scorer, pairs)
                session.attempt("table", f"{documents} x {tokens}, {dtype}", measure)
            del scorer


def _table_row(session: Session, scorer: Any, pairs: Sequence[Any]) -> dict[str, Any]:
    tokens = int(scorer.score(pairs).tokens.sum())
    memory = peak_memory_mb(session.device, lambda: scorer.score(pairs))
    taken = repeated(session, lambda: scorer.score(pairs))
    return {"tokens": tokens, **percentiles_ms(taken), **memory}
