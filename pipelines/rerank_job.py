"""Rerank Parquet files on Ray: every row scored exactly once, or set aside with a reason.

python -m pipelines.rerank_job --input IN --output OUT [--top-k K] [--model M] [--config FILE]
python -m pipelines.rerank_job verify OUT

The same command resumes a stopped job. Exit codes: 0 the result is complete; 1 an error;
2 bad options, input or model; 3 files unreadable or changed, documents that come twice and are
refused, or not the job that the folder holds;
4 the output folder is not free; 5 the disk is full; 6 too many rows kill their process;
130 interrupted.
"""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn, TextIO

from pipelines.commits.records import OutputRefused
from pipelines.commits.store import StorageFull
from pipelines.engine import LoadScorer
from pipelines.identity import JobChanged
from pipelines.inputs.reading import FileChanged
from pipelines.refusals import DuplicateIds, TooManyBadFiles
from pipelines.reports.progress import Steps
from pipelines.retries import FULL
from pipelines.run import run_job
from pipelines.settings import load_config
from pipelines.stages.failures import named
from pipelines.stages.isolate import TooManyKilled
from rerank_core import InvalidRequest, ModelUnavailable, RerankError, load_scorer

__all__ = ["main", "run_job"]

_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (FileChanged, 3),
    (InvalidRequest, 2),
    (ModelUnavailable, 2),
    (JobChanged, 3),
    (TooManyBadFiles, 3),
    (DuplicateIds, 3),
    (OutputRefused, 4),
    (StorageFull, 5),
    (TooManyKilled, 6),
    (KeyboardInterrupt, 130),
)
# What the operating system says of a place that cannot be used, and of a full disk.
_OF_SYSTEM = dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENOENT,
     errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG), 2
) | dict.fromkeys(FULL, 5)  # fmt: skip


def main(arguments: Sequence[str] | None = None, load: LoadScorer = load_scorer) -> int:
    """Run the command line; returns the exit code. `load` builds the scorer on each actor."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] == "verify":
            from pipelines.commits.verify import verify_command

            return verify_command(arguments[1:], sys.stderr, Steps(sys.stderr, 10.0, "verifying"))
        config = load_config(arguments)
        if config.dry_run:
            from pipelines.reports.dry_run import describe

            sys.stdout.write(describe(config) + "\n")
        else:
            _interrupt_on_sigterm()
            run_job(config, load, sys.stderr)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, sys.stderr)


def _report(error: BaseException, out: TextIO) -> int:
    """Say what went wrong in one line, and return the exit code for it."""
    for cause in _chain(error):
        for kind, code in _EXIT_CODES:
            if isinstance(cause, kind):
                text = "interrupted" if code == 130 else str(cause)
                out.write(f"\nerror: {text}\n")
                if code in (5, 130):
                    out.write("run the same command again to go on where it stopped\n")
                return code
    ours = [cause for cause in _chain(error) if isinstance(cause, RerankError)]
    out.write(f"\nerror: {ours[-1] if ours else named(error)}\n")
    return _OF_SYSTEM.get(error.errno or 0, 1) if isinstance(error, OSError) else 1


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return the error and what lies behind it; Ray wraps what its workers raise."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return found[::-1]


def _interrupt_on_sigterm() -> None:
    def interrupt(signum: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        signal.signal(signal.SIGTERM, interrupt)


if __name__ == "__main__":
    sys.exit(main())
