"""Code of a checkpoint counts in its fingerprint where it runs, and nowhere else."""

import pytest

from rerank_core import ModelUnavailable
from rerank_core.catalog.resolve import resolve
from tests.rerank_core.catalog.conftest import CODE, add_code, asked, change

TRUSTED = {"trust_remote_code": True}
COMMIT = {"code_revision": "e" * 40}


def test_code_that_runs_is_another_fingerprint_than_code_that_does_not(bert):
    """The class doubles every logit; trusted or not, the fingerprint was the same."""
    add_code(bert)
    assert asked(bert, **TRUSTED).fingerprint() != asked(bert).fingerprint()


def test_which_code_runs_counts(bert):
    add_code(bert)
    before = asked(bert, **TRUSTED).fingerprint()
    add_code(bert, CODE.replace("* 2", "* 3"))
    after = asked(bert, **TRUSTED).fingerprint()
    change(bert / "config.json", auto_map={"AutoModelForSequenceClassification": "doubled.Other"})
    assert len({before, after, asked(bert, **TRUSTED).fingerprint()}) == 3


@pytest.mark.parametrize("options", [TRUSTED, TRUSTED | COMMIT, COMMIT, {}])
def test_code_that_does_not_run_counts_for_nothing(bert, options):
    """A training script beside the weights, and a commit of code that a plain BERT has not."""
    plain = asked(bert).fingerprint()
    (bert / "train.py").write_text("raise SystemExit")
    assert asked(bert, **options).fingerprint() == plain


def test_a_commit_of_code_that_lies_in_the_folder_counts_for_nothing(bert):
    add_code(bert)
    with_commit = asked(bert, **TRUSTED, **COMMIT).fingerprint()
    assert with_commit == asked(bert, **TRUSTED).fingerprint()


def test_code_of_another_repository_counts_with_its_commit(bert, monkeypatch):
    change(bert / "config.json", auto_map={"AutoModel": "someone/impl--modeling.Model"})
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *given, **named: "modeling.py")
    found = resolve(asked(bert, **TRUSTED, **COMMIT))
    assert found.code == [{"AutoModel": "someone/impl--modeling.Model"}, {}, [], "e" * 40]


def test_a_tokenizer_s_code_of_another_repository_is_pinned_too(bert):
    classes = {"AutoTokenizer": ["someone/impl--tok.Tok", None]}
    change(bert / "tokenizer_config.json", auto_map=classes)
    with pytest.raises(ModelUnavailable, match="someone/impl, which `revision` does not pin"):
        asked(bert, **TRUSTED).fingerprint()
