"""Equal fingerprints mean equal scores; what changes a score changes the fingerprint."""

import json
import shutil
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertModel, Qwen2ForSequenceClassification, Qwen3ForSequenceClassification

from rerank_core import ModelUnavailable, QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.catalog.resolve import resolve
from tests.rerank_core.scorers import tiny_checkpoints
from tools.golden_scores import CONFIG, GOLDEN

# What a family's prompt is called, by the folder that it is found by.
TEMPLATES = {
    "Qwen3-Reranker-tiny": "qwen3-reranker",
    "bge-reranker-v2-gemma": "bge-reranker-v2-gemma",
    "mxbai-rerank-base-v2": "mxbai-rerank-v2",
    "Qwen3-Reranker-tiny-seq-cls": "qwen3-reranker",
    "mxbai-rerank-base-v2-seq": "mxbai-rerank-v2",
}


def modules(folder: Path) -> None:
    """A language model that sentence-transformers saved as modules of its own."""
    from sentence_transformers import CrossEncoder

    model = tiny_checkpoints.save_causal(folder / "model", "qwen3")
    CrossEncoder(str(model), device="cpu").save_pretrained(str(folder))
    shutil.rmtree(model)


def embedding(folder: Path) -> None:
    """A model that makes embeddings, of the kind of all-MiniLM and bge-m3."""
    modules_of(folder, "SentenceTransformer", "Transformer", "Pooling")


def headless(folder: Path) -> None:
    """One that says that it is a reranker, and has no head either."""
    modules_of(folder, "CrossEncoder", "Transformer")


def modules_of(folder: Path, model_type: str, *kinds: str) -> None:
    BertModel.from_pretrained(tiny_checkpoints.save_bert(folder)).save_pretrained(folder)
    listed = [{"name": f"{i}", "path": "", "type": KIND[kind]} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(listed))
    said = json.dumps({"model_type": model_type})
    (folder / "config_sentence_transformers.json").write_text(said)


KIND = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
}
# What no row of docs/models.md is, and what no score may come out of.
NO_RERANKERS = {"embedding": embedding, "headless": headless}
# Per family, by the name of its folder, how it is saved: every row of docs/models.md.
FAMILIES = {
    "bert": tiny_checkpoints.save_bert,
    "roberta": tiny_checkpoints.save_roberta,
    "xlm_roberta": tiny_checkpoints.save_xlm_roberta,
    "modernbert": tiny_checkpoints.save_modernbert,
    "modernbert-mean": partial(tiny_checkpoints.save_modernbert, classifier_pooling="mean"),
    "deberta": tiny_checkpoints.save_deberta,
    **{
        kind: partial(tiny_checkpoints.save_encoder, kind=kind)
        for kind in tiny_checkpoints.ENCODERS
    },
    "two-labels": partial(tiny_checkpoints.save_bert, num_labels=2),
    "Qwen3-Reranker-tiny": partial(tiny_checkpoints.save_causal, kind="qwen3"),
    "bge-reranker-v2-gemma": partial(tiny_checkpoints.save_causal, kind="gemma"),
    "mxbai-rerank-base-v2": partial(tiny_checkpoints.save_causal, kind="qwen2"),
    "Qwen3-Reranker-tiny-seq-cls": partial(
        tiny_checkpoints.save_causal,
        kind="qwen3", model_class=Qwen3ForSequenceClassification, num_labels=1,
    ),
    "mxbai-rerank-base-v2-seq": partial(
        tiny_checkpoints.save_causal,
        kind="qwen2", model_class=Qwen2ForSequenceClassification, num_labels=2,
    ),
    "modules": modules,
    "lexical": None,
}  # fmt: skip
PAIRS = [
    QueryDocumentPair("how many people live here", text)
    for text in ("a river", "the old town " * 3, "")
]
# Settings that no score depends on, or that only spell what they would be anyway.
NEUTRAL = ("backend", "moved", "max_length", "max_query_tokens", "activation", "template",
           "passages", "machine")  # fmt: skip
# Settings that some score depends on, and to what they are changed.
CHANGES = {
    "max_length": {"max_length": 60},
    "max_query_tokens": {"max_query_tokens": 3},
    "activation": {"activation": "identity"},
    "split": {"long_documents": "split", "passage_tokens": 20},
    "dtype": {"dtype": "bfloat16"},
}
PROMPTS = {
    "instruction": {"instruction": "Find the tool."},
    "template": {"template": "own.yaml"},
}


