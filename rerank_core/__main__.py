"""Rank documents for a query in the terminal: bars, tokens and timing; `--json` for machines.

python -m rerank_core --query "capital of China" "Beijing is the capital." "Bananas are yellow."
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from rerank_core.config import ScorerConfig
from rerank_core.errors import RerankError
from rerank_core.reranker import Reranker
from rerank_core.scorers import load_scorer
from rerank_core.types import Candidate, RerankRequest, RerankResult, Scorer

_BAR_WIDTH = 20
# The options that are fields of ScorerConfig, by the same names.
_SCORER_OPTIONS = ("model", "revision", "device", "dtype", "max_length", "max_batch_tokens")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 ranked, 2 bad input or no model."""
    options = _parser().parse_args(arguments)
    try:
        config = ScorerConfig.model_validate(
            {
                name: value
                for name in _SCORER_OPTIONS
                if (value := getattr(options, name)) is not None
            }
        )
        documents = _documents(options)
        started_s = time.perf_counter()
        scorer = load_scorer(config)
        loaded_s = time.perf_counter()
        candidates = tuple(Candidate(str(i), text) for i, text in enumerate(documents))
        request = RerankRequest(options.query, candidates, options.top_k)
        (result,) = Reranker(scorer).rerank([request])
        scored_s = time.perf_counter()
    except ValidationError as error:
        return _refuse("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors()))
    except (RerankError, OSError, UnicodeDecodeError) as error:
        return _refuse(str(error))
    timing = {"load_s": loaded_s - started_s, "rerank_s": scored_s - loaded_s}
    if options.json:
        print(_as_json(options.query, result, scorer, timing))
    else:
        print(_as_text(documents, result, scorer, timing))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m rerank_core", description=__doc__.split("\n")[0])
    parser.add_argument("documents", nargs="*", metavar="DOC", help="documents; `-`: from stdin")
    parser.add_argument("--query", required=True)
    parser.add_argument("--file", type=Path, help="a file with one document a line")
    parser.add_argument("--top-k", type=int, help="how many to show (all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", help="embedded, lexical, a folder or a Hugging Face id")
    parser.add_argument("--revision", help="commit of a Hugging Face model")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--dtype", help="float32, bfloat16, float16")
    parser.add_argument("--max-length", type=int, help="tokens of a pair that the model reads")
    parser.add_argument("--max-batch-tokens", type=int, help="tokens in one forward pass")
    return parser


def _documents(options: argparse.Namespace) -> list[str]:
    documents: list[str] = []
    for document in options.documents:
        documents += sys.stdin.read().splitlines() if document == "-" else [document]
    if options.file:
        documents += options.file.read_text(encoding="utf-8").splitlines()
    return [document for document in documents if document.strip()]


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _as_json(query: str, result: RerankResult, scorer: Scorer, timing: dict[str, float]) -> str:
    body = {
        "query": query,
        **dataclasses.asdict(result),
        "scorer": dataclasses.asdict(scorer.info),
        **{name: round(value, 4) for name, value in timing.items()},
    }
    return json.dumps(body, ensure_ascii=False, allow_nan=False)


def _as_text(
    documents: list[str], result: RerankResult, scorer: Scorer, timing: dict[str, float]
) -> str:
    room = max(30, shutil.get_terminal_size((100, 20)).columns - _BAR_WIDTH - 16)
    lines = []
    for hit in result.ranked:
        # Scores of a model without a sigmoid may lie outside 0..1; the bar then stops at its ends.
        filled = round(_BAR_WIDTH * min(1.0, max(0.0, hit.score)))
        bar = "█" * filled + "·" * (_BAR_WIDTH - filled)
        mark = " (truncated)" if hit.truncated else ""
        lines.append(
            f"{hit.rank:>3}  {hit.score:7.4f} {bar}  {_cut(documents[hit.index], room)}{mark}"
        )
    lines += [f"  -  not scored: document {miss.index}: {miss.reason}" for miss in result.failed]
    info = scorer.info
    lines.append(
        f"{len(documents)} documents, {result.tokens} tokens in {timing['rerank_s'] * 1000:.0f} ms"
        f" (model loaded in {timing['load_s']:.1f} s): {info.model}, {info.backend},"
        f" {info.device}, {info.dtype}"
    )
    return "\n".join(lines)


def _cut(text: str, columns: int) -> str:
    """Shorten to terminal columns; an ideograph takes two."""
    used, out = 0, ""
    for letter in " ".join(text.split()):
        used += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if used > columns:
            return out + "…"
        out += letter
    return out


if __name__ == "__main__":
    sys.exit(main())
