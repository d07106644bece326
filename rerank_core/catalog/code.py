"""The Python code that comes with a checkpoint: whether it runs, and which. It runs none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rerank_core.catalog.checkpoint import Checkpoint
from rerank_core.catalog.modules import own_kinds
from rerank_core.errors import ModelUnavailable

if TYPE_CHECKING:
    from rerank_core.config import ScorerConfig


def own_code(config: ScorerConfig, checkpoint: Checkpoint, settings: Any) -> list[Any] | None:
    """Return which classes run and of which commit; None: the checkpoint runs no code of its own.

    The commit is None where all code lies in the checkpoint's folder, by whose files it is known.
    Raises ModelUnavailable for code of another repository without a commit, or not to be had.
    """
    auto_map = settings.get("auto_map") or {}
    if not config.trust_remote_code:
        if foreign := _foreign(auto_map):
            raise ModelUnavailable(
                f"model {config.model!r} comes with its own Python code, from"
                f" {foreign[0].split('--')[0]}, which is refused; set trust_remote_code only if you"
                " have read that code, and pin it with code_revision"
            )
        return None
    tokenizer = checkpoint.json("tokenizer_config.json").get("auto_map") or {}
    classes = [auto_map, tokenizer, own_kinds(checkpoint)]
    if not any(classes):
        return None
    foreign = _foreign(classes)
    _refuse_unpinned(config, checkpoint, foreign)
    elsewhere = foreign or checkpoint.folder is None
    return [*classes, (config.code_revision or checkpoint.commit) if elsewhere else None]


def _refuse_unpinned(config: ScorerConfig, checkpoint: Checkpoint, places: list[str]) -> None:
    """Refuse code of another repository without a commit, or that is not to be had."""
    name = f"model {config.model!r}"
    # Asked for here, so that a machine without a network hears at once what it lacks.
    offline = config.local_files_only or checkpoint.folder is not None
    for place in places:
        repository, _, code = place.partition("--")
        if not config.code_revision:
            raise ModelUnavailable(
                f"{name} runs code of another repository, {repository}, which `revision` does not"
                " pin; set code_revision to a commit of it"
            )
        file = f"{code.split('.')[0]}.py"
        if Checkpoint(repository, repository, config.code_revision, offline).file(file) is None:
            raise ModelUnavailable(
                f"{name} needs {file} of {repository}, which is not in the local cache; fetch it:"
                f" hf download {repository} --revision {config.code_revision}"
            )


def _foreign(found: Any) -> list[str]:
    """Return the classes of other repositories, "owner/name--file.Class", wherever they stand."""
    if isinstance(found, str):
        return [found] if "--" in found else []
    parts = found.values() if isinstance(found, dict) else found or ()
    return [place for part in parts for place in _foreign(part)]
