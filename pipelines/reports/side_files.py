"""Files beside a result, where people ask for them: whether one can be written, and what is said
where it cannot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.commits.store import StorageFull
from pipelines.retries import FULL
from rerank_core import InvalidRequest


def refuse_unwritable(path: str | Path, option: str) -> None:
    """Raise InvalidRequest if it can be known now that no file can be written there."""
    path = Path(path).absolute()
    above = next(folder for folder in path.parents if os.path.lexists(folder))
    if path.is_dir():
        reason = "it is a folder"
    elif not above.is_dir():
        reason = f"{above} is no folder"
    elif not os.access(above, os.W_OK | os.X_OK):
        reason = f"{above} cannot be written to"
    else:
        return
    raise InvalidRequest(f"{option} {path}: {reason}; name another file", option)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield where to write a file, which then appears whole; of one that fails nothing stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Say in a line what stops a file from being written: StorageFull or InvalidRequest."""
    try:
        yield
    except OSError as error:
        said = f"{option} {path}: {error.strerror or type(error).__name__}"
        if error.errno in FULL:
            raise StorageFull(f"{said}; all else is done") from None
        raise InvalidRequest(f"{said}; all else is done: name another file", option) from None
