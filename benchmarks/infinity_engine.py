"""infinity-emb's engine behind two pipes, for an interpreter that has it and not our packages.

A line in: a JSON list of [query, document]. A line out: raw scores in that order.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

# Libraries print; only answers may reach the pipe.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from infinity_emb import AsyncEmbeddingEngine, EngineArgs  # type: ignore # noqa: E402


async def main(model: str, device: str, dtype: str) -> None:
    """Serve until the pipe closes."""
    arguments = EngineArgs(
        model_name_or_path=model,
        engine="torch",
        device=device,
        dtype=dtype,
        # Its own default, nested tensors, does not work with torch from 2.5 on.
        bettertransformer=False,
        compile=False,
        model_warmup=False,
        trust_remote_code=False,
    )
    engine = AsyncEmbeddingEngine.from_args(arguments)
    async with engine:
        answer({"ready": True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            pairs = json.loads(line)
            places: dict[str, list[int]] = {}
            for place, (query, _) in enumerate(pairs):
                places.setdefault(query, []).append(place)
            calls = [
                engine.rerank(query=query, docs=[pairs[i][1] for i in where], raw_scores=True)
                for query, where in places.items()
            ]
            scores = [0.0] * len(pairs)
            for where, (ranked, _) in zip(
                places.values(), await asyncio.gather(*calls), strict=True
            ):
                for hit in ranked:
                    scores[where[hit.index]] = float(hit.relevance_score)
            answer(scores)


def answer(value: object) -> None:
    """Write one line."""
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
