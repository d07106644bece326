"""What makes two runs the same job."""

import pytest

from pipelines.config import RerankJobConfig
from pipelines.identity import JobChanged, identity_of, refuse_change
from rerank_core import ScorerConfig


@pytest.fixture
def identity(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"pairs")
    scorer = ScorerConfig(model="lexical")
    return identity_of(
        RerankJobConfig(input=(str(tmp_path),), output=str(tmp_path.parent / "out"), scorer=scorer)
    )


def test_the_same_job_goes_on(identity):
    refuse_change(identity, dict(identity))


def test_another_job_is_refused_by_what_differs(identity):
    with pytest.raises(JobChanged, match="scorer, top_k changed"):
        refuse_change(identity, identity | {"top_k": "3", "scorer": "another"})


def test_a_job_of_0_1_0_is_refused_by_name_with_what_to_do(identity):
    old = {name: value for name, value in identity.items() if name != "file_size"}
    with pytest.raises(JobChanged, match=r"begun by release 0\.1\.0.*start again with --overwrite"):
        refuse_change(old, identity)
