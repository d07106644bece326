"""From raw scores to probabilities: fitted on labels, kept in a small JSON file.

It does not know scorers; `python -m rerank_core.calibrate` loads one, scores pairs and fits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rerank_core.errors import InvalidRequest
from rerank_core.ranking import activate
from rerank_core.types import Float32s

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """probability = sigmoid(slope * raw + offset); `fingerprint` is of the scorer it was fitted on.

    `slope` is positive, so that calibrating never changes an order.
    """

    slope: float
    offset: float
    fingerprint: str
    pairs: int

    def apply(self, raw: Float32s) -> Float32s:
        """Return one probability per raw score; NaN stays NaN."""
        return activate((raw * self.slope + self.offset).astype(np.float32), "sigmoid")

    def save(self, path: str | Path) -> None:
        """Write the file that `ScorerConfig.calibration` names."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, fingerprint: str) -> Calibration:
        """Read the file; one fitted on another scorer is InvalidRequest."""
        try:
            found = cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InvalidRequest(
                f"calibration {str(path)!r} cannot be read ({type(error).__name__}); fit it with"
                " python -m rerank_core.calibrate",
                "calibration",
            ) from error
        if found.fingerprint != fingerprint:
            raise InvalidRequest(
                f"calibration {str(path)!r} was fitted on another scorer ({found.fingerprint}, this"
                f" one is {fingerprint}); fit it again with this model, dtype and max_length",
                "calibration",
            )
        return found


def fit(
    raw: Sequence[float] | Float32s,
    labels: Sequence[int],
    fingerprint: str,
    method: str = "platt",
) -> Calibration:
    """Fit by maximum likelihood: `platt` slope and offset, `temperature` the slope alone.

    Labels are 0 or 1, both must occur. Platt's own smoothed targets keep it finite where the
    scores separate the labels. Raises InvalidRequest for anything else, also where scores do not
    rise with relevance.
    """
    scores = np.asarray(raw, dtype=np.float64)
    wanted = np.asarray(labels, dtype=np.float64)
    if len(scores) != len(wanted) or not np.isin(wanted, (0, 1)).all():
        raise InvalidRequest("labels must be 0 or 1, one for each score", "label")
    positive = int(wanted.sum())
    if positive in (0, len(wanted)):
        raise InvalidRequest("labels of both kinds are needed, relevant and irrelevant", "label")
    if method not in ("platt", "temperature"):
        raise InvalidRequest(f"unknown method {method!r}; use platt or temperature", "method")
    negative = len(wanted) - positive
    targets = np.where(wanted == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    columns = [scores] if method == "temperature" else [scores, np.ones_like(scores)]
    weights = _newton(np.stack(columns, axis=1), targets)
    if not weights[0] > 0:
        raise InvalidRequest("scores do not rise with relevance; check the labels", "label")
    offset = float(weights[1]) if method == "platt" else 0.0
    return Calibration(float(weights[0]), offset, fingerprint, len(scores))


def _newton(columns: Floats, targets: Floats) -> Floats:
    """Minimise the log loss of sigmoid(columns @ weights), with steps that never raise it."""
    weights = np.zeros(columns.shape[1])
    loss = _log_loss(columns, targets, weights)
    for _ in range(100):
        chances = _sigmoid(columns @ weights)
        slope = columns.T @ (chances - targets)
        curve = (columns * (chances * (1 - chances))[:, None]).T @ columns
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(weights)), slope)
        size = 1.0
        while size > 1e-6 and _log_loss(columns, targets, weights - size * step) > loss:
            size /= 2
        weights = weights - size * step
        before, loss = loss, _log_loss(columns, targets, weights)
        if before - loss < 1e-10:
            break
    return weights


def _log_loss(columns: Floats, targets: Floats, weights: Floats) -> float:
    margin = columns @ weights
    return float(np.mean(np.logaddexp(0, margin) - targets * margin))


def _sigmoid(x: Floats) -> Floats:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))
