from pathlib import Path

import pytest
import yaml

from pipelines.settings import load_config
from rerank_core import InvalidRequest

EXAMPLE = Path(__file__).parents[2] / "pipelines" / "rerank_job.yaml"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    import os

    for name in list(os.environ):
        if name.upper().startswith("RERANK_JOB_"):
            monkeypatch.delenv(name)


def test_the_command_line_wins_over_the_environment_and_that_over_yaml(monkeypatch, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(
        "input: a\noutput: b\ntop_k: 1\nunit_pairs: 1\nscorer: {model: one, dtype: float16}"
    )
    monkeypatch.setenv("RERANK_JOB_TOP_K", "2")
    monkeypatch.setenv("RERANK_JOB_UNIT_PAIRS", "2")
    monkeypatch.setenv("RERANK_JOB_SCORER__MODEL", "two")
    config = load_config(["--config", str(file), "--top-k", "3", "--model", "three"])
    scorer = config.scorer
    assert (config.top_k, config.unit_pairs, scorer.model, scorer.dtype) == (
        3,
        2,
        "three",
        "float16",
    )


def test_the_example_names_the_pinned_production_model():
    config = load_config(["--config", str(EXAMPLE)])
    assert config.scorer.model == "BAAI/bge-reranker-v2-m3"
    assert config.scorer.revision == "953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e"
    assert config.input == ("candidates/",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_n": 3}, "top_n: Extra inputs are not permitted"),
        ({"scorer": {"modle": "x"}}, "scorer.modle: Extra inputs are not permitted"),
        ({"names": {"docid": "x"}}, "names.docid: Extra inputs are not permitted"),
        ({"top_k": 0}, "top_k: Input should be greater than or equal to 1"),
        ({"replicas": "many"}, "replicas: String should match pattern"),
        ({"input": ""}, "input: Tuple should have at least 1 item"),
    ],
)
def test_a_wrong_key_is_refused_with_its_path(tmp_path, changes, message):
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"input": "a", "output": "b"} | changes))
    with pytest.raises(InvalidRequest, match=message):
        load_config(["--config", str(file)])


def test_a_mistyped_variable_is_refused(monkeypatch):
    monkeypatch.setenv("RERANK_JOB_TOPK", "2")
    with pytest.raises(InvalidRequest, match="RERANK_JOB_TOPK"):
        load_config(["--input", "a", "--output", "b"])


def test_a_missing_config_file_is_said():
    with pytest.raises(InvalidRequest, match="no config file at nowhere"):
        load_config(["--config=nowhere"])


def test_several_inputs_are_separated_by_commas():
    config = load_config(
        ["--input", "a,b/*.parquet", "--output", "c", "--columns", "query_id,doc_id"]
    )
    assert config.input == ("a", "b/*.parquet")
    assert config.columns == ("query_id", "doc_id")


@pytest.mark.parametrize(
    ("option", "address", "said"),
    [
        ("--trec-run", "s3://bucket/run", "must be a path of a file system"),
        ("--output", "ftp://host/out", "address of an object store: s3://, gs://, az://"),
        ("--output", "s3://bucket", "is a bucket; name a folder in it, as in s3://bucket/reranked"),
        ("--output", "s3://bucket/out?region=x", "set endpoint and region in the environment"),
        ("--output", "s3://key:secret@bucket/out", "has a secret in it"),
    ],
)
def test_an_address_to_which_no_job_can_write_is_refused(option, address, said):
    arguments = ["--input", "in", "--output", "out", option, address]
    with pytest.raises(InvalidRequest, match=said):
        load_config(arguments)


@pytest.mark.parametrize("option", ["--output", "--reuse", "--trec-run"])
def test_a_relative_path_in_the_copy_that_a_submitted_job_works_in_is_refused(monkeypatch, option):
    arguments = ["--input", "in", "--output", "/mnt/out", option, "out"]
    assert load_config(arguments)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InvalidRequest, match="is relative to the copy of the working folder"):
        load_config(arguments)


def test_the_size_of_files_is_given_as_people_write_it():
    options = ["--input", "a", "--output", "b", "--file-size"]
    assert load_config([*options, "256MB"]).file_size == 256_000_000
    with pytest.raises(InvalidRequest, match="file_size: Input should be greater than 0"):
        load_config([*options, "0"])


def test_what_a_job_takes_over_is_told_in_yaml_or_by_option(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("input: a\noutput: b\nappend: true\nreuse: s3://bucket/former\n")
    config = load_config(["--config", str(file)])
    assert (config.append, config.reuse, config.keep_scores) == (True, "s3://bucket/former", True)
    options = ["--append", "--reuse", "former", "--no-keep-scores"]
    config = load_config(["--input", "a", "--output", "b", *options])
    assert (config.append, config.reuse, config.keep_scores) == (True, "former", False)
    with pytest.raises(InvalidRequest, match="append adds to the finished result that overwrite"):
        load_config(["--input", "a", "--output", "b", "--append", "--overwrite"])
