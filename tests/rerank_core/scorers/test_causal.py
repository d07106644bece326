"""Language models: the score is the answer's logit at the prompt's end, whoever is beside."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from rerank_core import ModelUnavailable, QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.catalog.checks import probe_pairs
from rerank_core.catalog.families import BGE_GEMMA, MXBAI_V2, QWEN3_RERANKER
from rerank_core.catalog.families import FAMILIES as KNOWN
from rerank_core.scorers.encoder import items_of
from tests.rerank_core.scorers.conftest import random_config
from tests.rerank_core.scorers.tiny_checkpoints import save_causal

FAMILIES = {"qwen3": QWEN3_RERANKER, "qwen2": MXBAI_V2, "gemma": BGE_GEMMA}
PAIRS = [
    QueryDocumentPair(query, document)
    for query in ("how many people live here", "中国的首都")
    for document in ("a river", "北京是中国的首都。", "", "the old town and the river " * 20)
]


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    family = FAMILIES[request.param]
    return save_causal(tmp_path_factory.mktemp(request.param), request.param), family


def load(folder, family, **options):
    return load_scorer(
        random_config(model=str(folder), device="cpu", template=family.name, **options)
    )


def reference(folder, family, pair):
    """Ask one prompt at a time, unpadded, with the whole output layer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    before = family.pieces(family.before, pair.query, pair.instruction)
    behind = family.pieces(family.behind, "", pair.instruction)
    pieces = [*(p for p, _ in before), family.around(pair.document), *(p for p, _ in behind)]
    ids = [tokenizer.bos_token_id] if family.starts_with_bos else []
    ids += [i for piece in pieces for i in tokenizer.encode(piece, add_special_tokens=False)]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1]
    yes = logits[tokenizer.convert_tokens_to_ids(family.positive)]
    no = logits[tokenizer.convert_tokens_to_ids(family.negative)] if family.negative else 0.0
    return float(yes - no)


def test_scores_are_the_answers_logits(checkpoint):
    folder, family = checkpoint
    scorer = load(folder, family)
    scores = scorer.score(PAIRS)
    expected = [reference(folder, family, pair) for pair in PAIRS]
    assert scorer.info.backend == "packed"
    assert scores.errors == {}
    np.testing.assert_allclose(scores.raw, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.01


BEHIND_THE_OUTPUT_LAYER = {
    "granite": {"logits_scaling": 8.0},
    "gemma2": {"final_logit_softcapping": 1.0},
    "cohere": {"logit_scale": 0.25},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
}


@pytest.mark.parametrize("backend", ["packed", "cross_encoder"])
@pytest.mark.parametrize("kind", BEHIND_THE_OUTPUT_LAYER)
def test_what_stands_behind_the_output_layer_is_in_the_score(tmp_path, kind, backend):
    """Granite's scaling and Gemma 2's cap were left out: 0.501 for 0.0626."""
    folder = save_causal(tmp_path, kind, **BEHIND_THE_OUTPUT_LAYER[kind])
    scorer = load(folder, QWEN3_RERANKER, backend=backend)
    expected = [reference(folder, QWEN3_RERANKER, pair) for pair in PAIRS]
    assert scorer.info.backend == backend
    np.testing.assert_allclose(scorer.score(PAIRS).raw, expected, rtol=0, atol=1e-5)


def test_large_logits_close_together_are_not_held_against_rounded_ones(tmp_path):
    """bfloat16 knows quarters at 40: the difference, 1.5 of them, was off by 0.125 of 0.1."""
    folder = save_causal(tmp_path, "qwen3")
    item = items_of(load(folder, QWEN3_RERANKER).prepare(probe_pairs(0)))[0]
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(["yes", "no"])
    with torch.inference_mode():
        state = model.model(torch.tensor([[*item.head, *item.tail]])).last_hidden_state[0, -1]
        for i, logit in zip(ids, (40.375, 40.0), strict=True):
            model.lm_head.weight[i] = logit * state / state.square().sum()
    model.save_pretrained(folder)
    scores = load(folder, QWEN3_RERANKER, dtype="bfloat16").score(PAIRS).raw
    expected = [reference(folder, QWEN3_RERANKER, pair) for pair in PAIRS]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_what_stands_behind_the_output_layer_is_in_a_rounded_score(tmp_path, dtype):
    folder = save_causal(tmp_path, "granite", **BEHIND_THE_OUTPUT_LAYER["granite"])
    scores = load(folder, QWEN3_RERANKER, dtype=dtype).score(PAIRS).raw
    expected = [reference(folder, QWEN3_RERANKER, pair) for pair in PAIRS]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=0.03)


