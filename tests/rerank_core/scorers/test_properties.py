"""What holds for every pool of pairs, whatever it holds: order, neighbours, ties, completeness."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_core import Candidate, QueryDocumentPair, Reranker, RerankRequest, load_scorer
from tests.rerank_core.scorers.conftest import cpu_has, random_config
from tests.rerank_core.scorers.tiny_checkpoints import save_causal

pytestmark = pytest.mark.seconds

# How far a pair's score may move with what shares its batch: docs/models.md states these.
DTYPES = ("float32", "bfloat16", "float16")
PADDED = {"float32": 1e-5, "bfloat16": 0.02, "float16": 0.003}
PACKED = dict.fromkeys(DTYPES, 1e-5)
if cpu_has("avx512_fp16"):
    # It multiplies float16 itself, and was seen to move scores by 8e-5.
    PACKED["float16"] = 3e-4
BOUNDS = {("packed", dtype): bound for dtype, bound in PACKED.items()}
BOUNDS |= {("cross_encoder", dtype): bound for dtype, bound in PADDED.items()}
# In int8 a score that depended on its neighbours would jump by tenths.
BOUNDS |= {("packed", "int8"): 1e-5, ("auto", "int8"): 1e-5}
BOUNDS |= {("auto", dtype): bound for dtype, bound in PACKED.items()}
CAUSAL = {
    "qwen2": "mxbai-rerank-v2",
    "qwen3": "qwen3-reranker",
    "gemma": "bge-reranker-v2-gemma",
}
KINDS = [
    (family, backend, dtype)
    for family, backend in (
        ("bert", "packed"),
        ("xlm_roberta", "packed"),
        ("modernbert", "packed"),
        ("modernbert", "cross_encoder"),
        ("deberta", "cross_encoder"),
        *((family, "auto") for family in CAUSAL),
    )
    for dtype in DTYPES
]
KINDS += [(family, "packed", "int8") for family in ("bert", "xlm_roberta", "modernbert")]
KINDS += [(family, "auto", "int8") for family in CAUSAL]
WORDS = ["the", "river", "old", "town", "capital", "12345", "北京", "首都", "。", "packed", "<pad>"]
queries = st.sampled_from(["how many people live here", "中国的首都是哪里?", "q"])
documents = st.lists(st.sampled_from(WORDS), max_size=90).map(" ".join)
pools = st.lists(st.builds(QueryDocumentPair, queries, documents), min_size=1, max_size=12)
hostile = st.text(st.characters(), max_size=40)
# 12 in `make test`, 3 in `make test-fast`.
few = settings(
    max_examples=settings.default.max_examples // 8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def scorers(tiny_models, tmp_path_factory):
    causal = {family: save_causal(tmp_path_factory.mktemp(family), family) for family in CAUSAL}
    folders = tiny_models | causal
    loaded = {}

    def load(family, backend, dtype="float32", max_batch_tokens=None):
        key = (family, backend, dtype, max_batch_tokens)
        if key not in loaded:
            loaded[key] = load_scorer(
                random_config(
                    model=str(folders[family]),
                    template=CAUSAL.get(family),
                    device="cpu",
                    backend=backend,
                    dtype=dtype,
                    max_batch_tokens=max_batch_tokens,
                )
            )
        return loaded[key]

    return load


@pytest.mark.parametrize(("family", "backend", "dtype"), KINDS)
@given(pool=pools, data=st.data())
@few
def test_permuting_pairs_permutes_scores(scorers, family, backend, dtype, pool, data):
    order = data.draw(st.permutations(range(len(pool))))
    scorer = scorers(family, backend, dtype)
    straight, permuted = scorer.score(pool), scorer.score([pool[i] for i in order])
    np.testing.assert_allclose(
        permuted.raw, straight.raw[order], rtol=0, atol=BOUNDS[backend, dtype]
    )
    assert permuted.tokens.tolist() == straight.tokens[order].tolist()
    assert permuted.truncated.tolist() == straight.truncated[order].tolist()


@pytest.mark.parametrize(("family", "backend", "dtype"), KINDS)
@given(pool=pools, data=st.data())
@few
def test_a_score_does_not_depend_on_its_neighbours(scorers, family, backend, dtype, pool, data):
    place = data.draw(st.integers(0, len(pool) - 1))
    alone = scorers(family, backend, dtype).score([pool[place]])
    for budget in (None, 150):
        among = scorers(family, backend, dtype, budget).score(pool)
        assert abs(among.raw[place] - alone.raw[0]) <= BOUNDS[backend, dtype]
        assert among.tokens[place] == alone.tokens[0]


@pytest.mark.parametrize("backend", ["packed", "cross_encoder"])
@given(texts=st.lists(st.tuples(hostile, hostile), max_size=8))
@few
def test_every_pair_is_answered_exactly_once(scorers, backend, texts):
    scores = scorers("bert", backend).score([QueryDocumentPair(q, d) for q, d in texts])
    assert len(scores) == len(texts)
    scored = set(np.flatnonzero(np.isfinite(scores.raw)).tolist())
    assert scored | set(scores.errors) == set(range(len(texts)))
    assert scored & set(scores.errors) == set()


@given(
    texts=st.lists(documents, max_size=10),
    top_k=st.integers(1, 12),
    copies=st.integers(1, 3),
)
@few
def test_top_k_is_a_prefix_ties_by_index_every_candidate_once(scorers, texts, top_k, copies):
    reranker = Reranker(scorers("bert", "packed"))
    candidates = tuple(Candidate(str(i), text) for i, text in enumerate(texts * copies))
    (whole,) = reranker.rerank([RerankRequest("who lives here", candidates)])
    (short,) = reranker.rerank([RerankRequest("who lives here", candidates, top_k)])
    assert short.ranked == whole.ranked[:top_k]
    assert sorted(hit.index for hit in whole.ranked) == list(range(len(candidates)))
    assert [hit.rank for hit in whole.ranked] == list(range(1, len(candidates) + 1))
    order = [(-hit.raw_score, hit.index) for hit in whole.ranked]
    assert order == sorted(order)
