"""Texts that break tokenizers or cost them minutes: they fail or are cut alone, in bounded time."""

import time

import numpy as np
import pytest

from rerank_core import QueryDocumentPair, load_scorer
from rerank_core.scorers.encoder import PairEncoder, items_of
from rerank_core.scorers.frame import Question, TemplateFrame, read_frame
from rerank_core.scorers.texts import TextTokenizer
from tests.rerank_core.scorers.conftest import random_config
from tests.rerank_core.scorers.tiny_checkpoints import bert_tokenizer

PLAIN = QueryDocumentPair("who", "a river")


@pytest.fixture(scope="module", params=["bert", "xlm_roberta", "deberta"])
def scorer(request, tiny_models):
    return load_scorer(random_config(model=str(tiny_models[request.param]), device="cpu"))


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000_000, "中" * 1_000_000, " " * 1_000_000, "\u0301" * 9**6],
    ids=["letters", "characters", "spaces", "accents"],  # else megabytes each, in every report
)
def test_a_million_letters_without_a_space_cost_bounded_time(scorer, text):
    alone = scorer.score([PLAIN]).raw[0]
    started = time.perf_counter()
    scores = scorer.score([PLAIN, QueryDocumentPair("who", text), QueryDocumentPair(text, "a")])
    assert time.perf_counter() - started < 5
    assert scores.errors == {}
    assert scores.truncated.tolist() == [False, True, True]
    assert scores.raw[0] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("text", ["half \ud83d a pair", "\udc00", "nul \x00 inside", "\ufeff", ""])
def test_broken_text_is_scored_and_harms_nobody(scorer, text):
    alone = scorer.score([PLAIN]).raw[0]
    scores = scorer.score([PLAIN, QueryDocumentPair("who", text), QueryDocumentPair(text, "a")])
    assert scores.errors == {}
    assert np.isfinite(scores.raw).all()
    assert scores.raw[0] == pytest.approx(alone, abs=1e-5)


def test_a_querys_ids_do_not_depend_on_its_company(scorer):
    """What a query may cost was a multiple of the largest limit in the call."""
    pair = QueryDocumentPair("who" + " " * 100 + "lives here", "a river", max_query_tokens=3)
    alone = items_of(scorer.prepare([pair]))[0].head
    (beside, _) = items_of(scorer.prepare([pair, PLAIN]))
    np.testing.assert_array_equal(beside.head, alone)
    assert len(alone) == len(items_of(scorer.prepare([PLAIN]))[0].head) + 2


class Fragile:
    """A tokenizer backend that crashes on one text."""

    def __init__(self, backend):
        self._backend = backend

    def encode_batch_fast(self, texts, **options):
        if "crash" in texts:
            raise ValueError("boom")
        return self._backend.encode_batch_fast(texts, **options)


class FragileFrame(TemplateFrame):
    """A frame that crashes on one query, and on one instruction."""

    def heads(self, asked):
        if any(question.query == "crash" for question in asked):
            raise IndexError("boom")
        return super().heads(asked)

    def tail(self, instruction):
        if instruction == "crash":
            raise TypeError("boom")
        return super().tail(instruction)

    def question(self, pair, limit):
        return Question(pair.query, limit, pair.instruction)


def test_a_query_or_an_instruction_that_crashes_the_frame_fails_alone():
    """Queries were encoded outside of what guards a pair."""
    tokenizer = bert_tokenizer()
    whole = read_frame(tokenizer, TextTokenizer(tokenizer))
    frame = FragileFrame(**vars(whole))
    pairs = [
        PLAIN,
        QueryDocumentPair("crash", "a"),
        QueryDocumentPair("who", "a", instruction="crash"),
    ]
    assert [pair.error for pair in PairEncoder(frame, 64, None, None).encode(pairs)] == [
        None,
        "the tokenizer failed on the query; send other text",
        "the pair could not be encoded (TypeError)",
    ]


def test_a_text_that_crashes_the_tokenizer_fails_alone():
    tokenizer = bert_tokenizer()
    texts = TextTokenizer(tokenizer, backend=Fragile(tokenizer.backend_tokenizer))
    encoder = PairEncoder(read_frame(tokenizer, texts), 64, None, None)
    prepared = encoder.encode(
        [PLAIN, QueryDocumentPair("who", "crash"), QueryDocumentPair("crash", "a")]
    )
    assert [(len(pair.items), pair.error) for pair in prepared] == [
        (1, None),
        (0, "the tokenizer failed on the document; send other text"),
        (0, "the tokenizer failed on the query; send other text"),
    ]
