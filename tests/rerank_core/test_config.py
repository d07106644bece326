"""The config refuses typos, and its fingerprint changes exactly with what changes a score."""

import shutil

import pytest
from pydantic import ValidationError

from rerank_core import ScorerConfig

BASE = ScorerConfig(model="someone/reranker", revision="abc")


@pytest.mark.parametrize(
    "change",
    [
        {"model": "someone/other"},
        {"revision": "def"},
        {"dtype": "bfloat16"},
        {"max_length": 256},
        {"max_query_tokens": 64},
        {"activation": "identity"},
        {"template": "qwen3-reranker"},
        {"instruction": "Find tools."},
        {"long_documents": "split"},
        {"passage_tokens": 100},
        {"passage_score": "mean_of_top"},
        {"first_stage": {"keep": 10}},
        {"first_stage": {"keep": 20}},
    ],
)
def test_what_changes_a_score_changes_the_fingerprint(change):
    changed = ScorerConfig.model_validate(BASE.model_dump() | change)
    assert changed.fingerprint() != BASE.fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cuda:1"},
        {"max_batch_tokens": 100},
        {"threads": 2},
        {"cache_pairs": 10},
        {"self_check": False},
        {"calibration": "file.json"},
        {"local_files_only": True},
        {"backend": "packed"},
    ],
)
def test_what_does_not_change_a_score_keeps_it(change):
    changed = ScorerConfig.model_validate(BASE.model_dump() | change)
    assert changed.fingerprint() == BASE.fingerprint()


@pytest.mark.parametrize(
    "wrong",
    [{"modle": "x"}, {"dtype": "int8"}, {"max_length": 1}, {"first_stage": {"kepe": 3}}],
)
def test_typos_and_impossible_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        ScorerConfig.model_validate(wrong)


def test_the_same_weights_have_the_same_fingerprint_wherever_they_lie(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    (first / "config.json").write_text("{}")
    (first / "model.safetensors").write_bytes(b"weights")
    shutil.copytree(first, second)
    one, two = (ScorerConfig(model=str(folder)).fingerprint() for folder in (first, second))
    (second / "model.safetensors").write_bytes(b"others!")
    assert one == two != ScorerConfig(model=str(second)).fingerprint()


def test_the_lexical_backend_never_shares_a_fingerprint_with_the_model_it_stands_for():
    lexical = BASE.model_copy(update={"backend": "lexical"})
    assert lexical.fingerprint() != BASE.fingerprint()
    assert lexical.fingerprint() == ScorerConfig(model="lexical").fingerprint()


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "chat_template.jinja", "modeling.py"])
def test_vocabulary_prompt_and_code_of_a_folder_belong_to_its_fingerprint(tmp_path, name):
    (tmp_path / name).write_text("one")
    before = ScorerConfig(model=str(tmp_path)).fingerprint()
    (tmp_path / name).write_text("another")
    assert ScorerConfig(model=str(tmp_path)).fingerprint() != before
