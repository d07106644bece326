"""A scorer in this process as a ScoringPool, for tests without replicas and without Ray."""

from rerank_core import ScorerConfig, load_scorer
from serve_app.pool import LoadedModel, OtherModel, UnitScores


class LocalPool:
    """Scores each unit when it comes, on the event loop, and keeps it in `units`."""

    def __init__(self, scorer=None, calibration=None):
        if scorer is None or isinstance(scorer, ScorerConfig):
            scorer = load_scorer(scorer or ScorerConfig(model="lexical"))
        self.scorer = scorer
        self.model = LoadedModel(scorer.info, calibration)
        self.units = []

    async def score(self, unit):
        """Score a unit; the times are made up: 1 ms of waiting, 2 ms of scoring."""
        self.units.append(unit)
        if unit.fingerprint not in ("", self.model.fingerprint):
            raise OtherModel("the unit is meant for another model")
        scores = self.scorer.score(unit.pairs)
        return UnitScores(scores, self.model, queue_s=0.001, inference_s=0.002)

    def has_other(self, unit):
        """There is one scorer."""
        return False

    async def loaded(self):
        """Return what was loaded."""
        return self.model

    async def reports(self):
        """Return nothing: it measures nothing."""
        return []
