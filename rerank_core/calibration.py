"""From raw scores to probabilities: slope and offset, kept in a small JSON file.

It does not know scorers; `python -m rerank_core.calibrate` loads one, scores pairs and fits.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rerank_core.errors import InvalidRequest, invalid
from rerank_core.ranking import activate
from rerank_core.types import Float32s

COMMAND = "python -m rerank_core.calibrate"


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid", strict=True))
class Calibration:
    """probability = sigmoid(slope * raw + offset); `fingerprint` is of the scorer it was fitted on.

    `slope` is positive, so that calibrating never changes an order. `pairs` says on how many it
    was fitted.
    """

    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    offset: Annotated[float, Field(allow_inf_nan=False)]
    fingerprint: Annotated[str, Field(min_length=1)]
    pairs: Annotated[int, Field(ge=1)]
    version: Literal[2] = 2

    def apply(self, raw: Float32s) -> Float32s:
        """Return one probability per raw score; NaN stays NaN."""
        return activate((raw * self.slope + self.offset).astype(np.float32), "sigmoid")

    def save(self, path: str | Path) -> None:
        """Write the file that `ScorerConfig.calibration` names."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, fingerprint: str) -> Calibration:
        """Read the file; raise InvalidRequest, with the fix, for a wrong one or another scorer's.

        One of release 0.1.0 is refused, too: its fingerprint is of a kind no longer made.
        """
        content, name = read(path), shlex.quote(str(path))
        if is_of_0_1(content):
            raise InvalidRequest(
                f"calibration {str(path)!r} is of release 0.1.0, whose fingerprints are no longer"
                " made; if it was fitted with this model and these settings, take it over with"
                f" {COMMAND} --restamp {name} --output {name} and the scorer's options",
                "calibration",
            )
        found = checked(path, content)
        if found.fingerprint != fingerprint:
            raise InvalidRequest(
                f"calibration {str(path)!r} was fitted on another scorer ({found.fingerprint}, this"
                f" one is {fingerprint}); fit it again with this model, dtype and max_length",
                "calibration",
            )
        return found


def read(path: str | Path) -> Any:
    """Return the JSON of a calibration file, unchecked; InvalidRequest if there is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"calibration {str(path)!r} cannot be read ({type(error).__name__}); fit it with"
            f" {COMMAND}",
            "calibration",
        ) from error


def is_of_0_1(content: Any) -> bool:
    """Say whether a file's content is as release 0.1.0 wrote it: without a version."""
    return isinstance(content, dict) and content.keys() == {
        "slope",
        "offset",
        "fingerprint",
        "pairs",
    }


def checked(path: str | Path, content: Any) -> Calibration:
    """Build a calibration from a file's content; InvalidRequest names file and field."""
    try:
        # As JSON: strict validation of Python values takes no dict for a dataclass.
        return TypeAdapter(Calibration).validate_json(json.dumps(content))
    except ValidationError as error:
        raise invalid(error, f"calibration {str(path)!r}") from None
