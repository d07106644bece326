import pickle

import pytest

from rerank_core import (
    DeadlineExceeded,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    RerankError,
    ScoringFailed,
)

ERRORS = [
    InvalidRequest("query must not be blank", "query"),
    Overloaded("queue is full", retry_after_s=2.5),
    DeadlineExceeded("deadline of 3 s passed"),
    ModelUnavailable("no such folder; check the path"),
    ScoringFailed("not finite"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_cross_processes_whole(error):
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert isinstance(copy, RerankError)
