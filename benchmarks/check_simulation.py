"""The simulation against the real service: the same load, the same figures, side by side.

python benchmarks/check_simulation.py [--replicas 1 2 4] [--seconds 15]

HTTP, Ray, routing, admission and batching are real; a pass sleeps for a fixed time plus
tokens / rate, as the simulation assumes, so a difference is a fault of the policies written down in
simulate.py and not of a model's speed. Settings are those that ship, but for the number of
replicas. First three times what the replicas can bear, for throughput; then 60 % of it, for
latency. Ends in one JSON line; 1 when throughput is further off than --within.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.about import measured_on
from benchmarks.local_serve import deploy, local_serve
from benchmarks.open_loop import done_per_s, keep_busy, send_at_rate, summarise
from benchmarks.service_model import Load, Outcome, Replicas, Service, shipped
from benchmarks.simulate import simulate
from benchmarks.simulated_scorer import MAX_BATCH_TOKENS, simulated
from rerank_core import QueryDocumentPair
from serve_app.gateway.units import estimate_tokens

TOKENS_PER_S, FIXED_S = 10_000.0, 0.005
QUERY = "what is it"
DOCUMENTS = ["word " * 20 + str(place) for place in range(100)]
BODY = {"query": QUERY, "documents": DOCUMENTS}
# As SimulatedScorer counts, and as the gateway estimates without a tokenizer.
PAIR_TOKENS = len(QUERY.split()) + len(DOCUMENTS[0].split())
ESTIMATED = sum(estimate_tokens([QueryDocumentPair(QUERY, d) for d in DOCUMENTS], 8192))
CAPACITY_PER_S = TOKENS_PER_S / (PAIR_TOKENS * len(DOCUMENTS))
# Everything in the service counts estimated tokens, its replicas' rates too.
IN_ESTIMATED = ESTIMATED / (PAIR_TOKENS * len(DOCUMENTS))


def predicted(rate: float, replicas: int, seconds: float) -> Outcome:
    """Play the load against the simulation."""
    load = Load(rate, len(DOCUMENTS), PAIR_TOKENS * IN_ESTIMATED, spread=0, duration_s=seconds)
    service = Service(TOKENS_PER_S * IN_ESTIMATED, FIXED_S, max_batch_tokens=MAX_BATCH_TOKENS)
    return simulate(load, service, Replicas(replicas, replicas))


def compare(url: str, replicas: int, seconds: float) -> dict[str, Any]:
    """Deploy so many replicas, load them, and return measured and simulated figures."""
    number = {"min_replicas": replicas, "max_replicas": replicas}
    deploy(url, shipped(scaling=number).model_dump(), simulated(TOKENS_PER_S, FIXED_S))
    path = f"{url}/v2/rerank"
    asyncio.run(keep_busy(path, [BODY], 4 * replicas, min(4.0, seconds)))
    capacity = CAPACITY_PER_S * replicas
    flood = asyncio.run(send_at_rate(path, [BODY], 3 * capacity, seconds))
    calm = asyncio.run(send_at_rate(path, [BODY], 0.6 * capacity, seconds))
    full, part = (predicted(share * capacity, replicas, seconds) for share in (3, 0.6))
    measured_per_s = done_per_s(flood, seconds / 4)
    # A fixed number of replicas, so their seconds say how long the run took.
    simulated_per_s = len(full.latencies) / (full.replica_s / replicas)
    return {
        "requests_per_s": round(measured_per_s, 2),
        "simulated_requests_per_s": round(simulated_per_s, 2),
        "simulated_over_measured": round(simulated_per_s / measured_per_s, 3),
        "p50_ms": summarise(calm, seconds).p50_ms,
        "simulated_p50_ms": part.summary()["p50_ms"],
    }


def main() -> int:
    """Print a line for each number of replicas and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each of the two loads")
    parser.add_argument("--within", type=float, default=0.15, help="share that throughput may err")
    options = parser.parse_args()
    found: dict[int, dict[str, Any]] = {}
    with local_serve(gpus=max(options.replicas)) as url:
        for replicas in options.replicas:
            found[replicas] = compare(url, replicas, options.seconds)
            print(f"{replicas} replicas: {found[replicas]}")
    print(json.dumps({"benchmark": "check_simulation", **measured_on(), "replicas": found}))
    errors = [abs(row["simulated_over_measured"] - 1) for row in found.values()]
    return int(max(errors) > options.within)


if __name__ == "__main__":
    sys.exit(main())
