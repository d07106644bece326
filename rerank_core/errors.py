"""What can go wrong, as one small tree. It does not know status codes or quarantine files.

RerankError
├── InvalidRequest      the caller's fault: empty query, too many documents, unknown option
├── Overloaded          no room now; try again after `retry_after_s`
├── DeadlineExceeded    the caller's time was up before the work was done
├── ModelUnavailable    the model cannot be loaded, or has failed for good
└── ScoringFailed       the model ran and gave no usable score (non-finite, out of memory)

Messages say the fix and never hold the text of a query or document. All of them pickle, because
they cross processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class RerankError(Exception):
    """Base of every error this project raises on purpose."""


class InvalidRequest(RerankError):
    """The input breaks a rule. `param` names the field, for example `documents.3`."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class Overloaded(RerankError):
    """There is no room for this work now. `retry_after_s` is a guess at when there will be."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class DeadlineExceeded(RerankError):
    """The deadline passed before the work was done; nothing was returned."""


class ModelUnavailable(RerankError):
    """The model cannot be loaded or used. The message says what to change."""


class ScoringFailed(RerankError):
    """The model was asked and gave no usable score."""


def invalid(error: ValidationError, source: str = "") -> InvalidRequest:
    """Say in one line which fields pydantic refused and why; `source` names the file they are of.

    The values themselves are left out.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = "; ".join(": ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"])))
                      for one in found)  # fmt: skip
    param = str(found[0]["loc"][0]) if found[0]["loc"] else None
    return InvalidRequest(f"{source}: {lines}" if source else lines, param)