INTO_THE_BODY = {
    "opt": {"ffn_dim": 128},
    "falcon_h1": {"lm_head_multiplier": 0.5, "mamba_d_ssm": 64, "mamba_n_heads": 4,
                  "mamba_d_state": 16, "mamba_chunk_size": 16},
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", INTO_THE_BODY)
def test_a_language_model_whose_own_code_reaches_into_its_body_is_served(tmp_path, kind, dtype):
    """OPT calls its body's decoder, FalconH1 reads a number there: both were refused."""
    folder = save_causal(tmp_path, kind, **INTO_THE_BODY[kind])
    scores = load(folder, QWEN3_RERANKER, dtype=dtype).score(PAIRS).raw
    expected = [reference(folder, QWEN3_RERANKER, pair) for pair in PAIRS]
    near = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(scores, expected, rtol=0, atol=near)


@pytest.mark.parametrize("backend", ["packed", "cross_encoder"])
def test_a_language_model_that_computes_otherwise_by_its_own_code_is_refused(
    tmp_path, monkeypatch, backend
):
    """The padded reference has our own head, so what both leave out was not seen."""
    folder = save_causal(tmp_path, "qwen3")
    plain = Qwen3ForCausalLM.forward

    def doubled(self, *args, **inputs):
        found = plain(self, *args, **inputs)
        found.logits = found.logits * (2 if "input_ids" in inputs else 1)
        return found

    monkeypatch.setattr(Qwen3ForCausalLM, "forward", doubled)
    with pytest.raises(
        ModelUnavailable, match=r"does not score as its own code \(scores differ by"
    ):
        load(folder, QWEN3_RERANKER, backend=backend)


def own_template(folder, before):
    path = folder / "mine.yaml"
    path.write_text(
        f'name: mine\nbefore: [{before}]\ndocument: "D {{document}}"\n'
        'behind: ["?"]\npositive: "yes"\n'
    )
    return path


def test_a_control_token_beside_a_placeholder_is_refused(tmp_path):
    """It was read as the characters of its spelling."""
    path = own_template(tmp_path, '"<|im_start|>user Q {query}"')
    folder = save_causal(tmp_path, "qwen3")
    with pytest.raises(ModelUnavailable, match="template mine has a control token beside a"):
        load_scorer(random_config(model=str(folder), device="cpu", template=str(path)))
    path.write_text(path.read_text().replace("user Q", 'user", "Q'))
    load_scorer(random_config(model=str(folder), device="cpu", template=str(path)))


def test_a_query_of_white_space_fails_no_other_pair(tmp_path):
    """It has no token to end at: an IndexError for the whole call."""
    scorer = load(save_causal(tmp_path, "qwen3"), QWEN3_RERANKER, max_length=400)
    blank = QueryDocumentPair(" " * 100_000 + "x", "a")
    scores = scorer.score([PAIRS[0], blank])
    alone = scorer.score(PAIRS[:1]).raw[0]
    assert (scores.errors, scores.truncated.tolist()) == ({}, [False, True])
    assert scores.raw[0] == pytest.approx(alone, abs=1e-5)


def test_only_the_document_is_cut_and_the_prompt_stays_whole(checkpoint):
    folder, family = checkpoint
    whole = load(folder, family).score(PAIRS[:1])
    limit = int(whole.tokens[0]) + 8
    pairs = [PAIRS[0], QueryDocumentPair(PAIRS[0].query, "the old town and the river " * 50)]
    scores = load(folder, family, max_length=limit, max_query_tokens=50).score(pairs)
    assert scores.raw[0] == pytest.approx(whole.raw[0], abs=1e-5)
    assert scores.tokens.tolist() == [limit - 8, limit]
    assert scores.truncated.tolist() == [False, True]


def test_an_instruction_changes_the_score_and_the_fingerprint(tmp_path):
    folder = save_causal(tmp_path, "qwen3")
    plain = load(folder, QWEN3_RERANKER)
    asked = load(folder, QWEN3_RERANKER, instruction="Find the tool.")
    assert plain.info.fingerprint != asked.info.fingerprint
    assert abs(plain.score(PAIRS).raw - asked.score(PAIRS).raw).max() > 1e-4


def test_a_pairs_own_instruction_is_read_as_the_configs(tmp_path):
    folder = save_causal(tmp_path, "gemma")
    asked = load(folder, BGE_GEMMA, instruction="Find the tool.").score(PAIRS)
    own = [replace(pair, instruction="Find the tool.") for pair in PAIRS]
    mixed = load(folder, BGE_GEMMA, instruction="Else.").score([*own, *PAIRS])
    np.testing.assert_allclose(mixed.raw[: len(PAIRS)], asked.raw, rtol=0, atol=1e-5)
    assert abs(mixed.raw[len(PAIRS) :] - asked.raw).max() > 1e-4


@pytest.mark.parametrize("where", ["config", "pair"])
def test_mxbais_instruction_is_read_and_changes_the_score(tmp_path, where):
    """The configured one was ignored, a request's own stood behind "query:"."""
    folder = save_causal(tmp_path, "qwen2")
    pair = QueryDocumentPair("q", "d", instruction="Judge.")
    if where == "pair":
        score = load(folder, MXBAI_V2).score([pair]).raw[0]
    else:
        score = (
            load(folder, MXBAI_V2, instruction="Judge.").score([QueryDocumentPair("q", "d")]).raw[0]
        )
    assert score == pytest.approx(reference(folder, MXBAI_V2, pair), abs=1e-5)
    assert abs(score - load(folder, MXBAI_V2).score([QueryDocumentPair("q", "d")]).raw[0]) > 1e-4


def test_a_documents_limit_counts_the_document_and_not_its_prefix(tmp_path):
    """`max_tokens_per_doc: 5` read three tokens behind "document: "."""
    scorer = load(save_causal(tmp_path, "qwen2"), MXBAI_V2)
    pair = QueryDocumentPair("", "town " * 50, max_document_tokens=5)
    cut = scorer.score([pair])
    assert cut.tokens.tolist() == [scorer.encoder.frame.tokens + 5]
    assert cut.truncated.tolist() == [True]


def test_an_instruction_that_fills_the_prompt_fails_alone(tmp_path):
    scorer = load(save_causal(tmp_path, "qwen3"), QWEN3_RERANKER, max_length=300)
    long = QueryDocumentPair("q", "d", instruction="judge it " * 300)
    scores = scorer.score([long, PAIRS[0]])
    assert scores.errors == {
        0: "the instruction, or the limit of tokens, leaves no room for the document"
    }
    assert np.isfinite(scores.raw[1])


def test_a_language_model_without_a_known_prompt_is_refused(tmp_path):
    folder = save_causal(tmp_path, "qwen3")
    with pytest.raises(ModelUnavailable, match="without a known reranking prompt") as caught:
        load_scorer(random_config(model=str(folder), device="cpu"))
    assert all(name in str(caught.value) for name in KNOWN)


def test_a_prompt_that_is_longer_than_the_limit_is_refused(tmp_path):
    folder = save_causal(tmp_path, "qwen3")
    with pytest.raises(ModelUnavailable, match="alone takes"):
        load(folder, QWEN3_RERANKER, max_length=16)


def test_a_prompt_that_leaves_no_room_for_a_document_is_refused(tmp_path):
    """The pair that is held against the model's own code had no items: an IndexError."""
    path = own_template(tmp_path, '"Q {query}", "again {query}"')
    folder = save_causal(tmp_path, "qwen3")
    for backend in ("cross_encoder", "auto"):
        config = random_config(
            model=str(folder), device="cpu", template=str(path), max_length=16, backend=backend
        )
        with pytest.raises(ModelUnavailable, match=r"Qwen3ForCausalLM\): .* leaves no room"):
            load_scorer(config)


def test_a_family_whose_answers_are_no_tokens_is_refused(tmp_path):
    folder = save_causal(tmp_path, "qwen2")
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = json.loads(text)
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["never"] = vocabulary.pop("yes")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ModelUnavailable, match="has no single token 'yes'"):
        load(folder, QWEN3_RERANKER)


