"""Bad rows, bad files and a full disk, without Ray: what is lost, what is said, what is kept."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from protocol import LEXICAL, Killed, KillSwitch, forget_owner, job, rows_of

from pipelines.columns import ColumnNames
from pipelines.commits.records import JobFolder, OutputRefused
from pipelines.commits.store import StorageFull, open_store
from pipelines.commits.verify import verify
from pipelines.config import RerankJobConfig
from pipelines.engine import JobContext
from pipelines.inputs.reading import FileChanged
from pipelines.refusals import TooManyBadFiles
from pipelines.reports.forms import write_trec_run
from pipelines.retries import is_outage
from pipelines.stages.failures import read_line
from pipelines.stages.score import ScoreUnits
from rerank_core import InvalidRequest, ModelUnavailable, load_scorer
from rerank_core.types import PairScores

CANARY = "xyzzy-private"


def quarantine(out):
    return pq.read_table(out / "_quarantine").to_pylist()


def test_every_bad_row_is_set_aside_with_its_place_and_reason_and_no_text(tmp_path, make_rows):
    rows = make_rows(4, 10)
    (tmp_path / "in").mkdir()
    texts = [row["text"].encode() for row in rows]
    texts[3], texts[7], texts[39] = None, b"\xff\xfe" + CANARY.encode(), b"  "
    rows[11]["query"] = None
    rows[12]["query_id"] = None
    rows[20]["query"] = ""
    texts[25] = (CANARY * 1000).encode()
    table = pa.Table.from_pylist(rows).drop(["text"])
    table = table.append_column("text", pa.array(texts).view(pa.string()))
    path = tmp_path / "in" / "a.parquet"
    pq.write_table(table, path, row_group_size=16)
    manifest = job(tmp_path / "in", tmp_path / "out", unit_pairs=16, max_text_chars=2000)
    found = {(line["file"], line["row"]): line["reason"] for line in quarantine(tmp_path / "out")}
    assert found == {
        (str(path), 3): "null_text",
        (str(path), 7): "text_not_utf8",
        (str(path), 11): "null_query",
        (str(path), 12): "null_query_id",
        (str(path), 20): "empty_query",
        (str(path), 39): "empty_text",
    }
    assert manifest["counts"]["texts_cut"] == 1
    assert verify(tmp_path / "out")["rows_out"] == 34
    assert pq.read_table(tmp_path / "out").num_rows == 34
    for record in (tmp_path / "out").rglob("*.json"):
        assert CANARY not in record.read_text()
    assert CANARY.encode() not in next((tmp_path / "out" / "_quarantine").iterdir()).read_bytes()


def test_a_pair_that_the_scorer_refuses_is_set_aside_alone(tmp_path, pairs_input):
    class Picky:
        def __init__(self, config):
            self.inner = load_scorer(config)
            self.info = self.inner.info

        def score(self, pairs):
            scores = self.inner.score(pairs)
            raw, errors = scores.raw.copy(), {}
            for place, pair in enumerate(pairs):
                if "lamp lamp" in pair.document:
                    raw[place], errors[place] = np.nan, "out_of_memory"
                elif "river river" in pair.document:
                    raw[place] = np.inf
            return PairScores(raw, scores.tokens, scores.truncated, errors)

    manifest = job(pairs_input, tmp_path / "out", load=Picky)
    reasons = [line["reason"] for line in quarantine(tmp_path / "out")]
    texts = pq.read_table(pairs_input)["text"].to_pylist()
    lamps = sum("lamp lamp" in text for text in texts)
    rivers = sum("river river" in text and "lamp lamp" not in text for text in texts)
    assert lamps
    assert rivers
    assert (reasons.count("out_of_memory"), reasons.count("non_finite_score")) == (lamps, rivers)
    assert manifest["counts"]["rows_out"] == 600 - lamps - rivers
    ranks = [row["rank"] for row in rows_of(tmp_path / "out") if row["query_id"] == "q0"]
    assert sorted(ranks) == list(range(1, len(ranks) + 1))


def test_copies_of_a_pair_are_scored_once(tmp_path, make_rows, write_files):
    rows = make_rows(2, 10)
    for n, row in enumerate(rows):
        row["doc_id"] = f"d{n}"
        row["text"] = f"the same {n % 3}"
    seen = []

    class Counting:
        def __init__(self, config):
            self.inner = load_scorer(config)
            self.info = self.inner.info

        def score(self, pairs):
            seen.extend(pairs)
            return self.inner.score(pairs)

    write_files(tmp_path / "in", rows, files=1, group=100)
    job(tmp_path / "in", tmp_path / "out", load=Counting)
    assert len(seen) == len(set(seen)) == 6
    assert len(rows_of(tmp_path / "out")) == 20


def cut_end(path):
    path.write_bytes(path.read_bytes()[:-20])


def not_parquet(path):
    path.write_bytes(b"hello" * 100)


def no_bytes(path):
    path.write_bytes(b"")


def spoil_a_row_group(path):
    body = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(1).column(3).data_page_offset
    body[start : start + 60] = b"\xff" * 60
    path.write_bytes(bytes(body))


@pytest.mark.parametrize("spoil", [cut_end, not_parquet, no_bytes, spoil_a_row_group])
def test_a_corrupt_file_costs_only_itself(tmp_path, pairs_input, spoil):
    spoil(pairs_input / "1.parquet")
    with pytest.raises(TooManyBadFiles, match=r"1 input files cannot be read.*1\.parquet"):
        job(pairs_input, tmp_path / "out", unit_pairs=50)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    # The work that could be done is kept, and the same job ends when the loss is accepted.
    kept = len(list((tmp_path / "out" / "_job" / "units").iterdir()))
    assert kept >= 8
    manifest = job(pairs_input, tmp_path / "out", unit_pairs=50, max_bad_files=1)
    counts = verify(tmp_path / "out")
    assert counts["rows_in"] == counts["rows_out"] + counts["rows_quarantined"]
    assert len(rows_of(tmp_path / "out")) == counts["rows_out"] >= 400
    assert [bad["path"].rsplit("/")[-1] for bad in manifest["bad_files"]] == ["1.parquet"]


def test_a_file_that_changes_after_the_plan_stops_the_job(tmp_path, pairs_input):
    out = tmp_path / "out"
    changed: list[int] = []

    class Swapping:
        def __init__(self, config):
            self.inner = load_scorer(config)
            self.info = self.inner.info

        def score(self, pairs):
            if not changed:
                changed.append(1)
                path = pairs_input / "2.parquet"
                body = bytearray(path.read_bytes())
                body[-30] ^= 1
                path.write_bytes(bytes(body))
            return self.inner.score(pairs)

    with pytest.raises(FileChanged, match=r"2\.parquet has changed"):
        job(pairs_input, out, load=Swapping)
    assert not (out / "_SUCCESS").exists()


@pytest.mark.parametrize("step", [0, 9, 25, 60])
def test_a_full_disk_stops_the_job_and_room_resumes_it(tmp_path, pairs_input, step):
    switch, out = KillSwitch(), tmp_path / "out"
    switch.arm(out / "_job", after=step, error=OSError(28, "No space left on device"))
    with pytest.raises(StorageFull):
        job(pairs_input, out)
    switch.disarm()
    job(pairs_input, out)
    assert verify(out)["rows_out"] == 600


def test_empty_candidate_lists_and_their_queries_stay(tmp_path):
    kind = pa.list_(pa.struct([("doc_id", pa.int64()), ("text", pa.string())]))
    table = pa.table(
        {
            "query_id": [1, 2, 3],
            "query": ["a", "b", "c"],
            "candidates": pa.array([[], [{"doc_id": 1, "text": "b"}], []], kind),
        }
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    job(tmp_path / "in", tmp_path / "out")
    out = pq.read_table(tmp_path / "out").to_pylist()
    assert [len(row["candidates"]) for row in out] == [0, 1, 0]


def test_an_input_without_rows_gives_an_output_without_rows(tmp_path):
    names = ("query_id", "query", "doc_id", "text")
    (tmp_path / "in").mkdir()
    pq.write_table(
        pa.table({name: pa.array([], pa.string()) for name in names}),
        tmp_path / "in" / "a.parquet",
    )
    job(tmp_path / "in", tmp_path / "out")
    assert set(verify(tmp_path / "out").values()) == {0}
    assert pq.read_table(tmp_path / "out").num_rows == 0


def test_queries_are_ranked_over_all_files_although_one_cannot_be_read(tmp_path, pairs_input):
    spoil_a_row_group(pairs_input / "1.parquet")
    out = tmp_path / "out"
    job(pairs_input, out, unit_pairs=50, top_k=3, max_bad_files=1)
    ranks: dict[str, list[int]] = {}
    for row in rows_of(out):
        ranks.setdefault(row["query_id"], []).append(row["rank"])
    assert {tuple(sorted(found)) for found in ranks.values()} == {(1, 2, 3)}
    assert verify(out)["rows_quarantined"] > 0


@pytest.mark.seconds
def test_files_that_could_not_be_read_are_named_after_any_number_of_kills(tmp_path, pairs_input):
    spoil_a_row_group(pairs_input / "1.parquet")
    whole, out, switch = tmp_path / "whole", tmp_path / "out", KillSwitch()
    expected = job(pairs_input, whole, unit_pairs=50, top_k=3, max_bad_files=1)["bad_files"]
    manifest = None
    while manifest is None:
        switch.arm(out, after=37)
        with suppress(Killed):
            manifest = job(pairs_input, out, unit_pairs=50, top_k=3, max_bad_files=1)
        switch.disarm()
        forget_owner(out)
    assert manifest["bad_files"] == expected != []
    assert rows_of(out) == rows_of(whole)


def test_ids_that_are_not_utf8_cost_only_their_rows(tmp_path, make_rows):
    rows = make_rows(3, 5)
    table = pa.Table.from_pylist(rows)
    for name, place in (("query_id", 2), ("doc_id", 7)):
        ids = [row[name].encode() for row in rows]
        ids[place] = b"\xff\xfe"
        column = table.schema.get_field_index(name)
        table = table.set_column(column, name, pa.array(ids).view(pa.string()))
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    counts = job(tmp_path / "in", tmp_path / "out", unit_pairs=5, duplicates="set_aside")["counts"]
    assert (counts["rows_out"], counts["rows_quarantined"]) == (14, 1)
    assert [(r["row"], r["reason"]) for r in quarantine(tmp_path / "out")] == [
        (2, "query_id_not_utf8")
    ]
    with pytest.raises(InvalidRequest, match="an id that is not UTF-8"):
        write_trec_run(open_store(tmp_path / "out"), tmp_path / "run", ColumnNames())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_after_too_many_killed_rows_a_mended_machine_scores_them_all(tmp_path, pairs_input):
    out = tmp_path / "out"
    broken = KillSwitch()
    broken.arm(out, after=20)
    with pytest.raises(Killed):
        job(pairs_input, out)
    broken.disarm()
    forget_owner(out)
    store = open_store(out)
    plan = store.read_json("_job/plan.json")
    units = [unit for piece in plan["slices"] for unit in piece["units"]]
    left = next(u for u in units if not (out / f"_job/units/{u['index']:06d}.json").exists())
    name = f"{left['index']:06d}"

    def died(low: int, high: int) -> None:
        """Leave what a unit leaves behind whose first three pairs died again and again."""
        for death in range(2):
            store.mark(f"_job/attempts/{name}/{death}.{low}-{high}.death")
        middle = (low + high) // 2
        for start, stop in ((low, middle), (middle, high)) if high - low > 1 else ():
            if start < 3:
                died(start, stop)

    died(0, left["stop"] - left["start"])
    for place in range(3):
        store.mark(f"_job/killed/{name}-{place}")
    counts = job(pairs_input, out, max_killed_rows=2)["counts"]
    assert (counts["rows_out"], counts["rows_quarantined"]) == (600, 0)


class OtherWeights:
    """The shipped scorer under the name of another model."""

    def __init__(self, config):
        inner = load_scorer(config)
        self.info, self.score = replace(inner.info, fingerprint="other"), inner.score


def test_a_machine_with_other_weights_scores_nothing_of_the_job(tmp_path, pairs_input):
    out = tmp_path / "out"
    (out / "_job" / "units").mkdir(parents=True)
    config = RerankJobConfig(input=("in",), output=str(out), scorer=LEXICAL)
    context = JobContext(JobFolder(open_store(out), 0), config, "pairs", 0)
    ScoreUnits(context, load_scorer)
    actor = ScoreUnits(context, OtherWeights)
    with pytest.raises(ModelUnavailable, match="stage the same files on every machine"):
        read_line(actor(pa.table({"unit": ["{}"]}))["line"][0].as_py())


def test_an_answer_of_the_object_store_is_not_a_corrupt_file():
    assert is_outage(OSError("When reading key 'a': AWS Error NETWORK_CONNECTION during GetObject"))
    assert is_outage(OSError(5, "Input/output error"))
    assert not is_outage(OSError("Corrupt snappy compressed data."))
    assert not is_outage(FileNotFoundError(2, "No such file"))


def test_a_machine_that_does_not_share_the_output_is_named_before_a_model_is_loaded(tmp_path):
    def no_model(config):
        raise AssertionError("a model was loaded")

    config = RerankJobConfig(input=("in",), output=str(tmp_path), scorer=LEXICAL)
    actor = ScoreUnits(JobContext(JobFolder(open_store(tmp_path), 1), config, "pairs", 0), no_model)
    with pytest.raises(OutputRefused, match="must reach the same one there"):
        read_line(actor(pa.table({"unit": ["{}"]}))["line"][0].as_py())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["in", "in/**", "in/*", "file://{}/in"])
def test_an_output_inside_the_input_is_refused(tmp_path, pairs_input, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequest, match="lies inside the input"):
        job(given.format(tmp_path), tmp_path / "in" / "out")


def test_an_output_beside_the_files_of_a_glob_is_fine(tmp_path, pairs_input):
    assert job(pairs_input / "*.parquet", pairs_input / "out")["counts"]["rows_out"] == 600


def test_a_read_that_fails_for_a_moment_is_made_again(tmp_path, pairs_input):
    path, failed = pairs_input / "1.parquet", []

    class Failing:
        """Once a unit is scored, the next opening of a file fails."""

        def __init__(self, config):
            self.inner = load_scorer(config)
            self.info = self.inner.info

        def score(self, pairs):
            if not failed:
                failed.append(path.rename(path.with_suffix(".gone")))
                path.symlink_to(path)  # ELOOP, which has an errno
                threading.Timer(0.05, lambda: failed[0].replace(path)).start()
            return self.inner.score(pairs)

    assert job(pairs_input, tmp_path / "out", load=Failing)["counts"]["rows_out"] == 600
    assert failed
