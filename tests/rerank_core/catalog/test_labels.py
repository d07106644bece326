"""Which of two outputs means relevant."""

import json

import pytest

from rerank_core.catalog.resolve import resolve
from tests.rerank_core.catalog.conftest import asked
from tests.rerank_core.scorers.tiny_checkpoints import save_bert

LABELS = {"0": "not_relevant", "1": "relevant"}


@pytest.mark.parametrize("order", ["01", "10"])
def test_labels_are_read_by_their_numbers_and_not_in_the_file_s_order(tmp_path, order):
    """Written the other way round, every score had the other sign."""
    folder = save_bert(tmp_path, num_labels=2)
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | {"id2label": {n: LABELS[n] for n in order}}
    path.write_text(json.dumps(settings))
    assert resolve(asked(folder)).positive == 1
