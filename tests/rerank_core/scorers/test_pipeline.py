"""Equal pairs once, every pair answered, in input order, also when a thread tokenises ahead."""

import contextlib
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core import QueryDocumentPair
from rerank_core.scorers.encoder import PreparedPair
from rerank_core.scorers.pipeline import score_pool
from rerank_core.scorers.runner import BatchRunner


@dataclass
class Item:
    text: str
    truncated: bool

    def __len__(self):
        return len(self.text)


class Model:
    """Its score is the number that the document spells."""

    def __init__(self):
        self.seen, self.threads = [], set()
        self.runner = BatchRunner(self.launch, contextlib.nullcontext, 50, padded=False)

    def encode(self, pairs):
        self.threads.add(threading.current_thread().name.split("_")[0])
        return [
            PreparedPair(error="unreadable")
            if pair.document == "bad"
            else PreparedPair([Item(pair.document, False)])
            for pair in pairs
        ]

    def launch(self, batch):
        self.seen += [item.text for item in batch]
        return torch.tensor([float(item.text) for item in batch])


def pairs(*documents):
    return [QueryDocumentPair("q", document) for document in documents]


@pytest.mark.parametrize("chunk_characters", [None, 8])
def test_every_pair_is_answered_in_input_order(chunk_characters):
    model = Model()
    documents = ["3", "1000", "bad", "20", "3", "7", "bad"]
    scores = score_pool(pairs(*documents), model.encode, model.runner.run, chunk_characters)
    nan = float("nan")
    np.testing.assert_array_equal(scores.raw, [3, 1000, nan, 20, 3, 7, nan])
    assert scores.tokens.tolist() == [1, 4, 0, 2, 1, 1, 0]
    assert scores.errors == {2: "unreadable", 6: "unreadable"}


def test_equal_pairs_are_scored_once():
    model = Model()
    score_pool(pairs("3", "4", "3", "3"), model.encode, model.runner.run)
    assert sorted(model.seen) == ["3", "4"]


def test_a_large_pool_is_tokenised_by_a_thread_of_its_own():
    model = Model()
    score_pool(pairs(*map(str, range(50))), model.encode, model.runner.run, chunk_characters=20)
    assert model.threads == {"tokenise"}
    assert not [thread for thread in threading.enumerate() if "tokenise" in thread.name]


def test_chunks_keep_a_querys_pairs_together_where_they_share_work():
    model, chunks = Model(), []

    def encode(pairs):
        chunks.append([pair.query for pair in pairs])
        return model.encode(pairs)

    asked = [QueryDocumentPair("ab"[i % 2], str(10**i)) for i in range(6)]
    scores = score_pool(asked, encode, model.runner.run, chunk_characters=13, by_query=True)
    assert scores.raw.tolist() == [10.0**i for i in range(6)]
    assert chunks == [["b", "b"], ["b", "a", "a"], ["a"]]


def test_an_error_in_the_thread_reaches_the_caller():
    def encode(pairs):
        raise OSError("no tokenizer")

    with pytest.raises(OSError, match="no tokenizer"):
        score_pool(pairs("1", "2", "3"), encode, Model().runner.run, chunk_characters=2)


@given(st.lists(st.integers(0, 10**6)), st.one_of(st.none(), st.integers(1, 40)))
@settings(max_examples=50, deadline=None)
def test_permuting_pairs_permutes_scores(numbers, chunk_characters):
    model = Model()
    scores = score_pool(pairs(*map(str, numbers)), model.encode, model.runner.run, chunk_characters)
    assert scores.raw.tolist() == np.array(numbers, dtype=np.float32).tolist()
