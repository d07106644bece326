"""How a finished job takes the place of an earlier result, and what a killed exchange leaves.

Two local folders are exchanged in one step. A bucket knows no such step: there the new result is
read where it has grown, below the old one, until all of it has been copied over that.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from pipelines.commits import local_files
from pipelines.commits.lease import Lease
from pipelines.commits.local_store import LocalStore
from pipelines.commits.records import (
    PLAN,
    SUCCESS,
    JobFolder,
    OutputRefused,
    existing_plan,
    is_complete,
    read_plan,
)
from pipelines.commits.store import Store, json_bytes, open_store
from pipelines.growing.copy_over import BELOW, STAYS, copy_over
from pipelines.inputs.units import Say, told

# Where the new result grows: beside a local folder, or below the address in a bucket.
_NEXT = "next"
# What is on its way out.
_OLD, _GONE = "old", "gone"
# Lies in a local result that is about to be exchanged: then in the folder that is left of it.
_REPLACED = "_job/replaced"


def following(store: Store) -> Store:
    """Return where a new result for this output grows."""
    if isinstance(store, LocalStore):
        return LocalStore(_beside(store.root, _NEXT))
    return open_store(f"{store}/{BELOW}")


def current(store: Store) -> Store:
    """Return where the result is to be read: a new one may not be all in its place yet."""
    if isinstance(store, LocalStore):
        return store
    found = following(store)
    return found if is_complete(found) else store


def is_replaced(found: Store) -> bool:
    """Say whether what lies where a new result grows is the old one, on its way out."""
    return found.size(_REPLACED) is not None


def replace_result(
    held: JobFolder, found: Store, still: AbstractContextManager[Any], say: Say
) -> None:
    """Put the finished job in `found` in the place of the old result, and delete that.

    `held` is the output, of which no heartbeat is written while `still` is held; `say` is told a
    step, and how many of how many files are done. Raises Fenced, or OutputRefused for a job that
    is not finished: the old result is then where it was.
    """
    store = held.store
    held.refuse_if_fenced()
    if not is_complete(found):
        raise OutputRefused(f"{found} is no finished result any more; {store} is as it was")
    if not isinstance(store, LocalStore):
        copy_over(held, found, say)
        drop(store, found)
        return
    root, new = store.root, _beside(store.root, _NEXT)
    former = _beside(root, _OLD)
    # The new result goes on with the epochs, and its owner stays the owner.
    for place in sorted(STAYS):
        for name in store.names(f"_job/{place}"):
            local_files.also(root / "_job" / place / name, new / "_job" / place / name)
    store.mark(_REPLACED)
    with still:
        there = local_files.exchange(new, root)
        if not there:
            os.rename(root, former)
        try:
            os.rename(new, former if there else root)
        except FileNotFoundError:
            if not is_complete(store):
                raise
            # Else another run has done it: see finish_exchange.
    with suppress(FileNotFoundError):
        shutil.rmtree(former)


def finish_exchange(store: Store, say: Say) -> None:
    """Do what a run that was killed in an exchange has left to do; what lives does so itself.

    `say` is told a step, and how many of how many files are done.
    """
    if isinstance(store, LocalStore):
        new = _beside(store.root, _NEXT)
        if not store.root.exists() and is_complete(LocalStore(new)):
            with suppress(FileNotFoundError):
                os.rename(new, store.root)  # killed between the two renames
        if _has_old(store):
            with suppress(OutputRefused), Lease(store, say=say):
                _delete_old(store)
        return
    found = following(store)
    if is_complete(found):
        with Lease(store, say=say) as held:
            if is_complete(found):  # else another run has just done it
                copy_over(held, found, say)
                drop(store, found)
    elif _is_copied(store, found):
        with suppress(OutputRefused), Lease(store, say=say):
            if _is_copied(store, found):
                drop(store, found)


def _has_old(store: LocalStore) -> bool:
    left = is_replaced(following(store)) or _beside(store.root, _OLD).exists()
    return left and is_complete(store)


def _delete_old(store: LocalStore) -> None:
    """Delete the old result of an exchange that was killed behind its first step."""
    new, former = _beside(store.root, _NEXT), _beside(store.root, _OLD)
    if is_replaced(LocalStore(new)):
        os.rename(new, former)
    if former.exists():
        shutil.rmtree(former)


def _is_copied(store: Store, found: Store) -> bool:
    """Say whether what lies in `found` has been copied, or was being deleted."""
    if not is_complete(store) or not (left := read_plan(found)):
        return False
    return left["identity"] in ({}, existing_plan(store)["identity"])


def bring(store: Store, place: str, found: Store, work: str, names: list[str], say: Say) -> None:
    """Make files of the result in `store` files of the job that grows in `found`, too."""
    heard = told(say, f"{place} of the finished output", len(names))
    if not isinstance(store, LocalStore):
        store.place(place, f"{BELOW}/{work}", names, heard)
        return
    for done, name in enumerate(names):
        local_files.also(store.root / place / name, Path(found.path(f"{work}/{name}")))
        heard(done + 1)


def drop(store: Store, found: Store) -> None:
    """Delete what an abandoned attempt to replace the result in `store` has left in `found`."""
    if isinstance(store, LocalStore):
        # In one step out of the way: of half a folder the rest would be taken for work done.
        gone = _beside(store.root, _GONE)
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(_beside(store.root, _NEXT), gone)
        shutil.rmtree(gone)
        return
    found.delete([SUCCESS])
    if found.size(PLAN) is not None:
        found.replace(PLAN, json_bytes({"identity": {}, "files": []}))  # nobody's any more
    inside = [name for name in found.children() if name != "_job"]
    inside += [f"_job/{name}" for name in found.children("_job") if name != "plan.json"]
    for name in inside:
        if found.size(name) is None:
            found.delete_folder(name)
        else:
            found.delete([name])
    found.delete([PLAN])  # last: without it the rest would be taken for work done


def _beside(root: Path, kind: str) -> Path:
    return root.with_name(f".{root.name}.{kind}")
