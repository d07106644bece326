"""Where a checkpoint is, and its small files, local or on a hub.

It reads no weights into memory and does not know what any file means for a score.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_core.catalog.load_errors import explain, no_safetensors, unasked
from rerank_core.errors import ModelUnavailable

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a checkpoint is: `place` is a folder or a hub id, `commit` a hub model's own."""

    name: str
    place: str
    commit: str | None = None
    local_files_only: bool = True

    @property
    def folder(self) -> Path | None:
        """The local folder; None on a hub."""
        return None if self.commit else Path(self.place)

    def file(self, name: str) -> Path | None:
        """Return where a file lies here, fetched if need be; None if the checkpoint has none."""
        if self.folder is not None:
            path = self.folder / name
            return path if path.is_file() else None
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            if self._known_absent(name):
                return None
            found = hf_hub_download(self.place, name, revision=self.commit,
                                    local_files_only=self.local_files_only)  # fmt: skip
        except EntryNotFoundError as error:
            silent = isinstance(error, LocalEntryNotFoundError)
            if silent and not (self.local_files_only or constants.HF_HUB_OFFLINE):
                raise ModelUnavailable(unasked(self.name, name, error)) from error
            return None
        except Exception as error:
            raise ModelUnavailable(explain(self.name, error)) from error
        return Path(found)

    def _known_absent(self, name: str) -> bool:
        """Whether the cache knows that the commit has no such file.

        By a mark where the hub said so, or by the listing that `hf download` keeps. It is asked
        before the hub, at which the client tries for 23 s a file where there is no network.
        """
        import huggingface_hub as client

        known = client.try_to_load_from_cache(self.place, name, revision=self.commit)
        if known is client._CACHED_NO_EXIST:
            return True
        # Older clients keep no listing.
        if not hasattr(client, "get_cached_repo_tree"):
            return False
        try:
            listed = client.get_cached_repo_tree(self.place, revision=self.commit)
        except client.errors.CachedRepoTreeNotFoundError:
            return False
        return name not in {file.path for file in listed}

    def json(self, name: str) -> Any:
        """Return a JSON file's content, an empty dict without it."""
        path = self.file(name)
        return {} if path is None else read_json(path)

    def modules(self) -> list[dict[str, Any]]:
        """Return what modules.json lists, nothing without it."""
        path = self.file("modules.json")
        found: list[dict[str, Any]] = [] if path is None else read_json(path, list)
        if not all(isinstance(module, dict) for module in found):
            raise ModelUnavailable(f"{path} is damaged: it lists no modules; fetch it again")
        return found

    def shards(self) -> dict[str, str]:
        """Return each weight's shard; empty where `WEIGHTS` is there, which loaders take first."""
        if self.file(WEIGHTS) is not None or (path := self.file(INDEX)) is None:
            return {}
        found: Any = read_json(path).get("weight_map")
        if not found or not isinstance(found, dict):
            raise ModelUnavailable(f"{path} is damaged: it has no weight_map; fetch it again")
        return {str(weight): str(shard) for weight, shard in found.items()}


def read_json(path: Path, kind: type = dict) -> Any:
    """Return a file's content, a dict or a list; ModelUnavailable where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read as JSON; fetch it again") from error
    if not isinstance(content, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ModelUnavailable(f"{path} is damaged: it is not {wanted}; fetch it again")
    return content


def has_weights(folder: Path) -> bool:
    """Whether a model's weights lie there, in a file or in shards, under names that are loaded."""
    return any((folder / name).is_file() for name in (WEIGHTS, INDEX))


def find_checkpoint(
    model: str, folder: Path | None, revision: str | None, local_files_only: bool
) -> Checkpoint:
    """Say where the model is; a missing or unusable folder is ModelUnavailable with the fix.

    A hub model is pinned here: to the commit that `revision` (else its main branch) has now.
    """
    if folder is None:
        return _on_hub(model, revision, local_files_only)
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(
            f"model {model!r}: no config.json in its folder; {_hint(model, folder)}"
        )
    # Modules have their weights in folders of their own.
    modules = (folder / "modules.json").is_file()
    look = folder.rglob if modules else folder.glob
    if not has_weights(folder) and not (modules and any(look("*.safetensors"))):
        pickled = any(path for pattern in _UNSAFE_WEIGHTS for path in look(pattern))
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        raise ModelUnavailable(no_safetensors(model, pickled, others))
    return Checkpoint(model, str(folder))


def _hint(model: str, folder: Path) -> str:
    if model == "embedded":
        return "this installation has no embedded weights; name another `model`"
    below = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if below:
        return f"give one of the checkpoints in it: {', '.join(below[:5])}"
    return "give the folder that holds config.json and model.safetensors"


def _on_hub(model: str, revision: str | None, local_files_only: bool) -> Checkpoint:
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelUnavailable(
            f"there is no folder {model!r}; give the path of a checkpoint folder"
            " (with config.json and model.safetensors) or a Hugging Face id"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(model, "config.json", revision=revision,
                               local_files_only=local_files_only)  # fmt: skip
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise ModelUnavailable(explain(model, error)) from error
        raise ModelUnavailable(
            f"model {model!r} has no config.json on the hub; name a reranker"
        ) from error
    except Exception as error:
        raise ModelUnavailable(explain(model, error)) from error
    parts = Path(path).parts
    commit = parts[parts.index("snapshots") + 1]
    return Checkpoint(model, model, commit, local_files_only)