class Folders:
    """Checkpoints of every family, made when they are asked for, and the same ones elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "own.yaml").write_text(OWN_PROMPT)

    def __getitem__(self, family: str) -> Path:
        folder = self.root / family
        if not folder.is_dir():
            folder.mkdir()
            (FAMILIES | NO_RERANKERS)[family](folder)
        return folder

    @cache  # noqa: B019
    def plain(self, family: str):
        """The fingerprint and the scores of a family as it is, with nothing set."""
        scorer = load_scorer(asked(self, family, set(), None))
        return scorer.info.fingerprint, scorer.score(PAIRS).raw

    def moved(self, family: str) -> Path:
        """The same files below another family's name, with what training leaves beside them."""
        folder = self.root / "elsewhere-rerank-gemma" / family
        if not folder.is_dir():
            shutil.copytree(self[family], folder)
            (folder / "trainer_state.json").write_text("{}")
            (folder / "README.md").write_text("# trained")
            shutil.copytree(self[family], folder / "checkpoint-500")
        return folder

    def adapter(self, name: str) -> Path:
        """A LoRA adapter of a BERT's second layer."""
        folder = self.root / name
        if not folder.is_dir():
            folder.mkdir()
            target = "base_model.model.bert.encoder.layer.1.attention.self.query"
            torch.manual_seed(len(name))
            pair = {f"{target}.lora_A.weight": torch.randn(4, 64),
                    f"{target}.lora_B.weight": torch.randn(64, 4)}  # fmt: skip
            save_file(pair, folder / "adapter_model.safetensors")
            said = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
            (folder / "adapter_config.json").write_text(json.dumps(said))
        return folder

    def spoiled(self, family: str, how: str) -> Path:
        """A family's checkpoint as trainers, mergers and strangers leave it."""
        if how in ("as it is", "moved"):
            return self[family] if how == "as it is" else self.moved(family)
        folder = self.root / how.replace(" ", "-") / family
        if not folder.is_dir():
            shutil.copytree(self[family], folder)
            SPOIL[how](folder)
        return folder


def add_shard(folder: Path) -> None:
    """Shards beside the one file, as a merge leaves them."""
    weights = load_file(folder / "model.safetensors")
    shard = "model-00001-of-00001.safetensors"
    save_file(weights, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def change_one_file(folder: Path) -> None:
    """The same shards, and other weights in the one file."""
    add_shard(folder)
    weights = load_file(folder / "model.safetensors")
    changed = {name: weight * 1.5 for name, weight in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})


def add_code(folder: Path, factor: int = 2) -> None:
    """A class of its own, of a type that transformers knows: it multiplies what comes out."""
    path = folder / "config.json"
    said = json.loads(path.read_text())
    usual = said["architectures"][0]
    kind = "CausalLM" if usual.endswith("CausalLM") else "SequenceClassification"
    (folder / "own.py").write_text(
        f"from transformers import {usual}\nclass Own({usual}):\n"
        "    def forward(self, *given, **named):\n"
        "        out = super().forward(*given, **named)\n"
        f"        out.logits = out.logits * {factor}\n        return out\n"
    )
    path.write_text(json.dumps(said | {"auto_map": {f"AutoModelFor{kind}": "own.Own"}}))


SPOIL = {
    "both": add_shard,
    "two files": change_one_file,
    "code": add_code,
    "other code": partial(add_code, factor=3),
}
OWN_PROMPT = (
    'name: own\nbefore: ["Q {query}"]\ndocument: "D {document}"\nbehind: ["?"]\npositive: "yes"\n'
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # Where transformers copies a checkpoint's own code to run it.
        copies = tmp_path_factory.mktemp("code")
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(copies))
        patch.syspath_prepend(copies)
        yield Folders(tmp_path_factory.mktemp("families"))


def config(folder, **options) -> ScorerConfig:
    return ScorerConfig(model=str(folder), device="cpu", self_check=False, **options)


