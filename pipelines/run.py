"""From settings to a finished output: which folder, which job, and what becomes of a former result.

It does not know what the steps of a job do.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TextIO

from pipelines.commits.lease import Lease
from pipelines.commits.output_folder import Former, begun, choose_folder, enter
from pipelines.commits.records import MANIFEST, JobFolder
from pipelines.commits.store import open_store
from pipelines.config import RerankJobConfig
from pipelines.engine import Engine, LoadScorer
from pipelines.growing.exchange import replace_result
from pipelines.identity import ListOnce, identities_differ, identity_of, identity_of_run
from pipelines.job import commit, plan, rank, score, settle
from pipelines.reports.extras import (
    refuse_unwritable_extras,
    say_complete,
    say_end,
    write_extras,
)
from pipelines.reports.progress import Steps, waiting
from rerank_core import load_scorer

_LISTING = "listing the input"


def run_job(
    config: RerankJobConfig,
    load: LoadScorer = load_scorer,
    out: TextIO = sys.stderr,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Run or resume a job and return its manifest. Raises RerankError.

    `load` builds the scorer on each worker; `out` gets lines for people. Works on Ray unless
    another engine is given.
    """
    refuse_unwritable_extras(config)
    made = _one_run(config, load, out, engine)
    if config.append:
        with waiting(out, config.progress_s, _LISTING):
            now = identity_of(config)
        if identities_differ(made["identity"], now):
            made = _one_run(config, load, out, engine)  # what has come since that run had begun
    return made


def _one_run(
    config: RerankJobConfig, load: LoadScorer, out: TextIO, engine: Engine | None
) -> dict[str, Any]:
    root, look = open_store(config.output), ListOnce()
    say = partial(Steps, out, config.progress_s)
    former: Former = "overwrite" if config.overwrite else "append" if config.append else "keep"
    plans = list(begun(root, former, say("ending what a killed run had begun")))
    with waiting(out, config.progress_s, _LISTING):
        identity = identity_of_run(config, plans, look)
    work = choose_folder(root, identity, former)
    if work is None:
        say_complete(str(root), identity, out)
        made = dict(root.read_json(MANIFEST))
        write_extras(root, made, config)
        return made
    lease = Lease(root, say=say("waiting for the output"))
    with lease as held:
        if choose_folder(root, identity, former) == work:
            folder = enter(held, work, identity, former)
            made = _worked(folder, config, identity, _workers(engine, out), load, out, look=look)
            if work != root:
                replace_result(held, work, lease.still, say("replacing the old result"))
            say_end(str(root), made, out)
            return made
    return _one_run(config, load, out, engine)  # another job has ended since this one looked


def _worked(
    folder: JobFolder,
    config: RerankJobConfig,
    identity: dict[str, str],
    engine: AbstractContextManager[Engine],
    load: LoadScorer,
    out: TextIO,
    *,
    look: ListOnce,
) -> dict[str, Any]:
    with engine as workers:
        planned = plan(folder, config, identity, workers, out, look)
        look.forget()
        scored = score(planned, workers, load, out)
        settled = settle(planned, scored)
        ranked = rank(planned, settled, workers, out)
    return commit(planned, ranked, config.output, out)


def _workers(engine: Engine | None, out: TextIO) -> AbstractContextManager[Engine]:
    if engine:
        return nullcontext(engine)
    from pipelines.stages.ray_engine import RayEngine  # here: a finished job needs no Ray

    return RayEngine(out)
