"""What is read of a checkpoint is what loaders read; what is damaged or unknown is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import _CACHED_NO_EXIST
from huggingface_hub.errors import EntryNotFoundError, FileMetadataError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from rerank_core import ModelUnavailable, QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.catalog.checkpoint import Checkpoint
from rerank_core.catalog.resolve import resolve
from tests.rerank_core.catalog.conftest import asked, change

PAIR = QueryDocumentPair("who", "a river")


def refusal(config: ScorerConfig) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        config.fingerprint()
    return str(caught.value)


def add_shard(folder) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors"),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_beside_shards_the_one_file_is_what_serves_and_what_is_hashed(bert):
    """The shards were hashed, so that another model had the fingerprint of the first."""
    add_shard(bert)
    before = load_scorer(asked(bert))
    weights = load_file(bert / "model.safetensors")
    weights["classifier.weight"] *= -3
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    after = load_scorer(asked(bert))
    assert before.score([PAIR]).raw != pytest.approx(after.score([PAIR]).raw, abs=1e-3)
    assert before.info.fingerprint != after.info.fingerprint


def test_shards_alone_are_hashed(bert):
    whole = load_scorer(asked(bert)).score([PAIR]).raw
    add_shard(bert)
    (bert / "model.safetensors").unlink()
    before = load_scorer(asked(bert))
    np.testing.assert_array_equal(before.score([PAIR]).raw, whole)
    shard = bert / "model-00001-of-00001.safetensors"
    weights = load_file(shard)
    weights["classifier.weight"] *= -3
    save_file(weights, shard, metadata={"format": "pt"})
    assert asked(bert).fingerprint() != before.info.fingerprint


def test_weights_under_another_name_are_named_and_not_called_pickled(bert):
    (bert / "model.safetensors").rename(bert / "mine.safetensors")
    message = refusal(asked(bert))
    assert "no model.safetensors" in message
    assert "rename mine.safetensors" in message


@pytest.mark.parametrize(
    ("weights", "told"),
    [("0/pytorch_model.bin", "only pickled weights"), (None, "fetch the complete checkpoint")],
)
def test_modules_without_weights_are_refused_before_a_worker_loads_them(bert, weights, told):
    """A job was planned, and every worker failed."""
    (bert / "modules.json").write_text("[]")
    (bert / "model.safetensors").unlink()
    (bert / "0").mkdir()
    if weights is not None:
        (bert / weights).touch()
    assert told in refusal(asked(bert))


def test_modules_may_have_their_weights_in_folders_of_their_own(bert):
    change(bert / "config.json", architectures=["BertModel"])
    kind = "sentence_transformers.models.Transformer"
    (bert / "modules.json").write_text(json.dumps([{"idx": 0, "path": "0", "type": kind}]))
    said = '{"model_type": "CrossEncoder"}'
    (bert / "config_sentence_transformers.json").write_text(said)
    (bert / "0").mkdir()
    (bert / "model.safetensors").rename(bert / "0" / "model.safetensors")
    assert resolve(asked(bert)).engine == "sentence_transformers"


def test_an_adapter_is_one_although_the_base_s_config_lies_beside(bert, tmp_path):
    """Trainers leave it there; the folder was said to have only pickled weights."""
    lora = tmp_path / "lora"
    lora.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(bert)}
    (lora / "adapter_config.json").write_text(json.dumps(settings))
    shutil.copy(bert / "config.json", lora)
    found = resolve(asked(lora))
    assert (found.adapter, found.source.folder) == (lora, bert)


def test_a_classifier_s_adapter_on_a_language_model_says_to_merge_both(bert, tmp_path):
    """It was told to name the model that it was trained on, which it did."""
    lora = tmp_path / "lora"
    lora.mkdir()
    settings = {"task_type": "SEQ_CLS", "base_model_name_or_path": str(bert)}
    (lora / "adapter_config.json").write_text(json.dumps(settings))
    change(bert / "config.json", architectures=["Qwen3ForCausalLM"], model_type="qwen3")
    assert "merge both first with peft" in refusal(asked(lora, template="qwen3-reranker"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", "[]", "config.json is damaged: it is not an object"),
        ("config.json", '{"architectures": 3}', "belongs there (TypeError"),
        ("config.json", '{"id2label": ["a", "b"]}', "belongs there (AttributeError"),
        ("modules.json", "{}", "modules.json is damaged: it is not a list"),
        ("modules.json", "[3]", "modules.json is damaged: it lists no modules"),
        ("tokenizer_config.json", '{"model_max_length": "many"}', "model_max_length is 'many'"),
    ],
)
def test_a_damaged_small_file_is_a_line_and_no_traceback(bert, name, content, told):
    (bert / name).write_text(content)
    assert told in refusal(asked(bert))


@pytest.mark.parametrize(("said", "limit"), [("Infinity", 128), ('"48"', 48), ("NaN", 128)])
def test_a_limit_may_be_infinite_or_written_as_a_string(bert, said, limit):
    (bert / "tokenizer_config.json").write_text(f'{{"model_max_length": {said}}}')
    assert resolve(asked(bert)).max_length == limit


def test_an_index_without_its_map_is_a_line_and_no_traceback(bert):
    (bert / "model.safetensors").unlink()
    (bert / "model.safetensors.index.json").write_text("{}")
    assert "it has no weight_map; fetch it again" in refusal(asked(bert))


@pytest.fixture
def hub(bert, tmp_path, monkeypatch):
    """A model on a hub that can be switched off, after its config.json was read."""
    commit = shutil.copytree(bert, tmp_path / "snapshots" / ("c" * 40))
    identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (commit / "config_sentence_transformers.json").write_text(json.dumps(identity))
    state = {"down": False}

    def download(repository, name, **options):
        if state["down"] and name != "config.json":
            raise LocalEntryNotFoundError("the hub cannot be reached")
        if not (commit / name).is_file():
            raise EntryNotFoundError("no such file")
        return str(commit / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return state


def test_a_hub_that_goes_away_is_no_file_that_is_not_there(hub):
    """What it did not say was taken for no: another activation, and another fingerprint."""
    config = ScorerConfig(model="some/reranker")
    assert resolve(config).activation == "identity"
    hub["down"] = True
    message = refusal(config)
    assert "whether it has a modules.json, which may change its scores, is not known" in message
    assert "the hub cannot be reached; check the network" in message
    assert "or set local_files_only if the cache has it" in message


@pytest.mark.parametrize("known", ["local_files_only", "offline", "seen"])
def test_a_file_that_is_known_to_be_none_needs_no_hub(hub, monkeypatch, known):
    hub["down"] = True
    if known == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if known == "seen":
        monkeypatch.setattr(
            "huggingface_hub.try_to_load_from_cache", lambda *a, **k: _CACHED_NO_EXIST
        )
    checkpoint = Checkpoint("some/reranker", "some/reranker", "c" * 40, known == "local_files_only")
    assert checkpoint.file("modules.json") is None


def keep_listing(root: Path, *names: str) -> Path:
    """Note in a cache what the commit has, as `hf download` does; return the repository's place."""
    repository = root / "models--some--reranker"
    (repository / "trees").mkdir(parents=True)
    files = {name: {"size": 1, "blob_id": "b"} for name in names}
    listing = repository / "trees" / f"{'c' * 40}.json"
    listing.write_text(json.dumps({"format_version": 1, "files": files}))
    return repository


