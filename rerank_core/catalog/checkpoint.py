"""The small files of a checkpoint, local or on a hub, and the hash of those that decide a score.

It reads no weights into memory and does not know what any file means for a score.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rerank_core.catalog.load_errors import explain, no_safetensors
from rerank_core.errors import ModelUnavailable

_VOCABULARIES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                 "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt")  # fmt: skip
# What sentence-transformers reads beside the weights, and what of its modules' own folders.
_MODULES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
            "chat_template.jinja", "processor_config.json",
            "preprocessor_config.json")  # fmt: skip
_READ = (".json", ".safetensors", ".jinja", ".txt", ".model")
_UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
# Of config.json and tokenizer_config.json: what changes no score, or is resolved and hashed apart.
_NO_MATTER = frozenset({
    "_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype",
    "use_cache", "id2label", "label2id", "sentence_transformers",
    "sbert_ce_default_activation_function", "model_max_length", "auto_map", "num_labels",
    "problem_type", "backend", "is_local", "local_files_only", "output_attentions",
    "output_hidden_states", "return_dict", "base_model_name_or_path", "inference_mode",
})  # fmt: skip

_SETTINGS = ("config.json", "tokenizer_config.json", "adapter_config.json")


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
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            found = hf_hub_download(self.place, name, revision=self.commit,
                                    local_files_only=self.local_files_only)  # fmt: skip
        except EntryNotFoundError:
            return None
        except Exception as error:
            raise ModelUnavailable(explain(self.name, error)) from error
        return Path(found)

    def json(self, name: str) -> Any:
        """Return a JSON file's content, an empty dict without it."""
        path = self.file(name)
        return {} if path is None else read_json(path)

    def content(self, *, with_modules: bool) -> str:
        """Return the hash of what decides a score: a hub model's commit, a folder's files."""
        if self.folder is None:
            return f"{self.place}@{self.commit}"
        return folder_hash(self.folder, with_modules)


def read_json(path: Path) -> Any:
    """Return a file's content; ModelUnavailable where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read as JSON; fetch it again") from error


def folder_hash(folder: Path, with_modules: bool = False) -> str:
    """Hash weights, vocabularies, settings and code; not what training left beside them."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(read_json(index)["weight_map"].values())
        files = [folder / shard for shard in shards]
    else:
        files = [folder / name for name in ("model.safetensors", "adapter_model.safetensors")]
    files += [folder / name for name in ("config.json", "adapter_config.json", *_VOCABULARIES)]
    files += [*folder.glob("*.model"), *folder.glob("*.py")]
    if with_modules:
        files += [folder / name for name in _MODULES]
        parts = {str(module.get("path") or "") for module in read_json(folder / "modules.json")}
        inner = [folder / part for part in parts if part]
        files += [path for part in inner for path in part.rglob("*") if path.suffix in _READ]
    stamps = {(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.is_file()}
    return _files_hash(str(folder), tuple(sorted(stamps)))


@lru_cache(maxsize=64)
def _files_hash(folder: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in stamps:
        digest.update(str(Path(name).relative_to(folder)).encode())
        if Path(name).name in _SETTINGS:
            kept = {k: v for k, v in read_json(Path(name)).items()
                    if k not in _NO_MATTER}  # fmt: skip
            digest.update(json.dumps(kept, sort_keys=True).encode())
            continue
        with open(name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


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
    if not any(folder.glob("*.safetensors")):
        pickled = any(path for pattern in _UNSAFE_WEIGHTS for path in folder.glob(pattern))
        raise ModelUnavailable(no_safetensors(model, pickled))
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
