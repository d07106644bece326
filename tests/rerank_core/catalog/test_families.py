"""The prompts are those of the models' authors, and a model finds its family."""

import pytest

from rerank_core.catalog.families import (
    BGE_GEMMA,
    FAMILIES,
    MXBAI_V2,
    QWEN3_RERANKER,
    find_family,
    read_template,
)


def prompt(family, query, document, instruction=None):
    before = family.pieces(family.before, query, instruction)
    behind = family.pieces(family.behind, "", instruction)
    return "".join(
        [*(text for text, _ in before), family.around(document), *(t for t, _ in behind)]
    )


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


def test_mxbais_instruction_has_a_line_of_its_own_before_the_query():
    text = prompt(MXBAI_V2, "who?", "me", "Find {query} people.")
    assert "<|im_start|>user\ninstruction: Find {query} people.\nquery: who?\ndocument: me" in text


def test_only_pieces_without_a_callers_text_may_hold_control_tokens():
    for family in FAMILIES.values():
        for piece in family.before + family.behind:
            assert not ("{" in piece and "<|" in piece)


def test_an_instruction_replaces_the_familys_own():
    text = prompt(QWEN3_RERANKER, "q", "d", "Find the tool.")
    assert "<Instruct>: Find the tool.\n<Query>: q" in text


def test_braces_in_texts_are_only_text():
    assert "{document} {0}" in prompt(QWEN3_RERANKER, "{document} {0}", "{query}")
    text = prompt(QWEN3_RERANKER, "{instruction}", "d", "{query}")
    assert "<Instruct>: {query}\n<Query>: {instruction}\n" in text


@pytest.mark.parametrize(
    ("model", "model_type", "expected"),
    [
        ("Qwen/Qwen3-Reranker-0.6B", "qwen3", "qwen3-reranker"),
        ("tomaarsen/Qwen3-Reranker-0.6B-seq-cls", "qwen3", "qwen3-reranker"),
        ("BAAI/bge-reranker-v2-gemma", "gemma", "bge-reranker-v2-gemma"),
        ("mixedbread-ai/mxbai-rerank-large-v2", "qwen2", "mxbai-rerank-v2"),
        ("/data/my_qwen3_reranker", "qwen3", "qwen3-reranker"),
        ("Qwen/Qwen3-0.6B", "qwen3", None),
        ("/models/my-own-reranker", "qwen3", None),
        ("/models/my-reranker", "llama", None),
    ],
)
def test_a_model_finds_its_family(model, model_type, expected):
    family = find_family(model, model_type)
    assert family == (None if expected is None else FAMILIES[expected])


def test_a_family_is_not_found_in_the_folders_above_nor_for_another_type():
    assert find_family("/data/qwen3-reranker-runs/checkpoint-500", "qwen3") is None
    assert find_family("/data/qwen3-reranker-runs/bge-reranker-v2-gemma", "gemma") is BGE_GEMMA
    assert find_family("/data/bge-reranker-v2-gemma-like", "qwen3") is None


OWN = """
name: mine
before: ["<|user|>", "Q: {query}"]
document: "D: {document}"
behind: ["{instruction}"]
positive: "yes"
negative: "no"
instruction: Judge.
"""


def test_a_file_says_how_a_model_of_ones_own_is_asked(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    assert prompt(read_template(str(path)), "who?", "me") == "<|user|>Q: who?D: meJudge."


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ('positive: "yes"', "positive: yes"),
            "positive: .*string.*quote words such as yes and no",
        ),
        (("name: mine", "nmae: mine"), "nmae"),
        (("Q: {query}", "Q:"), "needs {query} in `before`"),
        (("D: {document}", "D: {document}."), "must end with {document}"),
        (("name: mine", "[name"), "cannot be read"),
    ],
)
def test_a_template_that_cannot_be_used_says_why(tmp_path, change, told):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace(*change))
    with pytest.raises(ValueError, match=told):
        read_template(str(path))


def test_a_template_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_template(str(tmp_path / "none.yaml"))


FILLED = OWN.replace("behind: [", 'behind: ["?", ') + 'instruction_line: "Do: {instruction}"\n'


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('"?"', '"? {query}"'), "{query} in `behind` of template .* is never filled; use"),
        (('"?"', '"? {document}"'), "{document} in `behind` of template .* is never filled; use"),
        (("Q:", "{document}"), "{document} in `before` of template .* is never filled; use"),
        (("D:", "{query}"), "{query} in `document` of template .* is never filled; use {document}"),
        (("Do:", "{query}"), "in `instruction_line` of .* is never filled; use {instruction}"),
        (("D:", "{document} and"), "`document` in template .* must end with {document}, its only"),
    ],
)
def test_a_placeholder_that_is_never_filled_is_refused(tmp_path, change, told):
    path = tmp_path / "mine.yaml"
    path.write_text(FILLED)
    assert read_template(str(path)).document == "D: {document}"
    path.write_text(FILLED.replace(*change))
    with pytest.raises(ValueError, match=told):
        read_template(str(path))
