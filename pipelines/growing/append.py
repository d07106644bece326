"""Which files are new since a job was finished. Those that it read must be there as they were.

It knows files and footers, and not what a job makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.commits.store import at_once
from pipelines.inputs.conversion import made_name
from pipelines.inputs.footers import footer_hash
from pipelines.inputs.listing import InputFile
from pipelines.inputs.reading import FileChanged
from pipelines.inputs.units import Say, silent, told
from pipelines.retries import retried
from rerank_core import InvalidRequest

_NAMED = 10
_WAY_OUT = "--append only adds; put them back as they were, or take a new --output"
_ALIKE = "write them alike, or take a new --output"


def new_files(
    former: Sequence[InputFile], listed: Sequence[InputFile], say: Say = silent
) -> list[InputFile]:
    """Return the listed files that are none of the former ones.

    Raises FileChanged that names former files which are not listed, or are others now: by size, by
    the Parquet footer, by rows that a table has taken away since.
    """
    now = {file.path: file for file in listed}
    gone = [file for file in former if file.given not in now]
    if gone:
        table = "a table rewrites files when rows of it are changed or joined; "
        raise FileChanged(
            f"{_named(gone)} of the finished output"
            f" {'is' if len(gone) == 1 else 'are'} not in the input any more:"
            f" {table * bool(gone[0].snapshot)}{_WAY_OUT}"
        )
    heard = told(say, "files looked at", len(former))
    same = at_once(lambda file: _is_same(file, now[file.given]), former, heard)
    if changed := [file for file, is_same in zip(former, same, strict=True) if not is_same]:
        raise FileChanged(f"{_named(changed)} changed since the output was finished: {_WAY_OUT}")
    known = {file.given for file in former}
    return [file for file in listed if file.path not in known]


def _is_same(former: InputFile, now: InputFile) -> bool:
    """Say whether a file is the one that was read; where no footer tells, by its size."""
    if former.bad:
        return now.size == former.size
    if former.source:
        return now.rows is None and made_name(now) in former.path
    if now.rows is not None or now.size != former.size:
        return False
    try:
        with now.open() as source:
            return bool(retried(lambda: footer_hash(source), now.path) == former.footer)
    except (pa.ArrowException, OSError):
        return False


def _named(files: Sequence[InputFile]) -> str:
    paths = [file.given for file in files]
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    count = f"{len(paths):,} file{'s' * (len(paths) > 1)}"
    return f"{count} ({', '.join(paths[:_NAMED])}{more})"


def refuse_other_schema(former: pa.Schema, now: pa.Schema) -> None:
    """Raise InvalidRequest where new files would change the columns of the finished output."""
    if lost := sorted(set(former.names) - set(now.names)):
        raise InvalidRequest(
            f"the new files have no column {lost[0]}, which the finished output has: {_ALIKE}",
            "append",
        )
    for field in now:
        if not former.field(field.name).equals(field):
            was = former.field(field.name)
            raise InvalidRequest(
                f"column {field.name}: new files need {_said(field)}, the finished output"
                f" has {_said(was)}: {_ALIKE}",
                "append",
            )


def _said(field: Any) -> str:
    return f"{field.type}{'' if field.nullable else ' without nulls'}"
