"""Which folder a job may work in, and how a new result takes the place of an old one.

Without `overwrite` a job works in the output folder itself. With it, an old result stays whole and
readable while the new one grows in a hidden folder beside it; two renames exchange them at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.commits import store
from pipelines.commits.lease import refuse_if_alive
from pipelines.commits.records import OutputRefused, is_complete, is_job_folder
from pipelines.identity import identities_differ, refuse_change


def choose_folder(root: Path, identity: dict[str, str], overwrite: bool) -> Path | None:
    """Return the folder to work in, or None if this very job is complete there.

    Raises OutputRefused for a folder that is not ours, JobChanged for another job without
    `overwrite`.
    """
    following, former = _beside(root, "next"), _beside(root, "old")
    if not root.exists() and is_complete(following):
        os.rename(following, root)  # a run was killed between the two renames
    if former.exists() and is_complete(root):
        shutil.rmtree(former)
    if root.exists() and not root.is_dir():
        raise OutputRefused(f"{root} is a file; the output is a folder")
    if not root.is_dir() or not any(root.iterdir()):
        return root
    if not is_job_folder(root):
        raise OutputRefused(f"{root} is not empty and not a job of ours; nothing was touched")
    plan = store.read_json(root / "_job" / "plan.json")
    if plan is None or not identities_differ(plan["identity"], identity):
        return None if is_complete(root) else root
    if not overwrite:
        refuse_change(plan["identity"], identity)
    if root.is_mount():
        raise OutputRefused(f"{root} is a mount point and cannot be exchanged; take a folder in it")
    refuse_if_alive(root)
    left = store.read_json(following / "_job" / "plan.json")
    if left and identities_differ(left["identity"], identity):
        refuse_if_alive(following)  # else it is what an abandoned attempt to replace has left
        shutil.rmtree(following)
    return following


def begun(root: Path, overwrite: bool) -> Iterator[dict[str, str]]:
    """Yield the identities of the jobs here that a run may go on with.

    With `overwrite` a complete result is none: it is to be replaced if anything has changed.
    """
    for folder in (root, _beside(root, "next")):
        plan = store.read_json(folder / "_job" / "plan.json")
        if plan and not (overwrite and folder == root and is_complete(root)):
            yield plan["identity"]


def replace_result(root: Path, following: Path) -> None:
    """Put the finished job in `following` in the place of the old result, and delete that."""
    former = _beside(root, "old")
    os.rename(root, former)
    os.rename(following, root)
    shutil.rmtree(former)


def _beside(root: Path, kind: str) -> Path:
    return root.with_name(f".{root.name}.{kind}")
