import sys
from pathlib import Path

from pipelines.rerank_job import main


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path, pairs_input, capsys):
    (pairs_input / "bad.parquet").write_bytes(b"no")
    options = ["--input", str(pairs_input), "--output", str(tmp_path / "out"), "--dry-run"]
    assert main([*options, "--unit-pairs", "50", "--model", "lexical"]) == 0
    said = capsys.readouterr().out
    for line in ("shape: pairs", "files: 4, unreadable: 1", "rows: 600", "units: 12", "hours: "):
        assert line in said
    assert not (tmp_path / "out").exists()


def test_a_dry_run_loads_neither_ray_nor_torch(tmp_path, pairs_input):
    import subprocess

    code = (
        "import sys; from pipelines.rerank_job import main;"
        f"assert main(['--input', {str(pairs_input)!r}, '--output', 'o', '--dry-run']) == 0;"
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, stdout=subprocess.DEVNULL)
