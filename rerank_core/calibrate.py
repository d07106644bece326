"""Fit a calibration: score labelled pairs with a scorer, and write probabilities' slope and offset.

python -m rerank_core.calibrate --input pairs.jsonl --output calibration.json --model ...

Each line of the input: {"query": ..., "document": ..., "label": 0 or 1}. Give the scorer's options
as it will be served (dtype, max_length, ...): a calibration belongs to one fingerprint. With
`--restamp old.json` instead of `--input`, a file of release 0.1.0 that was fitted on this very
scorer gets the fingerprint of today; nothing is scored.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerank_core.calibration import COMMAND, Calibration, checked, is_of_0_1, read
from rerank_core.config import ScorerConfig
from rerank_core.errors import InvalidRequest, RerankError
from rerank_core.options import add_scorer_options
from rerank_core.ranking import activate
from rerank_core.scorers import load_scorer
from rerank_core.types import Float32s, QueryDocumentPair


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 when a calibration was written, 2 for bad input."""
    parser = argparse.ArgumentParser(
        COMMAND, description=__doc__.split("\n")[0], allow_abbrev=False
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", type=Path, help="JSON lines: query, document, label")
    source.add_argument(
        "--restamp", type=Path, help="a calibration of release 0.1.0, fitted on this very scorer"
    )
    parser.add_argument("--output", type=Path, required=True, help="the calibration file to write")
    parser.add_argument("--method", choices=("platt", "temperature"), default="platt")
    scorer_config = add_scorer_options(parser)
    options = parser.parse_args(arguments)
    try:
        config = scorer_config(options)
        if options.restamp:
            found, report = _restamped(options.restamp, config)
        else:
            found, report = _fitted(options.input, config, options.method)
        found.save(options.output)
    except (RerankError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{options.output}: {report}\n")
    return 0


def fit(
    raw: Sequence[float] | Float32s,
    labels: Sequence[int],
    fingerprint: str,
    method: str = "platt",
) -> Calibration:
    """Fit by maximum likelihood: `platt` slope and offset, `temperature` the slope alone.

    Labels are 0 or 1, both must occur. Platt's own smoothed targets keep it finite where the
    scores separate the labels. Raises InvalidRequest for anything else, also where scores do not
    rise with relevance, and where scikit-learn is missing.
    """
    regression, _ = _sklearn()
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
    # A target of 0.9 is nine parts of a 1 and one part of a 0. C=inf: no penalty.
    model = regression(C=np.inf, tol=1e-8, max_iter=10_000, fit_intercept=method == "platt")
    model.fit(
        np.concatenate([scores, scores])[:, None],
        np.repeat([1, 0], len(scores)),
        np.concatenate([targets, 1 - targets]),
    )
    slope, offset = float(model.coef_[0, 0]), float(np.ravel(model.intercept_)[0])
    if not slope > 0:
        raise InvalidRequest("scores do not rise with relevance; check the labels", "label")
    return Calibration(slope, offset, fingerprint, len(scores))


def _sklearn() -> tuple[Any, Any]:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import log_loss
    except ImportError:
        raise InvalidRequest(
            "fitting needs scikit-learn: pip install 'ray-rerank[calibrate]'"
        ) from None
    return LogisticRegression, log_loss


def _fitted(source: Path, config: ScorerConfig, method: str) -> tuple[Calibration, str]:
    _, log_loss = _sklearn()  # missing, it is missed before a model is loaded
    pairs, labels = _read(source)
    # A cascade gives made-up scores to what its large model did not see; nothing is fitted on them.
    scorer = load_scorer(config.model_copy(update={"first_stage": None}))
    scores = scorer.score(pairs)
    good = [i for i in range(len(pairs)) if i not in scores.errors]
    raw, wanted = scores.raw[good], [labels[i] for i in good]
    found = fit(raw, wanted, config.fingerprint(), method)
    after = f"{log_loss(wanted, found.apply(raw).astype(float), labels=[0, 1]):.3f}"
    if scorer.info.activation == "sigmoid":
        shown = activate(raw, scorer.info.activation).astype(float)
        loss = f"log loss {log_loss(wanted, shown, labels=[0, 1]):.3f} -> {after}"
    else:
        loss = f"log loss {after} (the model's own scores are no probabilities)"
    failed = f", {len(scores.errors)} could not be scored" if scores.errors else ""
    return found, (
        f"sigmoid({found.slope:.4f} * raw {found.offset:+.4f}), fitted on {found.pairs} pairs"
        f"{failed}; {loss}"
    )


def _restamped(source: Path, config: ScorerConfig) -> tuple[Calibration, str]:
    content = read(source)
    if not is_of_0_1(content):
        raise InvalidRequest(
            f"{str(source)!r} is no calibration of release 0.1.0; fit a new one with --input",
            "restamp",
        )
    found = checked(source, content | {"fingerprint": config.fingerprint()})
    return found, f"of {source}, now of fingerprint {found.fingerprint}"


def _read(path: Path) -> tuple[list[QueryDocumentPair], list[int]]:
    pairs, labels = [], []
    # Not splitlines: a document may hold one of Unicode's own line separators.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            query, document, label = row["query"], row["document"], float(row["label"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"{path}:{number} is not an object with query, document and label", "input"
            ) from error
        if not (isinstance(query, str) and isinstance(document, str)):
            raise InvalidRequest(f"{path}:{number}: query and document must be texts", "input")
        if label not in (0, 1):
            raise InvalidRequest(f"{path}:{number}: label must be 0 or 1", "input")
        pairs.append(QueryDocumentPair(query, document))
        labels.append(int(label))
    return pairs, labels


if __name__ == "__main__":
    sys.exit(main())
