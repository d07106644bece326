"""An actor with two units in hand: only scoring takes turns, in a thread of its own."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipelines.stages.failures import read_line
from pipelines.stages.read import read_slice, slice_row
from pipelines.stages.score import CALLS, ScoreUnits
from rerank_core import load_scorer
from tests.pipelines.protocol import InProcess, job, rows_of


class TwoInHand(InProcess):
    """Calls one actor from as many threads as Ray does."""

    def score_units(self, context, slices, files, texts, load):
        actor = ScoreUnits(context, load)
        units = [
            unit
            for piece in slices
            for unit in read_slice(
                pa.Table.from_pylist([slice_row(piece, files[piece.file])]),
                context.config,
                texts,
                context.schema,
            )
        ]
        with ThreadPoolExecutor(CALLS) as calls:
            for answer in calls.map(actor, units):
                yield read_line(answer["line"][0].as_py())


class Halves:
    """A scorer in two halves that ends its first pass only when a second unit is tokenised."""

    prepares = True

    def __init__(self, config):
        self.inner = load_scorer(config)
        self.info = self.inner.info
        self.score, self.warm_up = self.inner.score, self.inner.warm_up
        self.prepared = 0
        self.two = threading.Event()
        self.threads = set()

    def prepare(self, pairs):
        self.prepared += 1
        if self.prepared == 2:
            self.two.set()
        return [(pair,) for pair in pairs]

    def run(self, prepared):
        self.threads.add(threading.current_thread().name)
        assert self.two.wait(30)
        return self.inner.score([pair for (pair,) in prepared])


def test_a_unit_is_unpacked_and_tokenised_while_another_is_scored(tmp_path, pairs_input):
    job(pairs_input, tmp_path / "plain")
    loaded = []
    job(
        pairs_input,
        tmp_path / "out",
        lambda config: loaded.append(Halves(config)) or loaded[-1],
        engine=TwoInHand(),
    )
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "plain")
    assert loaded[0].prepared > 2
    assert loaded[0].threads == {"score_0"}
