"""What cannot end well ends at once, with one line: by `serve run` and by `rerank-serve`."""

import sys

import pytest
from click.testing import CliRunner
from ray.serve.scripts import cli

from serve_app import serve_command


@pytest.fixture(params=["RAY_TMPDIR", "TMPDIR"])
def deep(request, monkeypatch):
    """A temporary folder with a long name, however it is named."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(request.param, "/tmp/" + "deep" * 20)


RAY_CLIENT = ["--address", "ray://head:10001"]


def test_serve_run_refuses_ray_client_in_one_line():
    done = CliRunner().invoke(cli, ["run", *RAY_CLIENT, "serve_app:app", "model=lexical"])
    assert done.exit_code == 2
    assert "Error: ray:// is Ray Client" in done.output
    assert "Traceback" not in done.output


def test_serve_run_refuses_a_folder_too_deep_for_sockets(deep):
    done = CliRunner().invoke(cli, ["run", "--address", "local", "serve_app:app", "model=lexical"])
    assert done.exit_code == 2
    assert "set RAY_TMPDIR=/tmp" in done.output


def test_rerank_serve_refuses_the_same_before_it_reads_a_file(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rerank-serve", *RAY_CLIENT, "missing.yaml"])
    monkeypatch.setattr(serve_command.run, "callback", serve_command.run.callback)
    with pytest.raises(SystemExit):
        serve_command.main()
    assert "ray:// is Ray Client" in capsys.readouterr().err
