"""Who is compared: our backends, sentence-transformers, FlagEmbedding, infinity, CPU engines.

All take the same texts and give raw scores. None knows how it is timed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from benchmarks.pair_mixes import Pair
from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer, plan_batches
from rerank_core.types import Float32s


class Rival(Protocol):
    """One way to score."""

    name: str

    def score(self, pairs: Sequence[Pair]) -> Float32s:
        """Score texts, in input order, raw."""
        ...

    def computed_tokens(self, pairs: Sequence[Pair], lengths: Sequence[int]) -> int | None:
        """Return the tokens that the model multiplies, padding included, where that is known."""
        ...


class Ours:
    """load_scorer with one of our backends."""

    def __init__(self, name: str, config: ScorerConfig) -> None:
        self.name = name
        self.scorer = load_scorer(config)
        self._padded = self.scorer.info.backend != "packed"

    def score(self, pairs: Sequence[Pair]) -> Float32s:
        """Score, texts in, scores out."""
        return self.scorer.score([QueryDocumentPair(*pair) for pair in pairs]).raw

    def lengths(self, pairs: Sequence[Pair]) -> list[int]:
        """Return the tokens that the model reads of each pair."""
        return list(self.scorer.score([QueryDocumentPair(*pair) for pair in pairs]).tokens)

    def computed_tokens(self, pairs: Sequence[Pair], lengths: Sequence[int]) -> int:
        """Return the real tokens, or the rectangles' where we pad."""
        if not self._padded:
            return sum(lengths)
        plan = plan_batches(lengths, self.scorer.info.max_batch_tokens)
        return sum(max(lengths[i] for i in batch) * len(batch) for batch in plan)


class Predict:
    """CrossEncoder.predict at one batch size."""

    def __init__(self, name: str, encoder: CrossEncoder, batch_size: int) -> None:
        self.name = name
        self.batch_size = batch_size
        self._encoder = encoder

    def score(self, pairs: Sequence[Pair]) -> Float32s:
        """Score with predict."""
        scores: Float32s = self._encoder.predict(
            list(pairs),
            batch_size=self.batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        return scores

    def computed_tokens(self, pairs: Sequence[Pair], lengths: Sequence[int]) -> int:
        """Return its rectangles, which it sorts by characters."""
        order = np.argsort([-len(query) - len(text) for query, text in pairs])
        return _rectangles([lengths[i] for i in order], self.batch_size)


class FlagStyle:
    """FlagEmbedding's FlagReranker: the document alone is cut, token-sorted batches of 128."""

    name = "FlagEmbedding's way, 128"

    def __init__(self, encoder: CrossEncoder, device: str, batch_size: int = 128) -> None:
        self._model: Any = encoder.transformers_model
        self._tokenizer: Any = encoder.tokenizer
        self._limit = int(encoder.max_seq_length or 512)
        self._device = device
        self._batch_size = batch_size

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair]) -> Float32s:
        """Tokenise all, sort by tokens, score fixed batches. Without its trial first batch."""
        encoded = [
            self._tokenizer(query, text, truncation="only_second", max_length=self._limit)
            for query, text in pairs
        ]
        order = np.argsort([-len(item["input_ids"]) for item in encoded], kind="stable")
        scores = np.empty(len(pairs), dtype=np.float32)
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            batch = self._tokenizer.pad([encoded[i] for i in places], return_tensors="pt")
            logits = self._model(**batch.to(self._device)).logits
            scores[places] = logits.view(-1).float().cpu().numpy()
        return scores

    def computed_tokens(self, pairs: Sequence[Pair], lengths: Sequence[int]) -> int:
        """Return its rectangles."""
        return _rectangles(sorted(lengths, reverse=True), self._batch_size)


class Apart:
    """An engine in another interpreter, whose dependencies exclude ours: a line in, a line out."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._line()

    def ask(self, question: Any) -> Any:
        """Send one question and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def close(self) -> None:
        """End the engine's process."""
        with self._process:
            self._process.kill()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"an engine ended; see what {self._process.args} says")
        return line


class Infinity(Apart):
    """infinity-emb's engine."""

    name = "infinity engine"

    def __init__(self, python: str, folder: Path, device: str, dtype: str, work: Path) -> None:
        script = Path(__file__).with_name("infinity_engine.py")
        model = readable_by_transformers_4(folder, work / "infinity")
        super().__init__(python, str(script), str(model), device, dtype)

    def score(self, pairs: Sequence[Pair]) -> Float32s:
        """Send the pairs, one rerank call for each query, all at once."""
        return np.array(self.ask(list(pairs)), dtype=np.float32)

    def computed_tokens(self, pairs: Sequence[Pair], lengths: Sequence[int]) -> None:
        """Return nothing: its batches depend on the moment."""


class CpuEngine(Apart):
    """One mode of cpu_engine.py, at `batch_size` sorted pairs.

    `cpu_s` and `memory_mb`: what the last call took in its process.
    """

    def __init__(self, python: str, folder: Path, mode: str) -> None:
        script = Path(__file__).with_name("cpu_engine.py")
        super().__init__(python, str(script), str(folder), mode, str(torch.get_num_threads()))
        self.name, self.batch_size, self.cpu_s, self.memory_mb = mode, 8, 0.0, 0.0

    def score(self, pairs: Sequence[Pair]) -> Float32s:
        """Score its rectangles one after another."""
        answer = self.ask({"pairs": list(pairs), "batch_size": self.batch_size})
        self.cpu_s, self.memory_mb = answer["cpu_s"], answer["memory_mb"]
        return np.array(answer["scores"], dtype=np.float32)

    def computed_tokens(self, pairs: Sequence[Pair], lengths: Sequence[int]) -> int:
        """Return its rectangles, sorted by tokens or nearly."""
        return _rectangles(sorted(lengths, reverse=True), self.batch_size)


def readable_by_transformers_4(folder: Path, copy: Path) -> Path:
    """Copy a model, whose tokenizer's class transformers 4 would not know; return the copy."""
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    path = copy / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(config), encoding="utf-8")
    return copy


def _rectangles(lengths: Sequence[int], batch_size: int) -> int:
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return sum(max(batch) * len(batch) for batch in batches)
