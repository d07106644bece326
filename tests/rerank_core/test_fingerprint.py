"""Equal fingerprints mean equal scores; what changes a score changes the fingerprint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rerank_core import ModelUnavailable, QueryDocumentPair, ScorerConfig, load_scorer
from tests.rerank_core.scorers import tiny_checkpoints

# Per family: the folder's name, how it is saved, its prompt, and the length that it resolves to.
FAMILIES = {
    "bert": ("bert", 128),
    "roberta": ("roberta", 128),
    "modernbert": ("modernbert", 256),
    "deberta": ("deberta", 128),
    "qwen3": ("Qwen3-Reranker-tiny", 1024),
    "gemma": ("bge-reranker-v2-gemma", 1024),
    "qwen2": ("mxbai-rerank-base-v2", 1024),
}
TEMPLATES = {
    "qwen3": "qwen3-reranker",
    "gemma": "bge-reranker-v2-gemma",
    "qwen2": "mxbai-rerank-v2",
}
PAIRS = [
    QueryDocumentPair("how many people live here", text)
    for text in ("a river", "the old town " * 3, "")
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    found = {}
    for kind, (name, _) in FAMILIES.items():
        (root / name).mkdir()
        if kind in TEMPLATES:
            found[kind] = tiny_checkpoints.save_causal(root / name, kind)
        else:
            found[kind] = getattr(tiny_checkpoints, f"save_{kind}")(root / name)
    return found


def config(folder, **options) -> ScorerConfig:
    return ScorerConfig(model=str(folder), device="cpu", self_check=False, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_fingerprints_are_equal_scores(folders, family, tmp_path):
    """Over backend, folder, spelled and default settings, and what training leaves behind."""
    folder, (name, longest) = folders[family], FAMILIES[family]
    moved = shutil.copytree(folder, tmp_path / "elsewhere-rerank-gemma" / name)
    (moved / "trainer_state.json").write_text("{}")
    (moved / "README.md").write_text("# trained")
    shutil.copytree(folder, moved / "checkpoint-500")
    spelled = {"activation": "sigmoid", "max_length": longest, "max_query_tokens": longest * 3 // 4}
    if family in TEMPLATES:
        spelled["template"] = TEMPLATES[family]
    same = [
        config(folder),
        config(folder, backend="cross_encoder"),
        config(moved, **spelled),
        config(folder, passage_overlap=7, max_passages=3, passage_score="mean_of_top"),
        config(folder, max_batch_tokens=300, threads=1, cache_pairs=9, local_files_only=True),
    ]
    assert {one.fingerprint() for one in same} == {same[0].fingerprint()}
    scorers = [load_scorer(one) for one in same[:3]]
    assert {scorer.info.fingerprint for scorer in scorers} == {same[0].fingerprint()}
    raw = [scorer.score(PAIRS).raw for scorer in scorers]
    for other in raw[1:]:
        np.testing.assert_allclose(other, raw[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"max_length": 64},
        {"max_query_tokens": 20},
        {"activation": "identity"},
        {"long_documents": "split"},
        {"long_documents": "split", "passage_tokens": 40},
        {"long_documents": "split", "passage_score": "mean_of_top"},
        {"long_documents": "split", "max_passages": 3},
        {"first_stage": {"model": "lexical", "keep": 10}},
        {"first_stage": {"model": "lexical", "keep": 20}},
        {"first_stage": {"model": "lexical", "max_length": 99, "keep": 20}},
    ],
)
def test_what_changes_a_score_changes_the_fingerprint(folders, change):
    known = {config(folders["bert"]).fingerprint()}
    assert config(folders["bert"], **change).fingerprint() not in known


def test_every_change_is_another_fingerprint(folders):
    changes = test_what_changes_a_score_changes_the_fingerprint.pytestmark[0].args[1]
    found = [config(folders["bert"], **change).fingerprint() for change in changes]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "change",
    [{"template": "mxbai-rerank-v2"}, {"instruction": "Find tools."}, {"template": "own.yaml"}],
)
def test_another_prompt_is_another_fingerprint(folders, tmp_path, change):
    if change.get("template") == "own.yaml":
        change = {"template": str(tmp_path / "own.yaml")}
        (tmp_path / "own.yaml").write_text(
            'name: own\nbefore: ["Q {query}"]\ndocument: "D {document}"\nbehind: ["?"]\n'
            'positive: "yes"\n'
        )
    before, after = (config(folders["qwen3"], **asked) for asked in ({}, change))
    assert before.fingerprint() != after.fingerprint()
    raw = [load_scorer(one).score(PAIRS).raw for one in (before, after)]
    assert abs(raw[0] - raw[1]).max() > 1e-4


def test_the_family_s_own_instruction_spelled_out_changes_nothing(folders):
    spelled = "Given a web search query, retrieve relevant passages that answer the query"
    same = config(folders["qwen3"], instruction=spelled).fingerprint()
    assert same == config(folders["qwen3"]).fingerprint()


def test_a_folders_name_never_lends_a_model_a_foreign_prompt(folders, tmp_path):
    """The same files under the name of another family had their order reversed."""
    moved = shutil.copytree(folders["qwen3"], tmp_path / "bge-reranker-v2-gemma-like")
    with pytest.raises(ModelUnavailable, match="without a known reranking prompt"):
        config(moved).fingerprint()
    asked = config(moved, template="qwen3-reranker")
    assert asked.fingerprint() == config(folders["qwen3"]).fingerprint()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "sentencepiece.model"])
def test_weights_and_vocabularies_count(folders, tmp_path, name):
    folder = shutil.copytree(folders["bert"], tmp_path / "model")
    before = config(folder).fingerprint()
    with open(folder / name, "ab") as file:
        file.write(b" ")
    assert config(folder).fingerprint() != before


def test_settings_of_the_model_count_and_notes_on_it_do_not(folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "model")
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    before = config(folder).fingerprint()
    path.write_text(json.dumps(settings | {"transformers_version": "9", "_name_or_path": "x"}))
    assert config(folder).fingerprint() == before
    path.write_text(json.dumps(settings | {"layer_norm_eps": 0.1}))
    assert config(folder).fingerprint() != before


def test_the_lexical_scorer_never_shares_a_fingerprint_with_a_model(folders):
    lexical = config(folders["bert"], backend="lexical", dtype="bfloat16")
    assert lexical.fingerprint() != config(folders["bert"]).fingerprint()
    assert lexical.fingerprint() == ScorerConfig(model="lexical").fingerprint()


def hub(root: Path, folder: Path, commit: str = "c" * 40) -> None:
    """Lay a checkpoint into a cache of the hub's as its client does."""
    repo = root / "models--someone--reranker"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(commit)


def test_an_unpinned_hub_model_is_pinned_and_says_to_what(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub(tmp_path, folders["bert"])
    options = {"device": "cpu", "self_check": False, "local_files_only": True}
    asked = ScorerConfig(model="someone/reranker", **options)
    pinned = ScorerConfig(model="someone/reranker", revision="c" * 40, **options)
    first = asked.fingerprint()
    assert first == pinned.fingerprint()
    hub(tmp_path, folders["bert"], "d" * 40)
    assert asked.fingerprint() != first
    assert pinned.fingerprint() == first


def test_a_hub_model_that_is_not_here_has_no_fingerprint():
    config = ScorerConfig(model="someone/reranker", local_files_only=True)
    with pytest.raises(ModelUnavailable, match="neither a local folder nor in the local cache"):
        config.fingerprint()
