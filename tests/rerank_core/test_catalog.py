"""The prompts are those of the models' authors, and a model finds its family."""

import pytest

from rerank_core.catalog import (
    BGE_GEMMA,
    CAUSAL_FAMILIES,
    MXBAI_V2,
    QWEN3_RERANKER,
    find_family,
)


def prompt(family, query, document, instruction=None):
    head, tail = family.head_pieces(query, instruction), family.tail_pieces(instruction)
    return "".join([*head, family.document_piece(document), *tail])


def test_qwen3():
    assert prompt(QWEN3_RERANKER, "who?", "me") == (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query"
        ' and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that"
        " answer the query\n<Query>: who?\n<Document>: me<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n"
    )


def test_bge_gemma():
    assert prompt(BGE_GEMMA, "who?", "me") == (
        "A: who?\nB: me\nGiven a query A and a passage B, determine whether the passage contains an"
        " answer to the query by providing a prediction of either 'Yes' or 'No'."
    )


def test_mxbai():
    text = prompt(MXBAI_V2, "who?", "me")
    assert "<|im_start|>user\nquery: who?\ndocument: me\nYou are a search" in text
    assert text.endswith("Relevance:<|im_end|>\n<|im_start|>assistant\n")


def test_an_instruction_replaces_the_familys_own():
    text = prompt(QWEN3_RERANKER, "q", "d", "Find the tool.")
    assert "<Instruct>: Find the tool.\n<Query>: q" in text


def test_braces_in_texts_are_only_text():
    assert "{document} {0}" in prompt(QWEN3_RERANKER, "{document} {0}", "{query}")
    text = prompt(QWEN3_RERANKER, "{instruction}", "d", "{query}")
    assert "<Instruct>: {query}\n<Query>: {instruction}\n" in text


@pytest.mark.parametrize(
    ("model", "model_type", "template", "expected"),
    [
        ("Qwen/Qwen3-Reranker-0.6B", "qwen3", None, "qwen3-reranker"),
        ("BAAI/bge-reranker-v2-gemma", "gemma", None, "bge-reranker-v2-gemma"),
        ("mixedbread-ai/mxbai-rerank-large-v2", "qwen2", None, "mxbai-rerank-v2"),
        ("/models/my-own-reranker", "qwen3", None, "qwen3-reranker"),
        ("/models/plain", "qwen3", "qwen3-reranker", "qwen3-reranker"),
        ("Qwen/Qwen3-0.6B", "qwen3", None, None),
        ("/models/my-reranker", "llama", None, None),
        ("anything", "qwen3", "no-such-template", None),
    ],
)
def test_a_model_finds_its_family(model, model_type, template, expected):
    family = find_family(model, model_type, template)
    assert family == (None if expected is None else CAUSAL_FAMILIES[expected])
