"""How a finished job takes the place of an earlier result, and what a killed exchange leaves.

Two local folders are exchanged in one step. A bucket knows no such step: there the new result is
read where it has grown, below the old one, until all of it has been copied over that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.commits import local_files
from pipelines.commits.delta_log import LOG
from pipelines.commits.lease import Lease
from pipelines.commits.local_store import LocalStore
from pipelines.commits.records import DATA, MANIFEST, QUARANTINE, SUCCESS, JobFolder, is_complete
from pipelines.commits.store import Store, open_store
from pipelines.inputs.units import Say

# Where the new result grows: beside a local folder, or below the address in a bucket.
_NEXT, _BELOW = "next", "_next"
# What is on its way out.
_OLD, _GONE = "old", "gone"
# Of a job's folder what stays with the place, or was only for the way.
_STAYS = {"epochs", "heartbeats"}
_PASSES = {"attempts", "input", "scratch"}
# Lies in a local result that is about to be exchanged: then in the folder that is left of it.
_REPLACED = "_job/replaced"


def following(store: Store) -> Store:
    """Return where a new result for this output grows."""
    if isinstance(store, LocalStore):
        return LocalStore(_beside(store.root, _NEXT))
    return open_store(f"{store}/{_BELOW}")


def current(store: Store) -> Store:
    """Return where the result is to be read: a new one may not be all in its place yet."""
    if isinstance(store, LocalStore):
        return store
    found = following(store)
    return found if is_complete(found) else store


def replace_result(store: Store, found: Store, say: Say) -> None:
    """Put the finished job in `found` in the place of the old result, and delete that.

    `say` is told a step, and how many of how many files are done.
    """
    if not isinstance(store, LocalStore):
        with Lease(store) as folder:
            if is_complete(found):  # else another run has just done it
                _copy_over(folder, found, say)
        return
    root, new = store.root, _beside(store.root, _NEXT)
    former = _beside(root, _OLD)
    store.mark(_REPLACED)
    if local_files.exchange(new, root):
        os.rename(new, former)
    else:
        os.rename(root, former)
        os.rename(new, root)
    shutil.rmtree(former)


def finish_exchange(store: Store) -> None:
    """Do what a run that was killed in an exchange has left to do."""
    if not isinstance(store, LocalStore):
        found = following(store)
        if is_complete(found):
            replace_result(store, found, lambda step, done, of: None)
        elif is_complete(store) and (left := found.read_json("_job/plan.json")):
            mine = store.read_json("_job/plan.json")
            if left["identity"] == mine["identity"]:
                drop(store, found)  # all of it has been copied
        return
    root, new, former = store.root, _beside(store.root, _NEXT), _beside(store.root, _OLD)
    if not root.exists() and is_complete(LocalStore(new)):
        os.rename(new, root)  # killed between the two renames
    if LocalStore(new).size(_REPLACED) is not None:
        os.rename(new, former)  # killed behind the exchange
    if former.exists() and is_complete(store):
        shutil.rmtree(former)


def bring(store: Store, place: str, found: Store, work: str, names: list[str], say: Say) -> None:
    """Make files of the result in `store` files of the job that grows in `found`, too."""
    told = _told(say, f"{place} of the finished output", names)
    if not isinstance(store, LocalStore):
        store.place(place, f"{_BELOW}/{work}", names, told)
        return
    for done, name in enumerate(names):
        local_files.also(store.root / place / name, Path(found.path(f"{work}/{name}")))
        told(done + 1)


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
    inside = [name for name in found.children() if name != "_job"]
    inside += [f"_job/{name}" for name in found.children("_job") if name != "plan.json"]
    for name in inside:
        if found.size(name) is None:
            found.delete_folder(name)
        else:
            found.delete([name])
    found.delete(["_job/plan.json"])  # last: without it the rest would be taken for work done


def _copy_over(folder: JobFolder, found: Store, say: Say) -> None:
    """Copy a complete job over an older one; done again, it goes on. Readers see the new one."""
    store, manifest = folder.store, found.read_json(MANIFEST)
    folder.refuse_if_fenced()
    store.delete([SUCCESS])  # who reads the plain folder waits
    named = {
        place: [file["file"] for file in manifest[key]]
        for place, key in ((DATA, "files"), (QUARANTINE, "quarantine"))
    }
    for place, names in named.items():
        store.place(f"{_BELOW}/{place}", place, names, _told(say, f"copied to {place}", names))
    _copy_job(store, found, say)
    for name in found.names(f"{DATA}/{LOG}"):
        store.replace(f"{DATA}/{LOG}/{name}", found.read(f"{DATA}/{LOG}/{name}"))
    folder.refuse_if_fenced()
    for place, names in named.items():
        gone = set(store.names(place)) - set(names)
        store.delete(f"{place}/{name}" for name in gone)
    for name in found.children():
        if name not in (MANIFEST, SUCCESS) and found.size(name) is not None:
            store.replace(name, found.read(name))
    store.replace(MANIFEST, found.read(MANIFEST))
    store.replace(SUCCESS, b"")
    drop(store, found)


def _copy_job(store: Store, found: Store, say: Say) -> None:
    there = set(found.children("_job")) - _STAYS - _PASSES
    for name in sorted((set(store.children("_job")) - _STAYS) | there):
        if name in there and found.size(f"_job/{name}") is not None:
            store.replace(f"_job/{name}", found.read(f"_job/{name}"))
            continue
        store.delete_folder(f"_job/{name}")
        if name in there:
            names = found.names(f"_job/{name}")
            told = _told(say, f"copied to {name}", names)
            store.place(f"{_BELOW}/_job/{name}", f"_job/{name}", names, told)


def _told(say: Say, step: str, names: list[str]) -> Callable[[int], Any]:
    return lambda done: say(step, done, len(names))


def _beside(root: Path, kind: str) -> Path:
    return root.with_name(f".{root.name}.{kind}")
