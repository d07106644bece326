"""Ten times the load that a replica can bear: goodput stays, latency stays, the rest is told so.

The gateway over HTTP, the core's batcher, and a scorer that takes tokens / rate seconds; no Ray.
"""

import asyncio

import pytest

from benchmarks.open_loop import done_per_s, keep_busy, send_at_rate, summarise
from benchmarks.simulated_scorer import SimulatedScorer
from rerank_core import ScorerConfig
from rerank_core.batcher import MicroBatcher
from serve_app.config import ServeConfig
from serve_app.gateway import Gateway
from serve_app.pool import LoadedModel, ReplicaReport, UnitScores

pytestmark = pytest.mark.slow

# About 640 tokens for gateway and scorer alike, a seventh of a second of work.
BODY = {"query": "what is it", "documents": ["word " * 26 + str(i) for i in range(20)]}
TOKENS_PER_S = 4500.0


class OneReplica:
    """A pool of one simulated replica in this process."""

    def __init__(self):
        self.scorer = SimulatedScorer(ScorerConfig(model="lexical"), TOKENS_PER_S, 0.002)
        self.batcher = MicroBatcher(
            self.scorer.score,
            merge_tokens=700,
            max_queued_tokens=10**9,
            tokens_per_s=TOKENS_PER_S,
        )

    async def score(self, unit):
        scored = await self.batcher.submit(
            unit.pairs, unit.cost, caller=unit.caller, timeout_s=unit.timeout_s
        )
        model, (report,) = LoadedModel(self.scorer.info), await self.reports()
        return UnitScores(scored.scores, model, scored.queue_s, scored.inference_s, report)

    def has_other(self, unit):
        return False

    async def reports(self):
        # There is one gateway: what it holds is not news.
        return [ReplicaReport("one", self.batcher.tokens_per_s, tokens_held=0.0)]

    async def loaded(self):
        return LoadedModel(self.scorer.info)


@pytest.fixture
def url(serve_over_http):
    admission = {"max_wait_s": 0.5, "min_requests": 2}
    config = ServeConfig.model_validate({"model": "lexical", "admission": admission})
    pool = OneReplica()
    with serve_over_http(Gateway(config, {"lexical": pool})) as base:
        yield f"{base}/v2/rerank"
    pool.batcher.close()


def test_at_ten_times_the_load_goodput_and_latency_stay_and_the_rest_gets_a_429(url):
    capacity = done_per_s(asyncio.run(keep_busy(url, [BODY], 3, 5.0)), 1.0)
    calm = summarise(asyncio.run(send_at_rate(url, [BODY], capacity * 0.9, 6.0)), 6.0)
    samples = asyncio.run(send_at_rate(url, [BODY], capacity * 10, 6.0))
    refused = [sample for sample in samples if sample.status == 429]
    found = summarise(samples, 6.0)
    assert found.failed == 0
    assert len(refused) > len(samples) / 2
    assert all(int(sample.retry_after) >= 1 for sample in refused)
    assert done_per_s(samples) > 0.9 * capacity
    assert found.p99_ms < 2 * calm.p99_ms