def test_a_model_that_tells_nothing_apart_does_not_pass_the_self_check(tmp_path):
    folder = save_causal(tmp_path, "qwen3", flat=True)
    config = ScorerConfig(model=str(folder), device="cpu", template="qwen3-reranker")
    with pytest.raises(ModelUnavailable, match="ranks obvious pairs wrongly"):
        load_scorer(config)


@pytest.mark.parametrize("option", [{"template": "qwen3-reranker"}, {"instruction": "Find."}])
def test_a_classifier_refuses_what_only_language_models_take(tiny_models, option):
    with pytest.raises(ModelUnavailable, match="takes neither `template` nor `instruction`"):
        load_scorer(random_config(model=str(tiny_models["bert"]), device="cpu", **option))


def test_scoring_one_pair_in_float32_leaves_no_trace(tmp_path):
    scorer = load(save_causal(tmp_path, "qwen3"), QWEN3_RERANKER, dtype="bfloat16")
    pair = QueryDocumentPair("who lives here", "the old town and the river " * 60)
    before = scorer.score([pair]).raw[0]
    with scorer.forward.exactly():
        scorer.forward(items_of(scorer.prepare([pair])))
    assert scorer.score([pair]).raw[0] == before


def test_padded_and_packed_ask_the_same_prompt_and_share_their_fingerprint(checkpoint):
    """backend cross_encoder asked without our prompt, under the same fingerprint."""
    folder, family = checkpoint
    packed, padded = (load(folder, family, backend=how) for how in ("packed", "cross_encoder"))
    assert (packed.info.backend, padded.info.backend) == ("packed", "cross_encoder")
    assert packed.info.fingerprint == padded.info.fingerprint
    np.testing.assert_allclose(padded.score(PAIRS).raw, packed.score(PAIRS).raw, rtol=0, atol=1e-5)


def test_a_limit_of_the_whole_pair_counts_all_that_is_read(tmp_path):
    scorer = load(save_causal(tmp_path, "qwen2"), MXBAI_V2)
    most = scorer.encoder.frame.tokens + 12
    pair = QueryDocumentPair("town " * 50, "town " * 50, max_tokens=most)
    scores = scorer.score([pair, QueryDocumentPair("town", "town", max_tokens=most)])
    assert scores.tokens.tolist()[0] <= most
    assert scores.truncated.tolist() == [True, False]
    refused = scorer.score([QueryDocumentPair("town", "town", max_tokens=1)])
    assert list(refused.errors) == [0]
