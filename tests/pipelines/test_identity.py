"""What makes two runs the same job."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from protocol import job

from pipelines import identity as identities
from pipelines.config import RerankJobConfig
from pipelines.identity import JobChanged, ListOnce, identity_of, refuse_change
from pipelines.inputs import listing
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


def test_a_job_lists_its_input_once(tmp_path, pairs_input, listed):
    job(pairs_input, tmp_path / "out")
    assert listed == [str(pairs_input)]


def test_a_table_is_listed_anew_for_another_version_only(monkeypatch):
    asked = []

    def listed(inputs, versions=None):
        asked.append(versions)
        return listing.Listing(versions={"table": (versions or {"table": 7})["table"]})

    monkeypatch.setattr(identities, "list_inputs", listed)
    look = ListOnce()
    found = [look(("table",), versions) for versions in (None, {"table": 7}, {"table": 6})]
    assert [one.versions["table"] for one in found] == [7, 7, 6]
    assert asked == [None, {"table": 6}]
