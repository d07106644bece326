"""Small passes filled up to their bucket and replayed: all but the recording itself, on a CPU."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import ModelUnavailable, QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.scorers.encoder import TokenizedPair, items_of
from rerank_core.scorers.passes.graphs import TOKENS, Bucket, Graphs
from rerank_core.scorers.passes.rows import Rows
from tests.rerank_core.scorers.passes.conftest import BERTS
from tests.rerank_core.scorers.passes.operations import Operations


def row_of(lengths):
    tokens = [TokenizedPair(np.array([5]), np.full(n - 1, 6), False) for n in lengths]
    return Rows(((0, 1), (1,)), 2, 0).pack(tokens)


@pytest.mark.parametrize(
    ("lengths", "bucket"),
    [
        ([100] * 5, (512, 16, 128)),
        ([510], (512, 16, 512)),
        ([511], (1024, 32, 512)),
        ([130] * 30, (4096, 128, 256)),
        ([1] * 15, (1024, 32, 1024)),
        ([8190], (8192, 256, 8192)),
        ([8191], None),
        ([1] * 14, (512, 16, 512)),
    ],
)
def test_a_pass_goes_to_the_smallest_bucket_that_holds_it(lengths, bucket):
    assert Bucket.of(row_of(lengths)) == bucket


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40))
def test_a_filled_row_has_its_buckets_shapes_and_the_pairs_where_they_were(lengths):
    row = row_of(lengths)
    bucket = Bucket.of(row)
    if bucket is None:
        assert sum(lengths) + 2 > TOKENS[-1]
        return
    filled = row.filled(bucket.tokens, bucket.segments)
    ids, positions, bounds, types = filled.arrays()
    assert {len(ids), len(positions), len(types), bounds[-1]} == {bucket.tokens}
    assert (len(bounds), filled.pairs) == (bucket.segments + 1, bucket.segments)
    assert np.diff(bounds).max() <= bucket.longest
    # Whatever reads a segment's first token finds one, and every position is one that there is.
    assert bounds[:-1].max() < bucket.tokens
    assert positions.max() <= max(lengths) + 1
    for part, own in zip(filled.arrays(), row.arrays(), strict=True):
        assert list(part[: len(own)]) == list(own)


class Replaying:
    """In a graph's place: computes the recorded pass again, from where its inputs lie."""

    def __init__(self, fails=None):
        self.recorded, self.fails = 0, fails

    def __call__(self, run):
        if self.fails is not None:
            raise self.fails
        logits = run()
        self.recorded += 1
        return lambda: logits.copy_(run()), logits


def scorer_with_graphs(settings, recorder, **changes):
    wanted = {"device": "cpu", "dtype": "bfloat16", "self_check": False} | changes
    scorer = load_scorer(ScorerConfig(**settings, **wanted))
    forward = scorer.forward
    forward.kernel = True
    forward.graphs = Graphs(forward.compute_filled, forward.device, recorder)
    return scorer


def requests(unequal_pairs):
    """Requests of many sizes, so that small passes follow large ones in the same bucket."""
    whole = [*unequal_pairs, *(QueryDocumentPair("who", pair.document) for pair in unequal_pairs)]
    return [whole[:n] for n in (3, 12, 1, 20, 7, 2, 20)]


@pytest.mark.parametrize("family", BERTS)
def test_filling_and_replaying_change_no_score(
    family,
    gpu_models,
    unequal_pairs,
    packed_kernel,
):
    recorder = Replaying()
    scorer = scorer_with_graphs(gpu_models[family], recorder)
    for pairs in requests(unequal_pairs):
        found = scorer.score(pairs).raw
        graphs, scorer.forward.graphs = scorer.forward.graphs, None
        expected = scorer.score(pairs).raw
        scorer.forward.graphs = graphs
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-2)
        assert np.ptp(found) > 0 or len(pairs) == 1
    assert 1 <= recorder.recorded < len(requests(unequal_pairs))


def test_a_score_computed_again_in_float32_leaves_recorded_weights_where_they_were(
    gpu_models,
    unequal_pairs,
    packed_kernel,
):
    scorer = scorer_with_graphs(gpu_models["bert"], Replaying())
    before = [weight.data_ptr() for weight in scorer.forward.module.parameters()]
    items = items_of(scorer.prepare(unequal_pairs))
    scores = scorer.forward(items).clone()
    with scorer.forward.exactly():
        exact = scorer.forward(items)
    assert [weight.data_ptr() for weight in scorer.forward.module.parameters()] == before
    assert torch.equal(scorer.forward(items), scores)
    assert 0 < (exact - scores).abs().max() < 2e-2


def test_a_recording_that_fails_is_the_last_and_costs_no_score(
    gpu_models,
    unequal_pairs,
    packed_kernel,
    caplog,
):
    scorer = scorer_with_graphs(gpu_models["bert"], Replaying(RuntimeError("not permitted")))
    assert scorer.score(unequal_pairs).errors == {}
    assert scorer.score(unequal_pairs[:2]).errors == {}
    assert [m for m in caplog.messages if "CUDA graphs" in m] == [
        "no CUDA graphs: recording failed (RuntimeError)"
    ]


def test_a_device_that_dies_while_recording_is_fatal(
    gpu_models,
    unequal_pairs,
    packed_kernel,
):
    scorer = scorer_with_graphs(gpu_models["bert"], Replaying(RuntimeError("CUDA error: 700")))
    with pytest.raises(ModelUnavailable, match="must be restarted"):
        scorer.score(unequal_pairs)


def test_warming_up_records_one_pass_of_each_size(
    gpu_models,
    packed_kernel,
):
    recorder = Replaying()
    scorer = scorer_with_graphs(gpu_models["bert"], recorder, max_batch_tokens=10_000)
    scorer.warm_up()
    recorded = {bucket.tokens for bucket in scorer.forward.graphs._known}
    assert (recorder.recorded, recorded) == (len(TOKENS), set(TOKENS))


@pytest.mark.parametrize("family", BERTS)
def test_a_replayed_pass_crosses_to_the_device_once(family, gpu_models, unequal_pairs):
    scorer = scorer_with_graphs(gpu_models[family], Replaying())
    items = items_of(scorer.prepare(unequal_pairs))
    meta = torch.device("meta")
    scorer.forward.to(meta)
    scorer.forward.graphs = Graphs(scorer.forward.compute_filled, meta, Replaying())
    scorer.forward(items)
    with Operations() as seen:
        logits = scorer.forward(items)
    assert (logits.device.type, tuple(logits.shape)) == ("meta", (len(items),))
    assert seen.crossings == ["copy_"]


@pytest.mark.gpu
@pytest.mark.parametrize("family", BERTS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_recorded_passes_give_the_scores_of_launched_ones(
    family, dtype, cuda, gpu_models, unequal_pairs
):
    wanted = {"device": cuda, "dtype": dtype, "self_check": False, **gpu_models[family]}
    plain, graphs = (load_scorer(ScorerConfig(**wanted, graphs=on)) for on in (False, True))
    graphs.warm_up()
    for pairs in requests(unequal_pairs):
        expected = plain.score(pairs).raw
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(graphs.score(pairs).raw, expected, atol=3e-2 * scale)
    assert graphs.forward.graphs._works