def asked(folders: Folders, family: str, neutral: set[str], change: str | None) -> ScorerConfig:
    """A config with some settings spelled, or changed where that is no matter, and one changed."""
    label = {"positive_label": "LABEL_1"} if family == "two-labels" else {}
    options = dict(label)
    place = "lexical" if family == "lexical" else folders[family]
    longest = resolve(config(place, **label)).max_length
    spelled = {
        "backend": {} if family == "lexical" else {"backend": "cross_encoder"},
        "max_length": {"max_length": longest},
        "max_query_tokens": {"max_query_tokens": longest * 3 // 4},
        "activation": {"activation": "sigmoid"},
        "template": {"template": TEMPLATES[family]} if family in TEMPLATES else {},
        "passages": {"passage_overlap": 7, "max_passages": 3, "passage_score": "mean_of_top"},
        "machine": {"max_batch_tokens": 300, "threads": 1, "cache_pairs": 9,
                    "local_files_only": True},
    }  # fmt: skip
    for name in neutral - {"moved"}:
        options |= spelled[name]
    if change is not None:
        options |= (CHANGES | PROMPTS)[change]
    if options.get("template") == "own.yaml":
        options["template"] = str(folders.root / "own.yaml")
    if "moved" in neutral and family != "lexical":
        place = folders.moved(family)
    return config(place, **options)


def changes_of(family: str) -> list[str]:
    """What can be changed of a family: the fake has no weights, a prompt only some."""
    if family == "lexical":
        return [name for name in CHANGES if name != "dtype"]
    return [*CHANGES, *(PROMPTS if family in TEMPLATES else ())]


@pytest.mark.seconds
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(
    max_examples=max(1, settings.default.max_examples // 50),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_equal_fingerprints_are_equal_scores(folders, family, data):
    """Over backend, folder, spelled and default settings, and what training leaves behind."""
    spelled = data.draw(st.sets(st.sampled_from(NEUTRAL)))
    same = load_scorer(asked(folders, family, spelled, None))
    plain, raw = folders.plain(family)
    assert same.info.fingerprint == plain
    np.testing.assert_allclose(same.score(PAIRS).raw, raw, rtol=0, atol=1e-5)
    # How documents are split no longer counts for nothing where they are.
    change = data.draw(st.sampled_from(changes_of(family)))
    assert asked(folders, family, spelled - {"passages"}, change).fingerprint() != plain


# Settings of any kind, as a user may write them, with none of them neutral by our word.
FREELY = {
    "max_length": (None, 40, 60, 10**6),
    "max_query_tokens": (None, 3, 500, 900),
    "activation": ("auto", "sigmoid", "identity"),
    "backend": ("auto", "cross_encoder"),
    "long_documents": ("truncate", "split"),
    "passage_tokens": (None, 16, 500),
    "passage_overlap": (7, 32, 99),
    "passage_score": ("max", "mean_of_top"),
    "max_passages": (1, 64),
    "dtype": ("float32", "bfloat16"),
    "template": (None, "own.yaml", "qwen3-reranker"),
    "instruction": (None, "Find the tool."),
    "first_stage": (None, {"model": "lexical", "keep": 1}, {"model": "lexical", "keep": 2}),
    "trust_remote_code": (False, True),
    "code_revision": (None, "e" * 40),
    "adapter": (None, "adapter", "another-adapter"),
    # What is done to the checkpoint, of those below.
    "spoiled": ("as it is", "moved", "both", "two files", "code", "other code"),
}


def free_config(folders: Folders, family: str, drawn: dict) -> ScorerConfig:
    """Return the config of some drawn settings, its files made."""
    options = {name: value for name, value in drawn.items() if name != "spoiled"}
    if family == "two-labels":
        options["positive_label"] = "LABEL_1"
    if options["template"] == "own.yaml":
        options["template"] = str(folders.root / "own.yaml")
    if family == "lexical":
        return config("lexical", **options)
    if options["adapter"]:
        options["adapter"] = str(folders.adapter(options["adapter"]))
    return config(folders.spoiled(family, drawn["spoiled"]), **options)


def outcome(asked: ScorerConfig):
    """Return a config's fingerprint and scores, its loader's dice thrown anew; None: refused."""
    torch.seed()
    try:
        scorer = load_scorer(asked)
    except ModelUnavailable:
        return None
    assert scorer.info.fingerprint == asked.fingerprint() or asked.first_stage
    return asked.fingerprint(), scorer.score(PAIRS).raw


def drawn_of(family: str) -> dict:
    """What there is to draw for a family: prompts for those with one, adapters where they fit."""
    left_out = set() if family in TEMPLATES else {"template", "instruction"}
    if family not in ("bert", "two-labels", "modules"):
        left_out.add("adapter")
    return {name: values[:1] if name in left_out else values for name, values in FREELY.items()}


@pytest.mark.seconds
@pytest.mark.parametrize("family", [*FAMILIES, *NO_RERANKERS])
@given(data=st.data())
@settings(
    max_examples=max(2, settings.default.max_examples // 20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_two_configs_of_one_fingerprint_give_one_score(folders, family, data):
    """Both drawn freely, so that what no one thought of is drawn, too."""
    values = drawn_of(family)
    first = {name: data.draw(st.sampled_from(known), name) for name, known in values.items()}
    others = data.draw(st.sets(st.sampled_from(sorted(values)), max_size=3), "changed")
    second = first | {name: data.draw(st.sampled_from(values[name]), name) for name in others}
    one, other = (outcome(free_config(folders, family, drawn)) for drawn in (first, second))
    if one is None or other is None or one[0] != other[0]:
        return
    within = 1e-5 if first["dtype"] == "float32" else 0.02
    np.testing.assert_allclose(one[1], other[1], rtol=0, atol=within)


@pytest.mark.seconds
@pytest.mark.parametrize("family", ["bert", *NO_RERANKERS])
def test_of_a_whole_table_of_configs_those_of_one_fingerprint_give_one_score(folders, family):
    """Every file, code and adapter beside each other, and each other setting alone; all twice."""
    plain = {name: values[0] for name, values in FREELY.items()}
    files = ("spoiled", "trust_remote_code", "code_revision", "adapter")
    values = drawn_of(family)
    table = [dict(zip(files, row, strict=True)) for row in product(*(values[n] for n in files))]
    table += [{name: value} for name, known in values.items() for value in known]
    found: dict[str, np.ndarray] = {}
    for changes in [*table, {}]:
        drawn = plain | changes
        known = outcome(free_config(folders, family, drawn))
        if known is not None:
            within = 1e-5 if drawn["dtype"] == "float32" else 0.02
            expected = found.setdefault(*known)
            np.testing.assert_allclose(
                known[1], expected, rtol=0, atol=within, err_msg=str(changes)
            )
    assert bool(found) is (family == "bert")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"max_query_tokens": 500}, {"max_query_tokens": 900}),
        ({"passage_overlap": 10}, {"passage_overlap": 99}),
        ({"passage_tokens": 500}, {}),
        ({"trust_remote_code": True}, {}),
        ({"code_revision": "e" * 40, "trust_remote_code": True}, {}),
    ],
)
def test_settings_that_can_change_no_score_are_one_fingerprint(folders, one, other):
    split = {"long_documents": "split", "passage_tokens": 20}
    first, second = (config(folders["bert"], **(split | asked)) for asked in (one, other))
    if "passage_tokens" in one:
        second = config(folders["bert"], long_documents="split")
    assert first.fingerprint() == second.fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"dtype": "int8"},
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


