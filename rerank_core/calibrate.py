"""Fit a calibration: score labelled pairs with a scorer, and write probabilities' slope and offset.

python -m rerank_core.calibrate --input pairs.jsonl --output calibration.json --model ...

Each line of the input: {"query": ..., "document": ..., "label": 0 or 1}. Give the scorer's options
as it will be served (dtype, max_length, ...): a calibration belongs to one fingerprint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rerank_core.calibration import fit
from rerank_core.config import ScorerConfig
from rerank_core.errors import InvalidRequest, RerankError
from rerank_core.options import add_scorer_options
from rerank_core.ranking import activate
from rerank_core.scorers import load_scorer
from rerank_core.types import Float32s, QueryDocumentPair


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 when a calibration was written, 2 for bad input."""
    parser = argparse.ArgumentParser(
        "python -m rerank_core.calibrate", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument(
        "--input", type=Path, required=True, help="JSON lines: query, document, label"
    )
    parser.add_argument("--output", type=Path, required=True, help="the calibration file to write")
    parser.add_argument("--method", choices=("platt", "temperature"), default="platt")
    scorer_config = add_scorer_options(parser)
    options = parser.parse_args(arguments)
    try:
        config = scorer_config(options)
        pairs, labels = _read(options.input)
        report = _fit(config, pairs, labels, options.method, options.output)
    except (RerankError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{options.output}: {report}\n")
    return 0


def _fit(
    config: ScorerConfig,
    pairs: list[QueryDocumentPair],
    labels: list[int],
    method: str,
    output: Path,
) -> str:
    # A cascade gives made-up scores to what its large model did not see; nothing is fitted on them.
    scorer = load_scorer(config.model_copy(update={"first_stage": None}))
    scores = scorer.score(pairs)
    good = [i for i in range(len(pairs)) if i not in scores.errors]
    raw, wanted = scores.raw[good], [labels[i] for i in good]
    found = fit(raw, wanted, config.fingerprint(), method)
    found.save(output)
    before = _log_loss(activate(raw, "sigmoid"), wanted)
    after = _log_loss(found.apply(raw), wanted)
    failed = f", {len(scores.errors)} could not be scored" if scores.errors else ""
    return (
        f"sigmoid({found.slope:.4f} * raw {found.offset:+.4f}), fitted on {found.pairs} pairs"
        f"{failed}; log loss {before:.3f} -> {after:.3f}"
    )


def _log_loss(chances: Float32s, labels: Sequence[int]) -> float:
    inside = np.clip(chances.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(np.log(np.where(np.asarray(labels) == 1, inside, 1 - inside))))


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
