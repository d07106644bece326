"""Which folder a job may work in, and how a new result takes the place of an old one.

Without `overwrite` a job works in the output folder itself. With it, an old result stays whole and
readable while the new one grows in a hidden folder beside it; two renames exchange them at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.commits.lease import refuse_if_alive
from pipelines.commits.local_store import LocalStore
from pipelines.commits.records import OutputRefused, is_complete, is_job_folder
from pipelines.commits.store import Store
from pipelines.identity import identities_differ, refuse_change


def choose_folder(store: Store, identity: dict[str, str], overwrite: bool) -> Store | None:
    """Return where to work, or None if this very job is complete there.

    Raises OutputRefused for a folder that is not ours, JobChanged for another job without
    `overwrite`, and what a store raises that is not there or not to be used.
    """
    if isinstance(store, LocalStore):
        _finish_exchange(store.root)
    try:
        there = store.children()
    except NotADirectoryError:
        raise OutputRefused(f"{store} is a file; the output is a folder") from None
    if not there:
        return store
    if not is_job_folder(store):
        raise OutputRefused(f"{store} is not empty and not a job of ours; nothing was touched")
    plan = store.read_json("_job/plan.json")
    if plan is None or not identities_differ(plan["identity"], identity):
        return None if is_complete(store) else store
    if not overwrite:
        refuse_change(plan["identity"], identity)
    if not isinstance(store, LocalStore):
        raise OutputRefused(
            f"{store} cannot be exchanged for a new result in one step, as a local folder can:"
            " readers would find neither for a while. Take a new --output"
        )
    return _following(store, identity)


def _following(store: LocalStore, identity: dict[str, str]) -> LocalStore:
    """Return where the new result may grow."""
    if store.root.is_mount():
        raise OutputRefused(
            f"{store} is a mount point and cannot be exchanged; take a folder in it"
        )
    refuse_if_alive(store)
    following = LocalStore(_beside(store.root, "next"))
    left = following.read_json("_job/plan.json")
    if left and identities_differ(left["identity"], identity):
        refuse_if_alive(following)  # else it is what an abandoned attempt to replace has left
        shutil.rmtree(following.root)
    return following


def begun(store: Store, overwrite: bool) -> Iterator[dict[str, str]]:
    """Yield the identities of the jobs here that a run may go on with.

    With `overwrite` a complete result is none: it is to be replaced if anything has changed.
    """
    folders = [store]
    if isinstance(store, LocalStore):
        folders.append(LocalStore(_beside(store.root, "next")))
    for folder in folders:
        try:
            plan = folder.read_json("_job/plan.json")
        except NotADirectoryError:
            return  # no folder, as `choose_folder` says
        if plan and not (overwrite and folder == store and is_complete(store)):
            yield plan["identity"]


def _finish_exchange(root: Path) -> None:
    following, former = _beside(root, "next"), _beside(root, "old")
    if not root.exists() and is_complete(LocalStore(following)):
        os.rename(following, root)  # a run was killed between the two renames
    if former.exists() and is_complete(LocalStore(root)):
        shutil.rmtree(former)


def replace_result(store: Store, following: Store) -> None:
    """Put the finished job in `following` in the place of the old result, and delete that."""
    root, new = Path(str(store)), Path(str(following))
    former = _beside(root, "old")
    os.rename(root, former)
    os.rename(new, root)
    shutil.rmtree(former)


def _beside(root: Path, kind: str) -> Path:
    return root.with_name(f".{root.name}.{kind}")
