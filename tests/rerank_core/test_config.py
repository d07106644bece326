"""The config refuses typos and impossible values."""

import pytest
from pydantic import ValidationError

from rerank_core import ScorerConfig


@pytest.mark.parametrize(
    "wrong",
    [{"modle": "x"}, {"dtype": "int4"}, {"max_length": 1}, {"first_stage": {"kepe": 3}}],
)
def test_typos_and_impossible_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        ScorerConfig.model_validate(wrong)


def test_a_template_is_a_family_a_file_or_the_plain_pair():
    for name in ("qwen3-reranker", "own.yaml", "pair"):
        assert ScorerConfig(template=name).template == name
    with pytest.raises(ValidationError, match="use one of qwen3-reranker"):
        ScorerConfig(template="qwen4-reranker")


def test_a_first_stage_is_a_scorer_of_its_own_on_the_same_machine():
    config = ScorerConfig(
        model="a/b",
        device="cpu",
        dtype="bfloat16",
        template="pair",
        trust_remote_code=True,
        long_documents="split",
        max_batch_tokens=9,
        first_stage={"model": "lexical", "max_length": 99, "keep": 5},
    )
    assert config.first_stage_config() == ScorerConfig(
        model="lexical", max_length=99, device="cpu", dtype="bfloat16"
    )
    assert ScorerConfig().first_stage_config() is None
