"""What a query's prompts begin with is computed once in a pass, and no score knows."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.batching import computed
from rerank_core.scorers import attention
from rerank_core.scorers.encoder import TokenizedPair, items_of
from rerank_core.scorers.passes.rows import Rows
from tests.rerank_core.scorers import tiny_checkpoints
from tests.rerank_core.scorers.passes.reference_kernel import varlen

TEMPLATES = {
    "qwen3": ("qwen3", "qwen3-reranker", {}),
    "gemma": ("gemma", "bge-reranker-v2-gemma", {}),
    "mxbai": ("qwen2", "mxbai-rerank-v2", {}),
    # A window that ends inside the prompt for some tokens, and inside the document for others.
    "window": (
        "qwen2",
        "mxbai-rerank-v2",
        {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    ),
}
QUERIES = ("how many people live here", "中国的首都", "who wrote the book about the old town")
PAIRS = [
    QueryDocumentPair(query, "the river runs through the old town " * (i % 7))
    for i in range(6)
    for query in QUERIES[: 1 + i % 3]
]


@pytest.fixture(scope="module", params=TEMPLATES)
def model(request, tmp_path_factory):
    kind, template, changes = TEMPLATES[request.param]
    folder = tiny_checkpoints.save_causal(tmp_path_factory.mktemp(kind), kind, **changes)
    return {"model": str(folder), "template": template, "device": "cpu", "self_check": False}


def scores_of(scorer, *, shares):
    scorer.forward.shares = shares
    scores = scorer.score(PAIRS)
    assert scores.errors == {}
    return scores.raw


def test_scores_are_those_of_whole_prompts(model):
    scorer = load_scorer(ScorerConfig(**model))
    assert scorer.forward.shares
    whole = scores_of(scorer, shares=False)
    np.testing.assert_allclose(scores_of(scorer, shares=True), whole, rtol=0, atol=1e-5)
    padded = load_scorer(ScorerConfig(**model, backend="cross_encoder")).score(PAIRS).raw
    np.testing.assert_allclose(whole, padded, rtol=0, atol=1e-5)
    assert np.ptp(whole) > 0.01


@pytest.mark.seconds
@pytest.mark.parametrize("without", [set(), {"enable_gqa", "num_splits"}])
def test_by_the_kernel_too_also_by_the_one_of_torch_2_11(
    model,
    without,
    packed_kernel,
    monkeypatch,
):
    known = frozenset(inspect.signature(varlen).parameters) - without
    monkeypatch.setattr(attention, "_KERNEL_OPTIONS", known)
    scorer = load_scorer(ScorerConfig(**model, dtype="float16"))
    runs = scores_of(scorer, shares=False)
    scorer.forward.kernel = True
    for shares in (False, True):
        found = scores_of(scorer, shares=shares)
        np.testing.assert_allclose(found, runs, atol=5e-3 * max(1, np.abs(runs).max()))


def test_a_pass_embeds_each_querys_prompt_once(model):
    scorer = load_scorer(ScorerConfig(**model, max_batch_tokens=10**6))
    embedded = []
    hook = scorer.forward.module.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: embedded.append(inputs[0].numel())
    )
    items = items_of(scorer.prepare(PAIRS))
    scorer.score(PAIRS)
    hook.remove()
    distinct = {item.head.tobytes(): len(item.head) for item in items}
    unique = {(item.head.tobytes(), item.tail.tobytes()): len(item.tail) for item in items}
    assert embedded == [sum(distinct.values()) + sum(unique.values())]


def test_a_way_to_share_that_gives_other_scores_is_not_taken_and_said(model, monkeypatch, caplog):
    shared = Rows._shared

    def wrong(self, batch):
        row = shared(self, batch)
        return row and attention_to_oneself(row)

    monkeypatch.setattr(Rows, "_shared", wrong)
    scorer = load_scorer(ScorerConfig(**model))
    assert (scorer.info.backend, scorer.forward.shares) == ("packed", False)
    assert [m for m in caplog.messages if "scored without sharing prompts" in m]
    padded = load_scorer(ScorerConfig(**model, backend="cross_encoder")).score(PAIRS).raw
    np.testing.assert_allclose(scorer.score(PAIRS).raw, padded, rtol=0, atol=1e-5)


def attention_to_oneself(row):
    return replace(row, keys=np.arange(len(row.ids)), known=row.lengths)


def pair(head, *tail):
    return TokenizedPair(np.array(head, np.int64), np.array(tail, np.int64), False)


def test_pairs_that_begin_alike_stand_behind_their_beginning():
    row = Rows(None, 0, 0).pack([pair([7, 8], 1), pair([9], 2, 3), pair([7, 8], 4, 5)], share=True)
    assert row.lengths == [2, 1, 1, 2, 2]
    assert row.ids.tolist() == [7, 8, 9, 1, 2, 3, 4, 5]
    assert row.positions.tolist() == [0, 1, 0, 2, 1, 2, 2, 3]
    assert (row.keys.tolist(), list(row.known)) == (
        [0, 1, 2, 0, 1, 3, 2, 4, 5, 0, 1, 6, 7],
        [2, 1, 3, 3, 4],
    )
    inputs, bounds = row.arguments([torch.tensor(part) for part in row.arrays()], kernel=False)
    assert bounds.tolist() == [3, 4, 6, 8]
    assert inputs["segments"].runs == (
        (0, 1, 2, 0, 2), (2, 1, 1, 2, 1), (3, 1, 1, 3, 3), (4, 1, 2, 6, 3), (6, 1, 2, 9, 4)
    )  # fmt: skip


def test_a_pair_alone_is_cut_as_it_is_in_company():
    row = Rows(None, 0, 0).pack([pair([7, 8], 1)], share=True)
    assert (row.lengths, row.keys.tolist(), row.known) == ([2, 1], [0, 1, 0, 1, 2], [2, 3])


@pytest.mark.parametrize("batch", [[pair([7])], [pair([], 1), pair([], 2)], [pair([7]), pair([7])]])
def test_what_cannot_be_cut_lies_as_ever(batch):
    assert Rows(None, 0, 0).pack(batch, share=True).keys is None


# The largest that a score moved while a pair alone was scored whole: 7.5e-3 (bfloat16, Qwen2), 2e-3
# (float16, Qwen3), 9.4e-4 (int8, Qwen2); as it is now 5e-7.
@pytest.mark.seconds
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_company_changes_no_score_in_any_precision(model, dtype):
    scorer = load_scorer(ScorerConfig(**model, dtype=dtype))
    assert scorer.forward.shares
    together = scorer.score(PAIRS).raw
    alone = [scorer.score([pair]).raw[0] for pair in PAIRS]
    lots = [scorer.score(PAIRS[first : first + 5]).raw for first in range(0, len(PAIRS), 5)]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(lots), together, rtol=0, atol=1e-5)


def test_real_tokens_are_those_that_were_computed(model):
    scorer = load_scorer(ScorerConfig(**model))
    before = replace(computed)
    scorer.score([QueryDocumentPair(QUERIES[0], f"the river {i}") for i in range(30)])
    tokens = computed.tokens - before.tokens
    assert 0 < tokens == computed.computed_tokens - before.computed_tokens
