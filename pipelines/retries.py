"""Tries again what a storage fails at for a moment: with pauses that grow, and differ by chance."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from rerank_core import RerankError

ATTEMPTS = 5
# What a network file system says while a server restarts or a cable is moved.
_TRANSIENT = {
    errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET,
    errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EREMOTEIO,
}  # fmt: skip
# What a full disk says, or a full share of one.
FULL = {errno.ENOSPC, errno.EDQUOT}
_STORE_ERRORS = ("AWS Error", "google::cloud::Status", "Azure Error")
Result = TypeVar("Result")


class StorageUnavailable(RerankError):
    """A storage failed again and again. What is committed stays good; run the job again."""


def is_outage(error: BaseException) -> bool:
    """Say whether the storage failed, not the file: such an error is never a bad file."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError | PermissionError):
        return False
    # pyarrow gives what an object store answers no number, only its own words.
    return error.errno is not None or any(words in str(error) for words in _STORE_ERRORS)


def is_transient(error: BaseException) -> bool:
    """Say whether it may help to read or write again."""
    return isinstance(error, OSError) and error.errno in _TRANSIENT


def retried(
    call: Callable[[], Result],
    what: str,
    *,
    when: Callable[[BaseException], bool] = is_outage,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Return what the call returns; after some tries StorageUnavailable, which names `what`.

    Errors that are not for trying again are raised as they are.
    """
    tries = Retrying(
        retry=retry_if_exception(when),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.5, max=20),
        sleep=sleep,
        reraise=True,
    )
    try:
        return tries(call)
    except OSError as error:
        if not when(error):
            raise
        raise StorageUnavailable(f"{what}: {first_line(error)}; {ATTEMPTS} tries failed") from None


def first_line(error: BaseException) -> str:
    """Return a short reason, never longer than a line."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
