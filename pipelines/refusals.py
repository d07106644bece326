"""Ends of a job that its settings ask for: too many unreadable files, documents that come twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipelines.inputs.pairs import DUPLICATE
from rerank_core import RerankError


class DuplicateIds(RerankError):
    """Queries have documents twice, and `duplicates` is `refuse`."""


class TooManyBadFiles(RerankError):
    """More input files cannot be read than `max_bad_files` allows."""


def refuse_bad_files(reasons: dict[str, str], limit: int) -> None:
    """Raise TooManyBadFiles if there are more unreadable files (path: reason) than allowed."""
    if len(reasons) > limit:
        listed = "; ".join(f"{path}: {reason}" for path, reason in sorted(reasons.items())[:10])
        raise TooManyBadFiles(
            f"{len(reasons)} input files cannot be read, --max-bad-files is {limit}."
            f" All others are done and kept. {listed}"
        )


def refuse_copies(count: int) -> None:
    """Raise DuplicateIds if there are documents that come twice."""
    if count:
        raise DuplicateIds(
            f"{count:,} documents come twice for their query. With --duplicates set_aside the same"
            " command goes on, the later ones set aside"
        )


def refuse_duplicates(records: Iterable[dict[str, Any]]) -> None:
    """Raise DuplicateIds if rows of these units are set aside as copies."""
    refuse_copies(sum(record["reasons"].get(DUPLICATE, 0) for record in records))
