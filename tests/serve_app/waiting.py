"""Waiting until something is so; it knows nothing of what."""

import time


def wait_for(found, what="it", seconds=60):
    """Return when `found()` is true; AssertionError with `what` when the time is up."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        time.sleep(0.2)
