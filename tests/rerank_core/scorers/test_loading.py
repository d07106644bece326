"""A checkpoint that cannot be served safely is refused, and the message says the fix."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rerank_core import ModelUnavailable, QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.scorers import device as device_module
from rerank_core.scorers.device import resolve_device
from rerank_core.scorers.encoder import items_of
from tests.rerank_core.scorers.conftest import random_config


def refusal(model, **options) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        load_scorer(random_config(model=str(model), device="cpu", **options))
    return str(caught.value)


@pytest.fixture
def checkpoint(tiny_models, tmp_path):
    return shutil.copytree(tiny_models["bert"], tmp_path / "model")


def test_a_path_without_a_folder(tmp_path):
    assert "there is no folder" in refusal(tmp_path / "nowhere")


def test_a_folder_without_a_model(tmp_path):
    assert "no config.json in its folder" in refusal(tmp_path)


def test_pickled_weights(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    assert "only pickled weights" in refusal(checkpoint)


def test_no_weights_at_all(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    assert "fetch the complete checkpoint" in refusal(checkpoint)


def test_damaged_weights(checkpoint):
    (checkpoint / "model.safetensors").write_bytes(b"\x00" * 100)
    assert "cannot be loaded" in refusal(checkpoint) or "safetensors" in refusal(checkpoint)


@pytest.mark.parametrize("backend", ["auto", "cross_encoder"])
@pytest.mark.parametrize("family", ["bert", "xlm_roberta", "deberta"])
def test_a_head_that_is_not_in_the_file_never_serves_random_scores(
    tiny_models, tmp_path, backend, family
):
    folder = shutil.copytree(tiny_models[family], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "classifier" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    message = refusal(folder, backend=backend)
    assert "weights are missing from the checkpoint (classifier" in message


def test_remote_code(checkpoint):
    (checkpoint / "strange.py").write_text("raise SystemExit('ran')")
    change_config(
        checkpoint,
        model_type="strange",
        auto_map={
            "AutoConfig": "strange.StrangeConfig",
            "AutoModelForSequenceClassification": "strange.Strange",
        },
    )
    assert "comes with its own Python code, which is refused" in refusal(checkpoint)


def test_a_hub_model_without_network():
    message = refusal("nobody/nothing-of-this-name", local_files_only=True)
    assert "neither a local folder nor in the local cache" in message


def test_a_device_that_is_not_here(checkpoint):
    with pytest.raises(ModelUnavailable, match="'cuda:99' is not here"):
        load_scorer(random_config(model=str(checkpoint), device="cuda:99"))


def test_packed_asked_for_where_it_cannot_be(tiny_models):
    message = refusal(tiny_models["deberta"], backend="packed")
    assert "cannot be scored packed" in message


@pytest.mark.parametrize(
    ("declared", "asked", "expected"),
    [
        (None, "auto", "sigmoid"),
        ("torch.nn.modules.linear.Identity", "auto", "identity"),
        ("torch.nn.modules.linear.Identity", "sigmoid", "sigmoid"),
    ],
)
def test_the_activation_is_what_the_checkpoint_declares(checkpoint, declared, asked, expected):
    if declared:
        change_config(checkpoint, sentence_transformers={"activation_fn": declared})
    scorer = load_scorer(random_config(model=str(checkpoint), device="cpu", activation=asked))
    assert scorer.info.activation == expected


def test_an_unknown_activation(checkpoint):
    change_config(checkpoint, sentence_transformers={"activation_fn": "mine.Cubed"})
    assert "set `activation` to sigmoid or identity" in refusal(checkpoint)


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_threads_are_what_the_caller_grants(checkpoint):
    before = torch.get_num_threads()
    try:
        load_scorer(random_config(model=str(checkpoint), device="cpu", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("family", ["bert", "deberta"])
def test_warming_up_runs_the_largest_budget(tiny_models, family):
    folder = str(tiny_models[family])
    scorer = load_scorer(
        random_config(model=folder, device="cpu", max_length=60, max_batch_tokens=300)
    )
    looked_up = []

    def count(module, inputs):
        if isinstance(module, torch.nn.Embedding):
            looked_up.append(inputs[0].numel())

    hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        scorer.warm_up()
    finally:
        hook.remove()
    assert max(looked_up) == 300


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "deberta"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near_float32(tiny_models, family, dtype):
    pairs = [QueryDocumentPair("who lives here", "the old town " * n) for n in range(1, 12)]
    folder = str(tiny_models[family])
    full, half = (
        load_scorer(random_config(model=folder, device="cpu", dtype=kind)).score(pairs)
        for kind in ("float32", dtype)
    )
    np.testing.assert_allclose(half.raw, full.raw, rtol=0, atol=0.03)


def test_a_pair_is_scored_again_in_float32_and_the_model_goes_back(tiny_models):
    folder = str(tiny_models["bert"])
    exact = load_scorer(random_config(model=folder, device="cpu"))
    half = load_scorer(random_config(model=folder, device="cpu", dtype="bfloat16"))
    pair = QueryDocumentPair("who lives here", "the old town")
    before = half.score([pair]).raw[0]
    with half.forward.exactly():
        (found,) = half.forward(items_of(half.prepare([pair])))
    assert float(found) == pytest.approx(exact.score([pair]).raw[0], abs=2e-2)
    assert half.score([pair]).raw[0] == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_reads_the_end_of_a_long_text_where_it_stands(tiny_models, dtype):
    """Rotary frequencies stay in float32: rounded, they move the last tokens of long texts."""
    folder = str(tiny_models["modernbert"])
    scorer = load_scorer(random_config(model=folder, device="cpu", dtype=dtype))
    assert {
        buffer.dtype for buffer in scorer.forward.module.buffers() if buffer.is_floating_point()
    } == {torch.float32}
    assert {weight.dtype for weight in scorer.forward.module.parameters()} == {
        getattr(torch, dtype)
    }


@pytest.mark.parametrize("backend", ["packed", "cross_encoder"])
def test_scoring_one_pair_in_float32_leaves_no_trace(tiny_models, backend):
    folder = str(tiny_models["modernbert"])
    scorer = load_scorer(
        random_config(model=folder, device="cpu", dtype="bfloat16", backend=backend)
    )
    pair = QueryDocumentPair("who lives here", "the old town and the river " * 20)
    before = scorer.score([pair]).raw[0]
    with scorer.forward.exactly():
        scorer.forward(items_of(scorer.prepare([pair])))
    assert scorer.score([pair]).raw[0] == before


@pytest.mark.parametrize("backend", ["packed", "cross_encoder"])
def test_the_activation_that_sentence_transformers_6_saves_in_a_file_of_its_own(
    checkpoint, backend
):
    declared = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(declared))
    scorer = load_scorer(random_config(model=str(checkpoint), device="cpu", backend=backend))
    assert scorer.info.activation == "identity"


def test_a_device_of_another_kind(checkpoint):
    with pytest.raises(
        ModelUnavailable, match="'meta' is not supported; use auto, cpu, cuda, mps or xpu"
    ):
        load_scorer(random_config(model=str(checkpoint), device="meta"))


@pytest.mark.parametrize("device", ["mps", "xpu", "xpu:3"])
def test_a_device_of_apple_or_intel_that_is_not_here(checkpoint, device):
    kind = device.split(":")[0].upper()
    with pytest.raises(ModelUnavailable, match=f"'{device}' is not here: 0 {kind} devices are"):
        load_scorer(random_config(model=str(checkpoint), device=device))


@pytest.mark.parametrize(
    ("kind", "dtype", "warned"),
    [("cuda", "float32", 1), ("cuda", "bfloat16", 0), ("cpu", "float32", 0)],
)
def test_float32_on_a_gpu_is_warned_of(caplog, monkeypatch, kind, dtype, warned):
    monkeypatch.setitem(device_module._KINDS, "cuda", lambda: 1)
    resolve_device(ScorerConfig(model="m", dtype=dtype, device=kind))
    assert len(caplog.messages) == warned
    assert all("set dtype: bfloat16" in message for message in caplog.messages)


@pytest.mark.parametrize("backend", ["packed", "cross_encoder"])
def test_no_backend_reads_beyond_the_positions_of_the_model(tiny_models, tmp_path, backend):
    folder = shutil.copytree(tiny_models["xlm_roberta"], tmp_path / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 10**30}))
    scorer = load_scorer(random_config(model=str(folder), device="cpu", backend=backend))
    scores = scorer.score([QueryDocumentPair("who", "the old town " * 200)])
    assert (scores.errors, scores.tokens.tolist()) == ({}, [128])


def test_more_than_the_model_can_read_is_said_and_not_done(checkpoint, caplog):
    scorer = load_scorer(random_config(model=str(checkpoint), device="cpu", max_length=1000))
    assert scorer.info.max_length == 128
    assert f"max_length 1000 is more than '{checkpoint}' can read; using 128" in caplog.messages
