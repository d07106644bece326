"""Capacity planner: how many GPUs of which kind a load needs, with the settings that ship.

It plays the load against the simulated service (simulate.py) with more and more GPUs until the
slowest percent is fast enough. Give it a measured rate; without one it estimates from data sheets
and says so.

python -m benchmarks.plan --requests-per-s 50 --docs 100 --tokens 300 --p99-ms 500
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.service_model import Load, Replicas, Service
from benchmarks.simulate import simulate
from serve_app.capacity import unit_tokens

# Dense bfloat16 peaks of the vendors' data sheets, in 10^12 operations a second.
DATA_SHEET_TFLOPS = {"L4": 121.0, "A10G": 70.0, "L40S": 362.0, "A100": 312.0, "H100": 989.0}
# What an encoder reaches of it, text in, scores out. An assumption until measured.
ASSUMED_SHARE_OF_PEAK = 0.4
# Fuller than this, one lost GPU or a burst makes a queue that a short trial does not show.
MOST_BUSY = 0.85
# Chance alone refuses more where admission is tight.
MOST_REFUSED = 0.001
MOST_GPUS = 10_000
# Enough that the 99th percentile rests on tens of requests.
REQUESTS_PER_TRIAL = 2_000


@dataclass(frozen=True)
class Encoder:
    """What decides the operations per token: parameters without embeddings, and the shape."""

    body_parameters: float
    layers: int
    hidden: int

    def flops_per_token(self, tokens: float) -> float:
        """Return multiply-adds, counted as two, for one token of a text of this length."""
        return 2 * self.body_parameters + 4 * tokens * self.hidden * self.layers


ENCODERS = {
    "BAAI/bge-reranker-v2-m3": Encoder(303e6, 24, 1024),
    "cross-encoder/ms-marco-MiniLM-L6-v2": Encoder(10.7e6, 6, 384),
}


@dataclass(frozen=True)
class Plan:
    """An answer: the GPUs, and how the load fared with them."""

    kind: str
    tokens_per_s: float
    gpus: int
    p50_ms: float
    p99_ms: float
    # Shares of the requests and of the GPUs' time.
    refused: float
    utilisation: float


def estimated_rate(kind: str, encoder: Encoder, tokens: float) -> float:
    """Return tokens per second from the data sheet: an estimate, good to a factor of two."""
    peak = DATA_SHEET_TFLOPS[kind] * 1e12
    return ASSUMED_SHARE_OF_PEAK * peak / encoder.flops_per_token(tokens)


def plan(kind: str, load: Load, service: Service, p99_s: float, seed: int = 0) -> Plan | None:
    """Find the fewest GPUs that answer `load`, 99 % of it within `p99_s`; None: no number does."""

    def trial(gpus: int) -> Plan:
        outcome = simulate(load, service, Replicas(gpus, gpus), seed=seed)
        return Plan(
            kind,
            service.tokens_per_s,
            gpus,
            p50_ms=1000 * outcome.quantile(0.5),
            p99_ms=1000 * outcome.quantile(0.99),
            refused=1 - outcome.answered_share,
            utilisation=outcome.utilisation,
        )

    def enough(tried: Plan) -> bool:
        in_time = tried.p99_ms <= 1000 * p99_s and tried.refused <= MOST_REFUSED
        return in_time and tried.utilisation <= MOST_BUSY

    request_tokens = load.documents * load.tokens
    unit = min(request_tokens, unit_tokens(service.tokens_per_s, service.max_batch_tokens))
    alone_s = service.overhead_s + service.fixed_s + unit / service.tokens_per_s
    if alone_s > p99_s:
        return None
    offered = load.requests_per_s * request_tokens / service.tokens_per_s
    few = math.ceil(offered / MOST_BUSY) - 1
    many = few + 1
    best = trial(many)
    while not enough(best):
        few, many = many, 2 * many
        if many > MOST_GPUS:
            return None
        best = trial(many)
    while many - few > 1:
        middle = (few + many) // 2
        tried = trial(middle)
        few, many = (few, middle) if enough(tried) else (middle, many)
        best = tried if many == middle else best
    return best


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per kind of GPU and one JSON line; returns 1 when no kind is fast enough."""
    options = _parser().parse_args(arguments)
    load = Load(
        options.requests_per_s,
        options.docs,
        options.tokens,
        duration_s=REQUESTS_PER_TRIAL / options.requests_per_s,
    )
    if options.tokens_per_s:
        rates = {"measured": options.tokens_per_s}
    else:
        encoder = ENCODERS[options.model]
        rates = {kind: estimated_rate(kind, encoder, options.tokens) for kind in DATA_SHEET_TFLOPS}
    plans = {}
    for kind, rate in rates.items():
        service = Service(rate, options.fixed_ms / 1000, options.overhead_ms / 1000)
        plans[kind] = plan(kind, load, service, options.p99_ms / 1000, options.seed)
    print("\n".join(_table(plans, rates, options)))
    figures = [_figures(kind, rates[kind], p, options.spare) for kind, p in plans.items()]
    print(json.dumps({"load": vars(options), "plans": figures}))
    return 0 if any(plans.values()) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--requests-per-s", type=float, required=True, help="at the peak hour")
    parser.add_argument("--docs", type=int, required=True, help="documents in a request")
    parser.add_argument("--tokens", type=float, required=True, help="mean tokens of a pair")
    parser.add_argument("--p99-ms", type=float, required=True, help="for 99 of 100 requests")
    parser.add_argument("--tokens-per-s", type=float, help="of one GPU, as bench_scorer measured")
    parser.add_argument("--model", choices=ENCODERS, default="BAAI/bge-reranker-v2-m3")
    parser.add_argument("--fixed-ms", type=float, default=5, help="of any forward pass")
    parser.add_argument("--overhead-ms", type=float, default=5, help="HTTP and Ray, per request")
    parser.add_argument("--spare", type=int, default=1, help="GPUs that may be lost at the peak")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _table(
    plans: Mapping[str, Plan | None], rates: Mapping[str, float], options: argparse.Namespace
) -> list[str]:
    tokens_per_s = options.requests_per_s * options.docs * options.tokens
    basis = (
        "measured by you"
        if options.tokens_per_s
        else f"estimated: {ASSUMED_SHARE_OF_PEAK:.0%} of the data sheet; measure and pass"
        " --tokens-per-s before you buy"
    )
    lines = [
        f"{options.requests_per_s:g} requests/s of {options.docs} documents, {options.tokens:g}"
        f" tokens each: {tokens_per_s:,.0f} tokens/s, 99 % within {options.p99_ms:g} ms",
        f"Rates are {basis}. GPUs include {options.spare} spare. Simulated, seed {options.seed}.",
        f"{'GPU':<10}{'tokens/s':>12}{'GPUs':>7}{'busy':>7}{'p50 ms':>9}{'p99 ms':>9}",
    ]
    for kind, p in plans.items():
        start = f"{kind:<10}{rates[kind]:>12,.0f}"
        if p is None:
            lines.append(f"{start}   no number: a unit alone is slower")
        else:
            lines.append(
                f"{start}{p.gpus + options.spare:>7}{p.utilisation:>7.0%}{p.p50_ms:>9.0f}"
                f"{p.p99_ms:>9.0f}"
            )
    return lines


def _figures(
    kind: str, rate: float, p: Plan | None, spare: int
) -> dict[str, float | int | str | None]:
    start: dict[str, float | int | str | None] = {"kind": kind, "tokens_per_s": round(rate)}
    if p is None:
        return {**start, "gpus": None}
    return {
        **start,
        "gpus": p.gpus + spare,
        "p50_ms": round(p.p50_ms, 1),
        "p99_ms": round(p.p99_ms, 1),
        "refused": round(p.refused, 5),
        "utilisation": round(p.utilisation, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
