"""The deployment that is gateway and scorer in one, as a plain class."""

import asyncio
import threading

import pytest

from rerank_core import ModelUnavailable, QueryDocumentPair, load_scorer
from serve_app.application import GatewayDeployment
from serve_app.config import ServeConfig
from serve_app.pool import ReplicaLost, WorkUnit

# What Serve wraps around it wants a running Serve.
Deployment = GatewayDeployment.__mro__[1]
UNIT = WorkUnit.of([QueryDocumentPair("q", "q")], 4, "caller", 5.0)


class Scorer:
    """The lexical one, held or broken where a test says so."""

    def __init__(self, config):
        self._inner = load_scorer(config)
        self.info = self._inner.info
        self.may_end = threading.Event()
        self.may_end.set()
        self.error = None

    def score(self, pairs):
        assert self.may_end.wait(20)
        if self.error:
            raise self.error
        return self._inner.score(pairs)


@pytest.fixture
def fused():
    """Returns a fused deployment, its replica and its scorer; call it inside an event loop."""

    def build():
        config = ServeConfig(scorer={"model": "lexical"}, warm_up=False, batching={"stall_s": 0.05})
        deployment = Deployment(config, Scorer)
        (replica,) = deployment._scorers
        return deployment, replica, replica._scorer

    return build


def test_a_fused_deployment_is_unhealthy_while_a_pass_hangs(fused):
    async def go():
        deployment, replica, scorer = fused()
        await deployment.check_health()
        scorer.may_end.clear()
        hanging = asyncio.create_task(replica.score(UNIT))
        await asyncio.sleep(0.2)
        try:
            with pytest.raises(RuntimeError, match="a pass has been running"):
                await deployment.check_health()
        finally:
            scorer.may_end.set()
            await hanging
        # Its caller has the answer a moment before the scoring thread says that it is idle.
        while replica._batcher.state().running_callers:
            await asyncio.sleep(0.001)
        await deployment.check_health()

    asyncio.run(go())


def test_a_fused_deployment_is_unhealthy_for_good_once_its_scorer_has_failed(fused):
    async def go():
        deployment, replica, scorer = fused()
        scorer.error = ModelUnavailable("the device is lost")
        with pytest.raises(ReplicaLost, match="device is lost"):
            await replica.score(UNIT)
        scorer.error = None
        with pytest.raises(RuntimeError, match="failed for good"):
            await deployment.check_health()

    asyncio.run(go())