def test_the_recorded_scores_are_of_today_s_fingerprint():
    """Whoever raises the scoring version records anew; under 2, Granite and Gemma 2 had others."""
    assert json.loads(GOLDEN.read_text())["fingerprint"] == CONFIG.fingerprint()


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
        (tmp_path / "own.yaml").write_text(OWN_PROMPT)
    before, after = (config(folders["Qwen3-Reranker-tiny"], **asked) for asked in ({}, change))
    assert before.fingerprint() != after.fingerprint()
    raw = [load_scorer(one).score(PAIRS).raw for one in (before, after)]
    assert abs(raw[0] - raw[1]).max() > 1e-4


def test_the_family_s_own_instruction_spelled_out_changes_nothing(folders):
    spelled = "Given a web search query, retrieve relevant passages that answer the query"
    same = config(folders["Qwen3-Reranker-tiny"], instruction=spelled).fingerprint()
    assert same == config(folders["Qwen3-Reranker-tiny"]).fingerprint()


def test_a_folders_name_never_lends_a_model_a_foreign_prompt(folders, tmp_path):
    """The same files under the name of another family had their order reversed."""
    moved = shutil.copytree(folders["Qwen3-Reranker-tiny"], tmp_path / "bge-reranker-v2-gemma-like")
    with pytest.raises(ModelUnavailable, match="without a known reranking prompt"):
        config(moved).fingerprint()
    asked = config(moved, template="qwen3-reranker")
    assert asked.fingerprint() == config(folders["Qwen3-Reranker-tiny"]).fingerprint()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "sentencepiece.model"])
def test_weights_and_vocabularies_count(folders, tmp_path, name):
    folder = shutil.copytree(folders["bert"], tmp_path / "model")
    before = config(folder).fingerprint()
    with open(folder / name, "ab") as file:
        file.write(b" ")
    assert config(folder).fingerprint() != before


@pytest.mark.parametrize("place", ["model", "checkpoint-500"])
def test_what_lies_in_the_folders_of_modules_counts(folders, tmp_path, place):
    """Below a folder that is called checkpoint-..., none of it did."""
    folder = shutil.copytree(folders["modules"], tmp_path / place)
    inner = [module["path"] for module in json.loads((folder / "modules.json").read_text())]
    path = next(folder / part for part in inner if part) / "config.json"
    before = config(folder).fingerprint()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"true_token_id": 9}))
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
