"""One bad pair costs one pair: the runner against models that fail in every known way."""

import contextlib

import numpy as np
import pytest
import torch

from rerank_core import ModelUnavailable
from rerank_core.batching import TokenBudget
from rerank_core.scorers.runner import BatchRunner

NAN = float("nan")


class Model:
    """Scores an item by its length, and fails as told; remembers what it was asked."""

    def __init__(self, fails=lambda batch: None, scores=lambda item: float(len(item))):
        self.fails, self.scores, self.batches, self.rescued = fails, scores, [], []
        self.exact_score, self.is_exact = (lambda item: float(len(item))), False

    def launch(self, batch):
        self.batches.append([len(item) for item in batch])
        error = self.fails(batch)
        if error is not None:
            raise error
        if self.is_exact:
            self.rescued.append([len(item) for item in batch])
            return torch.tensor([self.exact_score(item) for item in batch])
        return torch.tensor([self.scores(item) for item in batch])

    @contextlib.contextmanager
    def exact(self):
        self.is_exact = True
        yield
        self.is_exact = False

    def runner(self, max_batch_tokens=100, padded=False):
        return BatchRunner(self.launch, self.exact, max_batch_tokens, padded=padded)


def items(*lengths):
    return ["x" * length for length in lengths]


def out_of_memory_above(tokens):
    def fails(batch):
        if sum(map(len, batch)) > tokens:
            return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return None

    return fails


def test_scores_come_back_in_input_order():
    raw, errors = Model().runner().run(items(3, 50, 7, 60, 1))
    assert raw.tolist() == [3, 50, 7, 60, 1]
    assert errors == {}


def test_nothing_in_nothing_out():
    raw, errors = Model().runner().run([])
    assert (raw.tolist(), errors) == ([], {})


def test_out_of_memory_halves_the_budget_and_every_pair_is_scored():
    model = Model(fails=out_of_memory_above(40))
    runner = model.runner()
    raw, errors = runner.run(items(*range(1, 30)))
    assert raw.tolist() == list(range(1, 30))
    assert errors == {}
    assert runner.budget.tokens <= 40


def test_the_learned_budget_is_remembered():
    model = Model(fails=out_of_memory_above(40))
    runner = model.runner()
    runner.run(items(*[10] * 20))
    model.batches.clear()
    runner.run(items(*[10] * 20))
    assert max(map(sum, model.batches)) <= 40


def test_a_pair_that_does_not_fit_alone_fails_alone():
    raw, errors = Model(fails=out_of_memory_above(40)).runner().run(items(5, 90, 20))
    np.testing.assert_array_equal(raw, [5, NAN, 20])
    assert errors == {1: "a pair of 90 tokens does not fit the device's memory; lower max_length"}


def test_a_cpu_without_memory_is_treated_the_same():
    error = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 99 bytes")
    model = Model(fails=lambda batch: error if len(batch) > 2 else None)
    raw, errors = model.runner().run(items(1, 2, 3, 4, 5))
    assert (raw.tolist(), errors) == ([1, 2, 3, 4, 5], {})


def passes(budget, fitting, count):
    """Run full passes on a device that holds `fitting` tokens; return how many failed."""
    failed = 0
    for _ in range(count):
        if budget.tokens > fitting:
            failed += 1
            budget.shrink(budget.tokens)
        else:
            budget.worked(budget.tokens)
    return failed


@pytest.mark.parametrize("fitting", [40_000, 33_000, 5_000, 1])
def test_what_fits_is_found_with_few_failures_and_kept(fitting):
    budget = TokenBudget(65_536)
    halvings = (65_536 // fitting).bit_length() - 1
    assert passes(budget, fitting, 2_000) <= halvings + 4
    assert 0.9 * fitting <= budget.tokens <= fitting


def test_a_budget_recovers_when_the_memory_is_there_again():
    budget = TokenBudget(1000)
    budget.shrink(1000)
    assert budget.tokens == 500
    assert passes(budget, 1000, 49) == 0
    assert budget.tokens == 500
    assert passes(budget, 1000, 6_000) == 0
    assert budget.tokens == 1000


def test_what_fitted_once_is_forgotten_when_it_fails():
    budget = TokenBudget(1000)
    budget.worked(900)
    budget.shrink(800)
    assert budget.tokens == 400


def test_scores_that_are_not_finite_are_computed_again_as_one_batch_and_said_once(caplog):
    model = Model(scores=lambda item: float("inf") if len(item) > 5 else float(len(item)))
    runner = model.runner()
    raw, errors = runner.run(items(3, 7, 9))
    assert (raw.tolist(), errors, model.rescued) == ([3, 7, 9], {}, [[9, 7]])
    runner.run(items(8))
    assert (runner.rescued, len(caplog.records)) == (3, 1)
    assert "use dtype bfloat16" in caplog.text


def test_a_score_that_is_never_finite_fails_alone():
    model = Model(scores=lambda item: NAN if len(item) == 7 else 1.0)
    model.exact_score = lambda item: NAN
    raw, errors = model.runner().run(items(3, 7, 9))
    np.testing.assert_array_equal(raw, [1, NAN, 1])
    assert errors == {1: "the model's score is not a finite number, also in float32"}


def test_no_memory_for_weights_in_float32_costs_only_the_pairs_that_need_them():
    """It ended the call."""

    @contextlib.contextmanager
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        yield

    model = Model(scores=lambda item: NAN if len(item) == 7 else 1.0)
    model.exact = full
    raw, errors = model.runner().run(items(3, 7, 9))
    np.testing.assert_array_equal(raw, [1, NAN, 1])
    assert errors == {
        1: "the model's score is not a finite number; in float32 its weights do not fit"
    }


def test_a_pair_that_crashes_its_batch_is_found_and_fails_alone():
    bad = ValueError("text of the pair")
    model = Model(fails=lambda batch: bad if any(len(item) == 7 for item in batch) else None)
    raw, errors = model.runner().run(items(3, 4, 7, 5, 6, 2))
    np.testing.assert_array_equal(raw, [3, 4, NAN, 5, 6, 2])
    assert errors == {2: "the model failed on this pair (ValueError)"}


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access was encountered",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
def test_a_broken_device_is_fatal_at_once(message):
    model = Model(fails=lambda batch: RuntimeError(message))
    with pytest.raises(ModelUnavailable, match="must be restarted"):
        model.runner().run(items(3, 4, 7))
    assert len(model.batches) == 1


def test_padded_batches_count_their_rectangle():
    model = Model()
    model.runner(max_batch_tokens=100, padded=True).run(items(50, 10, 10, 10))
    assert all(max(batch) * len(batch) <= 100 for batch in model.batches)
