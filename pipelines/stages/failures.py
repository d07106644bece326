"""How errors and deaths get from a worker to the driver, and so to the exit code and the terminal.

Ray Data wraps what a stage raises in an error of its own, and the kind is lost on the way; a line
that says the kind is not. Of a death only who comes after can tell, by a note that the driver looks
for. It does not know which errors there are.
"""

from __future__ import annotations

import json
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.commits.records import JobFolder, lean_json
from pipelines.stages.isolate import ATTEMPTS
from rerank_core import RerankError

# How often a worker may die over the same work.
MOST_DEATHS = 4
_DEATHS, _LOADS = f"{ATTEMPTS}/deaths", f"{ATTEMPTS}/loads"
# Who dies: a reader of a slice, by its first unit, or a copy of the model, by its actor.
READER, COPY = "reader-", "copy-"
_LOOK_EVERY_S = 5.0


class WorkerDied(RerankError):
    """Worker after worker has died over the same work."""


def named(error: BaseException) -> RerankError:
    """Return an error of ours as it is; of any other its kind and place.

    What others say in their words may hold text of a document.
    """
    if isinstance(error, RerankError):
        return error
    if isinstance(error, OSError) and error.filename:
        where = f"{error.strerror}: {error.filename}"
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"in {last.filename}, line {last.lineno}"
    return RerankError(f"{type(error).__name__} on {socket.gethostname()}, {where}")


def note_death(folder: JobFolder, who: str, number: int) -> None:
    """Leave a note that a process has died, for the n-th time."""
    folder.store.mark(f"{_DEATHS}/{folder.epoch}.{who}.{number}")


def refuse_more(deaths: int, what: str) -> None:
    """Raise WorkerDied when a process has died too often over this work."""
    if deaths >= MOST_DEATHS:
        raise WorkerDied(
            f"{deaths} processes have died over {what}, most likely for want of memory: give the"
            " machines more, or the input smaller row groups; the same command goes on"
        )


@contextmanager
def loading(folder: JobFolder, copy: str, deaths: int) -> Iterator[None]:
    """Load a model in the block, in the process that comes after so many of this copy.

    Raises WorkerDied when the last ones died in theirs: it would go on so for ever. The first one
    leaves no note, so that a healthy job writes none.
    """
    mine = f"{folder.epoch}.{copy}"
    if deaths >= MOST_DEATHS:
        notes = set(folder.store.names(_LOADS))
        last = range(deaths - MOST_DEATHS + 1, deaths)
        if all(f"{mine}.{n}" in notes and f"{mine}.{n}.loaded" not in notes for n in last):
            raise WorkerDied(
                f"{deaths} processes have died while they loaded the model, most likely for want of"
                " memory: give the machines more, or take fewer replicas; the same command goes on"
            )
    if deaths:
        folder.store.mark(f"{_LOADS}/{mine}.{deaths}")
    yield
    if deaths:
        folder.store.mark(f"{_LOADS}/{mine}.{deaths}.loaded")


class DeathWatch:
    """Says each death in a line, while its `with` block runs; `places` tells who that was."""

    def __init__(
        self, folder: JobFolder, places: dict[str, str], say: Callable[[str], object]
    ) -> None:
        self._folder, self._places, self._say = folder, places, say
        self._known: set[str] = set()
        self._died = self._told = 0
        self._stop, self._looking = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="deaths")

    def __enter__(self) -> DeathWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def add_to(self, line: dict[str, Any], last: bool = False) -> None:
        """Count deaths that no record does with the unit that comes next; bad files have none."""
        if last:
            self._look()
        if "retries" in line:
            line["retries"] += (new := self._died - self._told)
            self._told += new

    def _loop(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            self._look()
        self._look()

    def _look(self) -> None:
        with self._looking:
            try:
                names = self._folder.store.names(_DEATHS)
            except (OSError, RerankError):
                return  # a short outage of the storage; the notes stay
            new = sorted(set(names) - self._known)
            self._known.update(new)
        for epoch, who, number in (name.split(".") for name in new):
            if int(epoch) != self._folder.epoch:
                continue
            # From then on a copy notes which unit it tries, whose record counts the attempts.
            noted = who.startswith(COPY) and (int(number) > 1 or self._folder.epoch > 1)
            self._died += not noted
            where = self._places.get(who, "a copy of the model")
            self._say(f"\na process has died (no. {number}): {where}\n")


def failure_line(error: RerankError) -> str:
    """Return the line that stands for the error in a stage's output."""
    return json.dumps({"error": type(error).__name__, "text": str(error)})


def read_line(text: str) -> dict[str, Any]:
    """Return the line of a stage; raises the error that it stands for."""
    line: dict[str, Any] = lean_json(text)
    if "error" in line:
        kinds = {kind.__name__: kind for kind in _kinds(RerankError)}
        raise kinds.get(line["error"], RerankError)(line["text"])
    return line


def _kinds(kind: type[RerankError]) -> Iterator[type[RerankError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
