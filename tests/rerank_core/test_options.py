"""The scorer's options are those of ScorerConfig, and nothing else reaches it."""

from argparse import ArgumentParser

import pytest

from rerank_core import FirstStage, InvalidRequest, ScorerConfig
from rerank_core.options import add_scorer_options


def config_of(*arguments):
    parser = ArgumentParser(allow_abbrev=False)
    parser.add_argument("documents", nargs="*")
    config = add_scorer_options(parser)
    return config(parser.parse_args(arguments))


def test_what_is_not_given_is_left_to_the_config():
    assert config_of("a document", "b, c") == ScorerConfig()


def test_each_kind_of_value_arrives():
    given = ["--model", "lexical", "--max-length", "64", "--no-self-check", "--dtype", "float16"]
    wanted = ScorerConfig(model="lexical", max_length=64, self_check=False, dtype="float16")
    assert config_of(*given) == wanted


@pytest.mark.parametrize("text", ["Judge a, b and c.", '["a"]', '"quoted"', "50 % of it", "x=1"])
def test_a_text_is_taken_as_it_stands(text):
    assert config_of("--instruction", text).instruction == text


@pytest.mark.parametrize(
    "given",
    [
        ["--first-stage", '{"model": "lexical", "keep": 3}'],
        ["--first-stage.model", "lexical", "--first-stage.keep", "3"],
    ],
)
def test_the_first_stage_is_one_object_or_its_fields(given):
    assert config_of(*given).first_stage == FirstStage(model="lexical", keep=3)


def test_the_environment_and_the_documents_are_not_read(monkeypatch):
    monkeypatch.setenv("DEVICE", "cuda:7")
    monkeypatch.setenv("MODEL", "other")
    assert config_of("--threads", "1", '{"model": "third"}') == ScorerConfig(threads=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--max-length", "0", "--dtype", "int3"], "dtype: .*; max_length: Input should be"),
        (["--first-stage", "{"], "first_stage: "),
        (["--first-stage.keep", "0"], "first_stage.keep: "),
    ],
)
def test_every_wrong_field_is_named(given, message):
    with pytest.raises(InvalidRequest, match=message):
        config_of(*given)
