"""Which HTTP proxy Serve starts with here: HAProxy where it runs, else Serve's own."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.http import proxy
from serve_app.http.proxy import BINARY, HAPROXY, PORTS, UPGRADES, variables
from tests.serve_app.waiting import wait_for

METRICS = "RAY_SERVE_HAPROXY_METRICS_PORT"


@pytest.fixture
def binary(tmp_path, monkeypatch):
    """Return a function that makes a HAProxy which ends with a code, and has it found."""

    def make(code, does="exit"):
        file = tmp_path / "haproxy"
        file.write_text(f"#!/bin/sh\n{does} {code}\n")
        file.chmod(0o755)
        monkeypatch.setenv(BINARY, str(file))

    return make


def test_where_haproxy_runs_it_is_taken_with_files_and_ports_of_its_own(binary):
    binary(0)
    found = variables({})
    assert found[HAPROXY] == "1"
    assert UPGRADES.items() <= found.items()
    folder = os.path.dirname(found["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    # HAProxy's own limit of a socket's path, with a node's id before the file's name.
    assert len(f"{folder}/{'0' * 56}/metrics.sock") <= 97


@pytest.mark.parametrize("code", [1, 127])
def test_where_it_does_not_run_serves_own_is_left(binary, code):
    binary(code)
    assert variables({}) == UPGRADES


def test_where_there_is_none_serves_own_is_left(monkeypatch):
    monkeypatch.setenv(BINARY, "/nowhere/haproxy")
    monkeypatch.setenv("PATH", "/nowhere")
    assert variables({}) == UPGRADES


def test_it_ends_with_the_process_that_started_it(binary, tmp_path):
    """Left behind, it kept the port from the next service."""
    binary('[ "$1" = -v ] || { echo $$ > "$1"; exec sleep 60; }', does="")
    command = [variables({})[BINARY], str(tmp_path / "pid")]
    start = f"import subprocess; subprocess.Popen({command}); input()"
    with subprocess.Popen([sys.executable, "-c", start], stdin=subprocess.PIPE) as parent:
        wait_for(lambda: (tmp_path / "pid").exists() and read(tmp_path / "pid"), "its start", 20)
        running = Path("/proc") / read(tmp_path / "pid")
        assert command_line(running)
        parent.send_signal(signal.SIGKILL)
        wait_for(lambda: not command_line(running), "its end", 20)


def command_line(process):
    """Return it, empty for a process that has ended, collected by its parent or not."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def read(file):
    return file.read_text().strip()


def test_where_nothing_can_end_it_serves_own_is_left(binary, monkeypatch):
    binary(0)
    # No setpriv.
    monkeypatch.setenv("PATH", "/nowhere")
    assert variables({}) == UPGRADES


def test_what_is_said_stays(binary):
    binary(0)
    assert variables({HAPROXY: "0"}) == UPGRADES
    assert variables({**UPGRADES, HAPROXY: "0"}) == {}
    given = {HAPROXY: "1", METRICS: "9999"}
    assert {HAPROXY, METRICS}.isdisjoint(variables(given))


def test_a_port_that_another_instance_has_is_not_taken(tmp_path):
    with socket.socket() as other:
        other.bind(("", 0))
        port = other.getsockname()[1]
        assert proxy._free(port, tmp_path) != port
    assert proxy._free(port, tmp_path) == port


def test_two_that_start_together_have_different_ports(binary):
    """Neither listens yet. The second HAProxy could not later, and its start was a traceback."""
    binary(0)
    asked = (
        "from serve_app.http.proxy import *; found = variables({}); print(*map(found.get, PORTS))"
    )
    starts = [[sys.executable, "-c", f"{asked}; input()"]] * 2
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    ports = []
    with contextlib.ExitStack() as running:
        for start in starts:
            one = running.enter_context(subprocess.Popen(start, **pipes))
            running.callback(one.stdin.close)
            ports += one.stdout.readline().split()
    assert len(set(ports)) == len(PORTS) * 2


def test_a_folder_that_others_can_reach_is_not_used(binary, tmp_path, monkeypatch):
    binary(0)
    monkeypatch.setattr(proxy, "_FOLDERS", tmp_path)
    folder = tmp_path / f"haproxy-{os.getuid()}"
    folder.mkdir(mode=0o755)
    assert variables({}) == UPGRADES
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert variables({}) == UPGRADES
    folder.unlink()
    assert variables({})["RAY_SERVE_HAPROXY_SOCKET_PATH"] == f"{folder}/admin.sock"