def test_a_whole_cache_needs_neither_a_hub_nor_a_setting(bert, tmp_path, monkeypatch):
    """It has no marks of what is absent, so a machine without a network refused the model."""
    repository = keep_listing(tmp_path, "config.json", "model.safetensors")
    shutil.copytree(bert, repository / "snapshots" / ("c" * 40))
    for name, value in {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": False,
                        "ENDPOINT": "http://127.0.0.1:1"}.items():  # fmt: skip
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    found = resolve(ScorerConfig(model="some/reranker", revision="c" * 40))
    assert found.source == Checkpoint("some/reranker", "some/reranker", "c" * 40, False)


def test_a_file_that_the_listing_has_and_the_cache_lacks_is_not_absent(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    keep_listing(tmp_path, "config.json", "model.safetensors", "modules.json")
    hub["down"] = True
    assert "whether it has a modules.json" in refusal(ScorerConfig(model="some/reranker"))


def test_a_mirror_whose_answer_the_client_cannot_use_is_not_called_unreachable(monkeypatch):
    def download(*given, **named):
        raise LocalEntryNotFoundError("not found") from FileMetadataError("no commit hash")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    message = refusal(ScorerConfig(model="some/reranker"))
    assert "lacks the headers that its client needs" in message
    assert "cannot be reached" not in message
