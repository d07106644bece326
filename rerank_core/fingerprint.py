"""The hash of what decides a score. It does not know how a score is computed."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rerank_core.config import ScorerConfig

# What goes into the fingerprint: exactly the fields that change a score.
_SCORE_FIELDS = (
    "model",
    "revision",
    "dtype",
    "max_length",
    "max_query_tokens",
    "activation",
    "template",
    "instruction",
    "long_documents",
    "passage_tokens",
    "passage_overlap",
    "passage_score",
    "max_passages",
)
# Weights, settings, vocabularies, prompts, and a checkpoint's own code.
_SCORE_FILES = {".json", ".safetensors", ".txt", ".model", ".jinja", ".py"}


def fingerprint(config: ScorerConfig) -> str:
    """Return 16 hex digits; see ScorerConfig.fingerprint."""
    fields = {name: getattr(config, name) for name in _SCORE_FIELDS}
    folder = config.model_dir
    if "lexical" in (config.model, config.backend):
        # Its scores have nothing to do with the weights that `model` may name.
        fields |= {"model": "lexical", "revision": None}
    elif folder is not None:
        fields["model"] = _folder_hash(folder)
    if config.first_stage is not None:
        # Only when there is one, so that adding the feature changed nobody's fingerprint.
        first = config.first_stage
        inner = type(config)(
            model=first.model, revision=first.revision, max_length=first.max_length
        )
        fields["first_stage"] = [fingerprint(inner), first.keep]
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _folder_hash(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.suffix in _SCORE_FILES)
    stamps = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    return _files_hash(str(folder), stamps)


@lru_cache(maxsize=32)
def _files_hash(folder: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in stamps:
        digest.update(str(Path(name).relative_to(folder)).encode())
        with open(name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
