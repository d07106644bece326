"""Which scores count as the reference's: near it where it is finite, not finite where it is not."""

import pytest
import torch

from rerank_core.scorers.passes.agreement import disagreement

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("found", "expected", "reason"),
    [
        ([5.0, 1.0], [5.01, 1.0], None),
        ([5.0, 1.0], [4.0, 1.0], "scores differ by 1"),
        ([NAN, 1.0], [INF, 1.01], None),
        ([NAN, 5.0], [NAN, 1.0], "scores differ by 4"),
        (
            [5.0, 5.0],
            [NAN, 5.0],
            "scores and those they are held against are not finite for different pairs",
        ),
        (
            [INF, 5.0],
            [5.0, 5.0],
            "scores and those they are held against are not finite for different pairs",
        ),
        ([NAN, INF], [NAN, NAN], None),
    ],
)
def test_scores_are_held_against_the_finite_ones_of_the_reference(found, expected, reason):
    assert disagreement(lambda _: torch.tensor(found), [], torch.tensor(expected), "float16") == (
        reason
    )
