"""What an actor makes sure of before it scores: the right folder, the right model, a usual time."""

from __future__ import annotations

import socket

from pipelines.commits import store
from pipelines.commits.records import JobFolder, OutputRefused, newest_epoch
from rerank_core import ModelUnavailable

# Units whose time an actor remembers.
SAMPLE = 20


def refuse_another_folder(folder: JobFolder) -> None:
    """Raise OutputRefused where this machine does not see the folder that the driver works in."""
    if newest_epoch(folder.root) < folder.epoch:
        raise OutputRefused(
            f"{folder.root} on {socket.gethostname()} is not the folder of this job: every"
            " machine must mount the same file system there; give --output on one"
        )


def refuse_another_model(folder: JobFolder, mine: str) -> None:
    """Raise ModelUnavailable if this machine's weights are not those of the job's first actor.

    The driver's own fingerprint is of the model's name where the weights lie on workers only.
    """
    noted = folder.job / "model.json"
    if store.read_json(noted) is None:
        store.create_json(noted, mine)
    first = store.read_json(noted)
    if first != mine:
        raise ModelUnavailable(
            f"the model on {socket.gethostname()} has the fingerprint {mine}, this job began"
            f" with {first}: stage the same files on every machine"
        )


def seconds_of_others(folder: JobFolder) -> list[float]:
    """Return what some units of this job took, so that a new actor knows what is usual."""
    done = sorted(folder.done("units"))
    sample = folder.records("units", done[:: max(1, len(done) // SAMPLE)][:SAMPLE])
    return [r["seconds"] for r in sample.values() if "seconds" in r and not r["retries"]]
