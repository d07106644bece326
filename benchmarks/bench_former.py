"""Our scorer against itself at an earlier commit: the same pairs, in turns, each in its process.

git worktree add ../former COMMIT
python benchmarks/bench_former.py ../former                     the embedded model, float32
python benchmarks/bench_former.py ../former --dtype int8 --mixes short --requests --rounds 9

Ratios are medians over rounds of the former's seconds of CPU against ours in the same round: above
1 ours is faster. Both run in this interpreter, with this checkout's dependencies. Ends in one JSON
line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def engine(checkout: str, settings: str) -> None:
    """Answer lines of pairs with raw scores and the seconds of CPU that they took."""
    sys.path.insert(0, checkout)
    # Libraries print; only answers may reach the pipe.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import rerank_core

    assert Path(str(rerank_core.__file__)).is_relative_to(checkout), rerank_core.__file__
    scorer = rerank_core.load_scorer(rerank_core.ScorerConfig(**json.loads(settings)))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        pairs = [rerank_core.QueryDocumentPair(*pair) for pair in json.loads(line)]
        begun = time.process_time()
        scores = scorer.score(pairs).raw.tolist()
        answer = {"scores": scores, "cpu_s": time.process_time() - begun}
        print(json.dumps(answer), file=answers, flush=True)


def compare(sides: dict[str, Any], pairs: Sequence[Any], rounds: int) -> dict[str, Any]:
    """Return the median ratio, each round's, both sides' seconds, and how far scores are apart."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    scores: dict[str, list[float]] = {}
    for turn in range(-1, rounds):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            answer = sides[name].ask(list(pairs))
            scores[name] = answer["scores"]
            if turn >= 0:
                taken[name].append(answer["cpu_s"])
    ratios = [a / b for a, b in zip(taken["former"], taken["ours"], strict=True)]
    return {
        "pairs": len(pairs),
        "former_over_ours": round(statistics.median(ratios), 4),
        "rounds": [round(ratio, 4) for ratio in ratios],
        **{f"{name}_s": round(statistics.median(s), 4) for name, s in taken.items()},
        "difference": max(
            abs(a - b) for a, b in zip(scores["former"], scores["ours"], strict=True)
        ),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Start both sides and compare them on each mix and request."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.about import measured_on
    from benchmarks.gpu.shapes import texts
    from benchmarks.pair_mixes import MIXES
    from benchmarks.scorer_rivals import Apart
    from rerank_core.config import EMBEDDED_MODEL_DIR

    cut = texts(EMBEDDED_MODEL_DIR, 470)
    asked = {name: cut.pool(MIXES[name], options.tokens, seed=1) for name in options.mixes}
    for count in options.requests:
        asked[f"request of {count}"] = cut.request(count, MIXES["mixed"], seed=2)
    settings = {"model": "embedded", "device": "cpu", "dtype": options.dtype, "self_check": False}
    wanted = json.dumps(settings | {"threads": options.threads})
    command = (sys.executable, str(Path(__file__).resolve()), "--engine")
    places = {"ours": ROOT, "former": options.former.resolve()}
    sides = {name: Apart(*command, str(place), wanted) for name, place in places.items()}
    try:
        found = {}
        for name, pairs in asked.items():
            found[name] = compare(sides, pairs, options.rounds)
            print(f"{name}: {json.dumps(found[name])}", flush=True)
    finally:
        for side in sides.values():
            side.close()
    return {"benchmark": "former", **measured_on(), "settings": settings, "mixes": found}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run, print the JSON line, and return it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("former", type=Path, help="a checkout of the earlier commit")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mixes", nargs="*", default=["short", "chunks", "mixed"])
    parser.add_argument("--requests", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--tokens", type=int, default=15_000, help="of a mix")
    parser.add_argument("--rounds", type=int, default=5)
    result = run(parser.parse_args(arguments))
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    if sys.argv[1:2] == ["--engine"]:
        engine(*sys.argv[2:4])
    else:
        main()
