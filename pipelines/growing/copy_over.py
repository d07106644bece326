"""Copies a finished result over an older one in a bucket, which knows no exchange in one step."""

from __future__ import annotations

from pipelines.commits.delta_log import LOG
from pipelines.commits.records import DATA, MANIFEST, QUARANTINE, REPORT, SUCCESS, JobFolder
from pipelines.commits.store import Store
from pipelines.inputs.units import Say, told

# Where the new result grows, below the old one's address.
BELOW = "_next"
# Of a job's folder what stays with the place, or was only for the way.
STAYS = {"epochs", "heartbeats"}
_PASSES = {"attempts", "input", "scratch"}


def copy_over(folder: JobFolder, found: Store, say: Say) -> None:
    """Copy the complete job in `found` over an older one; done again, it goes on.

    `folder` is the older one, which is held; `say` is told a step, and how many of how many files
    are done. Readers see the new one. Raises Fenced.
    """
    store, manifest = folder.store, found.read_json(MANIFEST)
    folder.refuse_if_fenced()
    store.delete([SUCCESS])  # who reads the plain folder waits
    named = {
        place: [file["file"] for file in manifest[key]]
        for place, key in ((DATA, "files"), (QUARANTINE, "quarantine"))
    }
    for place, names in named.items():
        store.place(f"{BELOW}/{place}", place, names, told(say, f"copied to {place}", len(names)))
    _copy_job(store, found, say)
    store.delete_folder(f"{DATA}/{LOG}")  # of the old files; a later entry would stay, too
    for name in found.names(f"{DATA}/{LOG}"):
        store.replace(f"{DATA}/{LOG}/{name}", found.read(f"{DATA}/{LOG}/{name}"))
    folder.refuse_if_fenced()
    for place, names in named.items():
        gone = set(store.names(place)) - set(names)
        store.delete(f"{place}/{name}" for name in gone)
    store.delete([REPORT])  # of the new result there is none yet if its run was killed
    for name in found.children():
        if name not in (MANIFEST, SUCCESS) and found.size(name) is not None:
            store.replace(name, found.read(name))
    store.replace(MANIFEST, found.read(MANIFEST))
    store.replace(SUCCESS, b"")


def _copy_job(store: Store, found: Store, say: Say) -> None:
    there = set(found.children("_job")) - STAYS - _PASSES
    for name in sorted((set(store.children("_job")) - STAYS) | there):
        if name in there and found.size(f"_job/{name}") is not None:
            store.replace(f"_job/{name}", found.read(f"_job/{name}"))
            continue
        store.delete_folder(f"_job/{name}")
        if name in there:
            names = found.names(f"_job/{name}")
            heard = told(say, f"copied to {name}", len(names))
            store.place(f"{BELOW}/_job/{name}", f"_job/{name}", names, heard)
