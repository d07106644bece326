"""What of an input is left out, counted by reason, so that nothing goes missing in silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HIDDEN = "hidden, as names that start with _ or . are"
OTHER = "of another kind, which a glob would name"
OLD = "not of the table's snapshot"
EMPTY = "without a row"
_NAMES = 10


@dataclass(slots=True)
class LeftOut:
    """Files that were left out, with an example for each reason, and columns."""

    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)

    def add(self, reason: str, path: str, more: int = 1) -> None:
        """Count a file, or several of which this is one."""
        count, first = self.files.get(reason, (0, path))
        self.files[reason] = (count + more, first)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as plan and manifest have them."""
        files = [
            {"reason": reason, "count": count, "first": first}
            for reason, (count, first) in sorted(self.files.items())
        ]
        return {"files": files, "columns": self.columns}


def left_out_line(found: dict[str, Any]) -> str:
    """Return one line that says what was left out; empty if nothing was."""
    parts = [
        f"{item['count']:,} file{'s' * (item['count'] > 1)} {item['reason']} ({item['first']})"
        for item in found.get("files", ())
    ]
    if columns := found.get("columns"):
        more = ", ..." * (len(columns) > _NAMES)
        parts.append(
            f"{len(columns):,} column{'s' * (len(columns) > 1)}"
            f" ({', '.join(columns[:_NAMES])}{more})"
        )
    return f"left out: {'; '.join(parts)}" if parts else ""
