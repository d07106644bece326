import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import RerankJobConfig
from pipelines.inputs.footers import read_footers
from pipelines.inputs.listing import InputFile, list_inputs
from pipelines.inputs.reading import FileChanged, read_units
from pipelines.inputs.schemas import find_shape
from pipelines.inputs.units import plan_slices
from rerank_core import InvalidRequest

PAIRS = pa.schema([(name, pa.string()) for name in ("query_id", "query", "doc_id", "text")])


def config(folder, **changes):
    return RerankJobConfig(input=(str(folder),), output="out", **changes)


def test_folders_globs_and_files_are_listed_without_hidden_ones(tmp_path):
    for name in ("b/2.parquet", "b/1.parquet", "b/_x.parquet", "b/.y.parquet", "b/note.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12")
    one, two = str(tmp_path / "b/1.parquet"), str(tmp_path / "b/2.parquet")
    both = [InputFile(one, 2), InputFile(two, 2)]
    assert list_inputs((str(tmp_path),)).files == both
    assert list_inputs((str(tmp_path / "*" / "*.parquet"),)).files == both
    assert list_inputs((two, one, two)).files == both[::-1]
    assert list_inputs((f"file://{tmp_path}",)).files == both


@pytest.mark.parametrize("name", ["nothing", "nothing/*.parquet", ""])
def test_an_input_without_files_is_refused(tmp_path, name):
    with pytest.raises(InvalidRequest, match="input"):
        list_inputs((str(tmp_path / name),))


def test_the_shape_is_recognised_from_the_schema():
    nested = pa.list_(pa.struct([("doc_id", pa.int64()), ("text", pa.string())]))
    schema = pa.schema([("qid", pa.int64()), ("query", pa.string()), ("hits", nested)])
    assert find_shape(PAIRS, config("in")) == "pairs"
    assert (
        find_shape(schema, config("in", names={"query_id": "qid", "candidates": "hits"}))
        == "nested"
    )


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (PAIRS.remove(3), "no column text; it has query_id, query, doc_id"),
        (PAIRS.append(pa.field("score", pa.float32())), "--names.score rerank_score"),
        (
            pa.schema([("query_id", pa.int8()), ("query", pa.string()), ("candidates", pa.int8())]),
            "list of structs, not int8",
        ),
    ],
)
def test_a_schema_that_cannot_work_is_refused_with_the_fix(schema, message):
    with pytest.raises(InvalidRequest, match=message):
        find_shape(schema, config("in"))


def test_files_with_other_columns_are_refused(tmp_path):
    pq.write_table(PAIRS.empty_table(), tmp_path / "a.parquet")
    pq.write_table(PAIRS.append(pa.field("x", pa.int8())).empty_table(), tmp_path / "b.parquet")
    with pytest.raises(InvalidRequest, match=r"b\.parquet has a column x, file .* has none"):
        read_footers(list_inputs((str(tmp_path),)).files, config(tmp_path))


@pytest.mark.parametrize(
    "body", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 40 + b"PAR1"]
)
def test_a_file_without_a_footer_is_bad_and_the_others_are_good(tmp_path, pairs_input, body):
    (pairs_input / "bad.parquet").write_bytes(body)
    files, shape, *_ = read_footers(list_inputs((str(pairs_input),)).files, config(pairs_input))
    assert shape == "pairs"
    assert [bool(file.bad) for file in files] == [False, False, False, True]


@pytest.mark.parametrize("unit_pairs", [1, 7, 33, 70, 1000])
def test_reading_units_gives_every_row_once(pairs_input, unit_pairs):
    files, *_ = read_footers(list_inputs((str(pairs_input),)).files, config(pairs_input))
    slices = plan_slices([file.groups for file in files], unit_pairs)
    read = [
        item
        for piece in slices
        for item in read_units(piece, files[piece.file], config(pairs_input))
    ]
    assert [unit.index for unit, _ in read] == list(range(len(read)))
    assert all(table.num_rows == unit.rows for unit, table in read)
    rows = pa.concat_tables([table for _, table in read]).to_pylist()
    assert rows == pq.read_table(pairs_input).to_pylist()


def test_a_changed_file_is_not_read(pairs_input):
    files, *_ = read_footers(list_inputs((str(pairs_input),)).files, config(pairs_input))
    (piece, *_) = plan_slices([file.groups for file in files], 50)
    pq.write_table(PAIRS.empty_table(), pairs_input / "0.parquet")
    with pytest.raises(FileChanged):
        next(read_units(piece, files[0], config(pairs_input)))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("text", pa.list_(pa.string()), "column text must be text or a plain value"),
        ("query_id", pa.struct([("a", pa.int8())]), "column query_id must be text"),
    ],
)
def test_a_type_that_would_fail_in_the_middle_is_refused_before(name, kind, message):
    schema = PAIRS.set(PAIRS.get_field_index(name), pa.field(name, kind))
    with pytest.raises(InvalidRequest, match=message):
        find_shape(schema, config("in"))


def test_a_trec_run_without_the_ids_it_needs_is_refused_before():
    nested = pa.list_(pa.struct([("doc_id", pa.int64()), ("text", pa.string()), ("n", pa.int8())]))
    fields = [("query_id", pa.int64()), ("query", pa.string()), ("candidates", nested)]
    for columns, missing in ((("text",), "query_id, doc_id"), (("query_id",), "doc_id")):
        with pytest.raises(InvalidRequest, match=f"--trec-run needs {missing}"):
            find_shape(PAIRS, config("in", columns=columns, trec_run="r"))
    with pytest.raises(InvalidRequest, match=r"--trec-run needs candidates\.doc_id"):
        find_shape(
            pa.schema(fields), config("in", columns=("query_id", "candidates.n"), trec_run="r")
        )
    assert find_shape(pa.schema(fields), config("in", columns=("query_id",), trec_run="r"))


def test_a_file_that_two_inputs_name_is_read_once(tmp_path, pairs_input, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = list_inputs((str(pairs_input),)).files
    assert list_inputs(("in", "in/1.parquet", f"file://{pairs_input}/2.parquet")).files == whole


def test_an_address_with_a_secret_is_refused_without_repeating_it():
    with pytest.raises(InvalidRequest, match="through the environment") as refused:
        list_inputs(("s3://AKIA:hush@bucket/in",))
    assert "hush" not in str(refused.value)


def test_a_footer_that_is_longer_than_what_is_read_at_once_is_read(tmp_path):
    wide = {f"column {n}": ["x"] for n in range(3000)}
    names = {name: ["a"] for name in PAIRS.names}
    pq.write_table(pa.table(names | wide), tmp_path / "wide.parquet")
    (file,), shape, schema, _ = read_footers(list_inputs((str(tmp_path),)).files, config(tmp_path))
    assert (file.bad, shape, len(schema)) == ("", "pairs", 3004)
    (piece,) = plan_slices([file.groups], 10)
    ((_, rows),) = read_units(piece, file, config(tmp_path))
    assert rows.num_columns == 3004
