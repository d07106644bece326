"""Scores what its modules.json describes: sentence-transformers asks and computes, from our cuts.

Every token of its frame is counted, and nothing is cut behind our back. It does not know batches.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from transformers import PreTrainedModel

from rerank_core.catalog.load_errors import no_head
from rerank_core.catalog.resolve import Resolved
from rerank_core.documents import Passage
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.body import Forward
from rerank_core.scorers.device import DTYPES, set_precision
from rerank_core.scorers.encoder import Asked, PairEncoder, TokenizedPair
from rerank_core.scorers.frame import Question, TemplateFrame
from rerank_core.scorers.loading import load_options
from rerank_core.scorers.passes.rows import Rows
from rerank_core.scorers.texts import Ids, TextTokenizer, clean_text
from rerank_core.types import QueryDocumentPair

_NONE = np.empty(0, dtype=np.int64)
# One load at a time looks over transformers' shoulder.
_LOADING = threading.Lock()


def load_modules(resolved: Resolved, device: torch.device) -> tuple[ModulesEncoder, ModulesForward]:
    """Load the checkpoint's modules; more than one output is ModelUnavailable."""
    config = resolved.config
    if config.backend == "packed":
        raise ModelUnavailable(
            f"model {config.model!r} cannot be scored packed: its modules.json leaves the forward"
            " pass to sentence-transformers; use backend auto, or set `template`"
        )
    options = load_options(resolved)
    code = {"code_revision": options.pop("code_revision")} if "code_revision" in options else {}
    with _absent_weights() as absent:
        model = CrossEncoder(
            resolved.source.place,
            device="cpu",
            model_kwargs={"use_safetensors": True, "dtype": torch.float32, **code},
            **options,
        )
    # Bodies that are loaded alone have a pooler by default, which hardly any module reads.
    pooled = "pooler_output" in str(getattr(model[0], "modality_config", None))
    if made_up := sorted(key for key in absent if pooled or not key.startswith("pooler.")):
        raise ModelUnavailable(no_head(config.model, made_up))
    with torch.inference_mode():
        if "scores" not in model(model.preprocess([("a", "a")])):
            raise ModelUnavailable(
                f"model {config.model!r} has modules that end without a score; name a reranker"
            )
    if model.num_labels != 1:
        raise ModelUnavailable(
            f"model {config.model!r} has {model.num_labels} outputs per pair; a reranker has one"
        )
    # Cutting is ours; what it would cut beyond it, it would not say.
    model.max_seq_length = 10**6
    set_precision(model, DTYPES[config.dtype])
    frame, tokenizer = ModulesFrame(model, config.instruction), model.tokenizer
    encoder = ModulesEncoder(frame, resolved.max_length, config.max_query_tokens, resolved.policy)
    left = tokenizer.padding_side == "left"
    forward = ModulesForward(model, tokenizer.pad_token_id or 0, left=left)
    forward.to(device)
    return encoder, forward


@contextlib.contextmanager
def _absent_weights() -> Iterator[set[str]]:
    """Yield the names of weights that transformers makes up while it loads.

    sentence-transformers asks transformers for no report, so it is asked for on the way.
    """
    found: set[str] = set()
    owner = threading.get_ident()
    with _LOADING:
        usual = PreTrainedModel.__dict__["from_pretrained"]

        def load(kind: type, /, *given: Any, **options: Any) -> Any:
            if threading.get_ident() != owner:
                return usual.__func__(kind, *given, **options)
            asked = options.pop("output_loading_info", False)
            model, report = usual.__func__(kind, *given, output_loading_info=True, **options)
            found.update(report["missing_keys"], (key for key, *_ in report["mismatched_keys"]))
            return (model, report) if asked else model

        loader: Any = PreTrainedModel
        loader.from_pretrained = classmethod(load)
        try:
            yield found
        finally:
            loader.from_pretrained = usual


class ModulesForward(Forward):
    """All modules on a padded rectangle."""

    backend = "sentence_transformers"

    def __init__(self, model: Any, pad_id: int, *, left: bool) -> None:
        super().__init__(model)
        self._rows = Rows(None, 0, pad_id, left=left)

    def _logits(self, batch: Sequence[TokenizedPair]) -> Any:
        return self.module(self._rows.pad(batch, self.device))["scores"]


class ModulesFrame(TemplateFrame):
    """What sentence-transformers puts around texts; found by asking it for a pair without any."""

    def __init__(self, model: Any, instruction: str | None) -> None:
        super().__init__(TextTokenizer(model.tokenizer), _NONE, _NONE, _NONE, None)
        self._model, self._instruction = model, instruction
        # Every added token that the tokenizer of texts reads as its characters.
        added = {i: str(token) for i, token in model.tokenizer.added_tokens_decoder.items()}
        steering = [mark for i, mark in added.items() if self._ids_of(mark) != [i]]
        marks = sorted(map(re.escape, steering), key=len, reverse=True)
        self._marks = re.compile("|".join(marks) or r"(?!)")
        self.before = self.ids(Question("", 0, instruction), "")

    def question(self, pair: QueryDocumentPair, limit: int) -> Question:
        """Return the query, cut, and the instruction; a caller's is text like the rest."""
        own = pair.instruction and self._as_text(pair.instruction)
        return Question(pair.query, limit, own or self._instruction)

    def heads(self, asked: Iterable[Question]) -> dict[Question, tuple[Ids, bool] | None]:
        """Return the ids of a pair without its document, and whether the query was cut."""
        cut = {question: self.texts.cut_text(question.query, question.limit) for question in asked}
        return {one: found and (self.ids(one, ""), found[1]) for one, found in cut.items()}

    def ids(self, question: Question, document: str) -> Ids:
        """Return a pair's ids as sentence-transformers makes them."""
        query, _ = self.texts.cut_text(question.query, question.limit) or ("", False)
        texts = [self._as_text(text) for text in (query, document)]
        try:
            features = self._model.preprocess([tuple(texts)], prompt=question.instruction)
        except IndexError:
            # A frame without a token, around nothing: a row that it cannot hold.
            if any(texts):
                raise
            return _NONE
        real = features["attention_mask"][0].bool()
        found: Ids = features["input_ids"][0][real].numpy().astype(np.int64)
        return found

    def _ids_of(self, text: str) -> list[int]:
        found = self.texts.one(text)
        return [] if found is None else found.tolist()

    def _as_text(self, text: str) -> str:
        # A space inside a mark's spelling makes text of it.
        return self._marks.sub(lambda m: f"{m[0][0]} {m[0][1:]}", clean_text(text))


class ModulesEncoder(PairEncoder):
    """Cuts texts to what fits beside the frame, and has sentence-transformers tokenise the rest."""

    frame: ModulesFrame

    def _item(self, asked: Asked, passage: Passage, cut: bool) -> TokenizedPair:
        """Return the pair's ids; its document loses tokens until all of the pair fits."""
        text = asked.pair.document[passage.start : passage.end]
        most = self.limits.longest(asked.pair)
        whole = text == asked.pair.document
        limit = passage.last if whole else self.limits.room(asked.pair, len(asked.head))
        while True:
            shown, lost = self.frame.texts.cut_text(text, limit) or ("", True)
            ids, cut = self.frame.ids(asked.question, shown), cut or lost
            over = len(ids) - most
            if over <= 0 or limit == 0:
                return TokenizedPair(_NONE, ids[:most], cut or over > 0)
            limit, cut = max(0, limit - over), True
