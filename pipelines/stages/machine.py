"""What an actor makes sure of before it scores: the right folder, the right model, a usual time."""

from __future__ import annotations

import socket
from typing import Any

from pipelines.commits.records import MODEL, JobFolder, OutputRefused
from pipelines.inputs.units import unit_name
from rerank_core import ModelUnavailable

# Units whose time an actor remembers.
SAMPLE = 20


def refuse_another_folder(folder: JobFolder) -> None:
    """Raise OutputRefused where this machine does not see the folder that the driver works in."""
    if folder.epoch and not folder.has_epoch(folder.epoch):
        raise OutputRefused(
            f"{folder.store} on {socket.gethostname()} is not the folder of this job: every"
            " machine must reach the same one there; give --output on a file system that all"
            " mount, or in an object store"
        )


def refuse_another_model(folder: JobFolder, mine: str) -> None:
    """Raise ModelUnavailable if this machine's weights are not those of the job's first actor.

    The driver's own fingerprint is of the model's name where the weights lie on workers only.
    """
    store = folder.store
    first = store.read_json(MODEL)
    if first is None:
        won = store.create_json(MODEL, mine)
        first = mine if won else store.read_json(MODEL)
    if first != mine:
        raise ModelUnavailable(
            f"the model on {socket.gethostname()} has the fingerprint {mine}, this job began"
            f" with {first}: stage the same files on every machine"
        )


def seconds_of_others(folder: JobFolder, first_new: int = 0) -> list[float]:
    """Return what some units of this job took, so that a new actor knows what is usual.

    Units before `first_new` are files of a finished output that grows.
    """
    most = None if first_new else SAMPLE  # those of the finished output may be any of the first
    names = folder.store.names("_job/units", ".json", most)
    former = set(map(unit_name, range(first_new)))
    names = [name for name in names if name not in former][:SAMPLE]
    sample = folder.records("units", names)
    return [record["seconds"] for record in sample.values() if is_usual(record)]


def is_usual(record: dict[str, Any]) -> bool:
    """Say whether a unit's time tells what scoring a whole one takes, at the first attempt."""
    known = record["counts"].get("pairs_reused")
    return "seconds" in record and not record["retries"] and not known
