"""The hash of those files of a checkpoint that decide a score. It does not know what they mean."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from rerank_core.catalog.checkpoint import WEIGHTS, Checkpoint, read_json

_VOCABULARIES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                 "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt")  # fmt: skip
# What sentence-transformers reads beside the weights, and what of its modules' own folders.
_MODULES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
            "chat_template.jinja", "processor_config.json",
            "preprocessor_config.json")  # fmt: skip
_READ = (".json", ".safetensors", ".jinja", ".txt", ".model")
# Of config.json and tokenizer_config.json: what changes no score, or is resolved and hashed apart.
_NO_MATTER = frozenset({
    "_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype",
    "use_cache", "id2label", "label2id", "sentence_transformers",
    "sbert_ce_default_activation_function", "model_max_length", "auto_map", "num_labels",
    "problem_type", "backend", "is_local", "local_files_only", "output_attentions",
    "output_hidden_states", "return_dict", "base_model_name_or_path", "inference_mode",
})  # fmt: skip

_SETTINGS = ("config.json", "tokenizer_config.json", "adapter_config.json")


def content_hash(
    checkpoint: Checkpoint, *, with_modules: bool = False, with_code: bool = False
) -> str:
    """Return what stands for a checkpoint, or an adapter: a hub model's commit, a folder's hash.

    It is of weights, vocabularies, settings and code that runs; not of what training left beside.
    """
    folder = checkpoint.folder
    if folder is None:
        return f"{checkpoint.place}@{checkpoint.commit}"
    names = set(checkpoint.shards().values()) or {WEIGHTS, "adapter_model.safetensors"}
    names |= {"config.json", "adapter_config.json", *_VOCABULARIES}
    files = [*(folder / name for name in names), *folder.glob("*.model")]
    if with_code:
        files += folder.glob("*.py")
    if with_modules:
        files += [folder / name for name in _MODULES]
        parts = {str(module.get("path") or "") for module in checkpoint.modules()}
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
