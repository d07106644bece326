"""`rerank-serve`: Ray's `serve run`, with the same arguments, that cuts nobody off when it stops.

Ray ends at once on SIGTERM. Here the gateways first answer what is under way. `serve run` itself
does the same where it calls our builder (`serve_app:app`); with a Serve file it does not.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import click
from ray import serve
from ray._common.utils import get_default_system_temp_dir
from ray._private import worker
from ray.serve.scripts import run

from serve_app.http import proxy

GATEWAY = "Gateway"
# For answers that have left their gateway and are on their way through Serve's proxy.
_PROXY_S = 1.0
# A socket's path has at most 107 bytes, of which `/ray/session_.../sockets/plasma_store` takes 66.
_LONGEST_FOLDER = 40


def main() -> None:
    """Run the command."""
    inner: Any = run.callback

    def prepared(**options: Any) -> None:
        prepare(options["address"])
        inner(**options)

    run.callback = prepared
    run.main(prog_name="rerank-serve")


def prepare(address: str | None) -> None:
    """Make ready a process that is about to start Ray: what Serve's proxies need, and SIGTERM.

    Raises click's UsageError, which ends the command with one line, for what cannot end well.
    """
    _check_address(address)
    os.environ.update(proxy.variables(os.environ))
    # Ray takes SIGTERM when it starts; its hooks run after that.
    if _take_sigterm not in worker._post_init_hooks:
        worker._post_init_hooks.append(_take_sigterm)


def _check_address(address: str | None) -> None:
    if address and address.startswith("ray://"):
        raise click.UsageError(
            "ray:// is Ray Client, by which nothing is served here: run the command on the"
            " cluster's head with --address auto, or `serve deploy FILE --address"
            " http://HEAD:8265`"
        )
    folder: str = get_default_system_temp_dir()  # type: ignore[no-untyped-call]
    if address in (None, "local") and len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise click.UsageError(
            f"Ray's sockets would lie too deep: the temporary folder {folder} has more than"
            f" {_LONGEST_FOLDER} bytes; set RAY_TMPDIR=/tmp"
        )


def _take_sigterm() -> None:
    node: Any = worker._global_node
    if not node.is_head():
        # Ray was there before, and stays with all that it serves.
        return
    drained = threading.Event()
    stops: list[threading.Thread] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if drained.is_set():
            # What else Ray started goes with this process.
            sys.exit(0)
        if stops:
            # Nothing that Python does on its way out is worth waiting for.
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            os._exit(1)
        stops.append(threading.Thread(target=_drain, args=(drained,), daemon=True))
        stops[0].start()

    signal.signal(signal.SIGTERM, stop)


def _drain(drained: threading.Event) -> None:
    click.echo("Finishing the requests under way; another SIGTERM ends them at once.", err=True)
    try:
        _drain_gateways()
    except Exception as error:
        # While it starts, there is nothing to wait for.
        click.echo(f"No gateway could be asked to finish: {type(error).__name__}", err=True)
    drained.set()
    # Only the main thread can end the process, and it sleeps.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _drain_gateways() -> None:
    asked = [
        serve.get_deployment_handle(GATEWAY, name).broadcast("drain")
        for name, application in serve.status().applications.items()
        if GATEWAY in application.deployments
    ]
    for answers in asked:
        answers.results()
    time.sleep(_PROXY_S)
