"""Which folder a job may work in, and with which jobs begun there a run may go on.

A job works in the output folder itself. One that replaces a result, or adds to it, works in a
hidden folder while the old result stays whole and readable, and they are exchanged at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal

from pipelines.commits.local_store import LocalStore
from pipelines.commits.records import (
    JobFolder,
    OutputRefused,
    existing_plan,
    is_complete,
    is_job_folder,
    read_plan,
)
from pipelines.commits.store import Store
from pipelines.growing.exchange import drop, finish_exchange, following, is_replaced
from pipelines.identity import identities_differ, refuse_change, refuse_other_settings
from pipelines.inputs.units import Say

# What becomes of a finished result of another job.
Former = Literal["keep", "overwrite", "append"]


def choose_folder(store: Store, identity: dict[str, str], former: Former) -> Store | None:
    """Return where to work, or None if this very job is complete there. Nothing is touched.

    Raises OutputRefused for a folder that is not ours, JobChanged for another job that is neither
    overwritten nor appended to, and what a store raises that is not there or not to be used.
    """
    try:
        there = store.children()
    except NotADirectoryError:
        raise OutputRefused(
            f"{store} is a file, or lies below one; the output is a folder"
        ) from None
    if not there:
        return store
    if not is_job_folder(store):
        raise OutputRefused(f"{store} is not empty and not a job of ours; nothing was touched")
    plan = read_plan(store)
    if plan is None or not identities_differ(plan["identity"], identity):
        return None if is_complete(store) else store
    if former == "append" and is_complete(store):
        refuse_other_settings(plan["identity"], identity)
        return _following(store)
    if former != "overwrite":
        refuse_change(plan["identity"], identity)
    if not isinstance(store, LocalStore):
        raise OutputRefused(
            f"{store} cannot be exchanged for a new result in one step, as a local folder can:"
            " readers would find neither for a while. Take a new --output"
        )
    return _following(store)


def _following(store: Store) -> Store:
    """Return where the new result may grow."""
    if isinstance(store, LocalStore) and os.path.ismount(store.root):
        raise OutputRefused(
            f"{store} is a mount point and cannot be exchanged; take a folder in it"
        )
    return following(store)


def enter(held: JobFolder, work: Store, identity: dict[str, str], former: Former) -> JobFolder:
    """Return the folder in which to work for the output that is held; deletes what another attempt
    has left in it, whose workers cannot publish there any more.
    """
    root = held.store
    if work == root:
        return held
    left = read_plan(work)
    adds_to = existing_plan(root)["identity"] if former == "append" else {}
    goes_on = (
        left
        and not identities_differ(left["identity"], identity)
        and left.get("former", {}).get("identity", {}) == adds_to
    )
    if not goes_on and work.children():
        drop(root, work)
    return JobFolder(work, held.epoch, root)


def begun(store: Store, former: Former, say: Say) -> Iterator[dict[str, Any]]:
    """Yield the plans of the jobs here that a run may go on with.

    A complete result is none where it is to be replaced, or added to, if anything has changed.
    What an exchange that was killed has left to do is done first; `say` is told of it.
    """
    finish_exchange(store, say)
    for folder in (store, following(store)):
        try:
            plan = read_plan(folder)
        except NotADirectoryError:
            return  # no folder, as `choose_folder` says
        if folder == store:
            goes_on = former == "keep" or not is_complete(store)
        else:
            goes_on = not is_replaced(folder)
        if plan and goes_on:
            yield plan
