"""Rank documents for a query in the terminal: bars, tokens and timing; `--json` for machines.

rerank --query "capital of China" "Beijing is the capital." "Bananas are yellow."

`python -m rerank_core` is the same command. Every field of ScorerConfig is an option, so that a
model can be tried as it will be served.
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

from rerank_core.errors import RerankError
from rerank_core.options import add_scorer_options
from rerank_core.reranker import Reranker, check_request
from rerank_core.types import RankedCandidate, RerankRequest, RerankResult, ScorerInfo

_BAR_WIDTH = 20
_LIMITS = ("top_k", "score_threshold", "max_tokens_per_query", "max_tokens_per_doc")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 ranked, 2 bad input or no model."""
    parser = _parser()
    scorer_config = add_scorer_options(parser)
    options = parser.parse_args(arguments)
    try:
        config = scorer_config(options)
        documents = _documents(options)
        limits = {name: getattr(options, name) for name in _LIMITS}
        # A wrong limit is said now, not after a large model has been loaded.
        check_request(RerankRequest(options.query, (), **limits))
        started_s = time.perf_counter()
        reranker = Reranker.load(config)
        loaded_s = time.perf_counter()
        result = reranker.rank(options.query, documents, **limits)
        scored_s = time.perf_counter()
    except (RerankError, OSError, UnicodeDecodeError) as error:
        return _refuse(str(error))
    timing = {"load_s": loaded_s - started_s, "rerank_s": scored_s - loaded_s}
    if options.json:
        print(_as_json(options.query, result, reranker.scorer.info, timing))
    else:
        print(_as_text(documents, result, reranker.scorer.info, timing))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "rerank", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("documents", nargs="*", metavar="DOC", help="documents; `-`: from stdin")
    parser.add_argument("--query", required=True)
    parser.add_argument("--file", type=Path, help="a file with one document a line")
    parser.add_argument("--top-k", type=int, help="how many to show (all)")
    parser.add_argument("--score-threshold", type=float, help="leave out scores below")
    parser.add_argument("--max-tokens-per-query", type=int, help="read no more of the query")
    parser.add_argument("--max-tokens-per-doc", type=int, help="read no more of each document")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _documents(options: argparse.Namespace) -> list[str]:
    documents: list[str] = []
    for document in options.documents:
        documents += sys.stdin.read().split("\n") if document == "-" else [document]
    if options.file:
        documents += options.file.read_text(encoding="utf-8").split("\n")
    return [document for document in documents if document.strip()]


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _as_json(query: str, result: RerankResult, info: ScorerInfo, timing: dict[str, float]) -> str:
    body = {
        "query": query,
        **dataclasses.asdict(result),
        "scorer": dataclasses.asdict(info),
        **{name: round(value, 4) for name, value in timing.items()},
    }
    return json.dumps(body, ensure_ascii=False, allow_nan=False)


def _as_text(
    documents: Sequence[str], result: RerankResult, info: ScorerInfo, timing: dict[str, float]
) -> str:
    room = max(30, shutil.get_terminal_size((100, 20)).columns - _BAR_WIDTH - 16)
    lines = [_line(hit, documents[hit.index], room) for hit in result.ranked]
    lines += [f"  -  not scored: document {miss.index}: {miss.reason}" for miss in result.failed]
    lines.append(
        f"{len(documents)} documents, {result.tokens} tokens in {timing['rerank_s'] * 1000:.0f} ms"
        f" (model loaded in {timing['load_s']:.1f} s): {info.model}, {info.backend},"
        f" {info.device}, {info.dtype}"
    )
    return "\n".join(lines)


def _line(hit: RankedCandidate, text: str, room: int) -> str:
    # Scores of a model without a sigmoid may lie outside 0..1; the bar then stops at its ends.
    filled = round(_BAR_WIDTH * min(1.0, max(0.0, hit.score)))
    bar = "█" * filled + "·" * (_BAR_WIDTH - filled)
    chance = "" if hit.calibrated_score is None else f"{hit.calibrated_score:4.0%}  "
    mark = " (truncated)" if hit.truncated else ""
    if hit.passage is not None:
        text = text[slice(*hit.passage)]
        mark = f" (characters {hit.passage[0]}-{hit.passage[1]})" + mark
    return f"{hit.rank:>3}  {hit.score:7.4f} {bar}  {chance}{_cut(text, room)}{mark}"


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
