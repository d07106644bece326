"""Fixes a job's plan once, at its start: files, slices and units."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pipelines.commits.delta_log import refuse_other_types
from pipelines.commits.records import PLAN, JobFolder, existing_plan, read_plan
from pipelines.commits.store import Store, open_store
from pipelines.config import RerankJobConfig
from pipelines.engine import Engine
from pipelines.growing.append import new_files
from pipelines.growing.finished import Finished, finished_at, refuse_to_append
from pipelines.growing.former_scores import kept_scores
from pipelines.identity import refuse_change, versions_of
from pipelines.inputs.conversion import as_parquet
from pipelines.inputs.footers import read_footers
from pipelines.inputs.listing import Look, list_inputs
from pipelines.inputs.units import Say, plan_slices, silent
from pipelines.plan_file import Plan, plan_from_json, plan_to_json
from pipelines.ranks.bucket import bucket_count
from rerank_core import InvalidRequest

# A GPU scores so many in a second or two: less would leave it waiting for what is around a unit.
_PAIRS_ON_CPUS, _PAIRS_ON_GPUS = 2_048, 16_384


def make_plan(
    config: RerankJobConfig,
    identity: dict[str, str],
    scratch: Store,
    gpus: Callable[[], float],
    *,
    texts: str = "",
    finished: Finished | None = None,
    say: Say = silent,
    look: Look = list_inputs,
) -> Plan:
    """Read the footers and cut the input into units; TREC runs become Parquet in `scratch`.

    `gpus` says how many each copy of the model takes: units are as large as it wants. It is asked
    last, and only where the settings do not say: it may have to start Ray. Of what is `finished`
    the files are new that it does not know; it is a unit for each of its files. `say` is told of
    steps; `look` lists the input.
    """
    if config.reuse:
        kept_scores(config)
    listing = look(config.input, versions_of(identity))
    left_out = listing.left_out
    if config.queries and config.documents:
        for table in (config.queries, config.documents):
            not_read = look((table,), versions_of(identity)).left_out.files
            for reason, (count, first) in not_read.items():
                left_out.add(reason, first, count)
    former = finished.plan if finished else Plan(identity, "pairs", [], [], 0, 0)
    listed = new_files(former.files, listing.files, say) if finished else listing.files
    was = former.schema
    listed = as_parquet(listed, scratch, config, left_out, former=was, say=say)
    named = (former.files[0].given, was) if was else None
    files, shape, schema, left_out.columns = read_footers(listed, config, former=named, say=say)
    if finished:
        refuse_to_append(finished, config, schema, texts)
    if config.format == "delta":
        refuse_other_types(schema, config.columns)
    unit_pairs = config.unit_pairs or (_PAIRS_ON_GPUS if gpus() else _PAIRS_ON_CPUS)
    slices = finished.slices if finished else []
    groups = [*(() for _ in former.files), *(file.groups for file in files)]
    slices = [*slices, *plan_slices(groups, unit_pairs, len(slices))]
    pairs = former.pairs + sum(group.pairs for file in files for group in file.groups)
    buckets = (
        _buckets(config, pairs, sum(len(piece.units) for piece in slices))
        if shape == "pairs"
        else 0
    )
    told = left_out.as_json(), texts, finished.told if finished else {}
    return Plan(identity, shape, [*former.files, *files], slices, buckets, pairs, schema, *told)


def _buckets(config: RerankJobConfig, pairs: int, units: int) -> int:
    """Return into how many buckets queries are cut to be ranked over units; 0 if they need not."""
    # Of rows that top_k cuts in a unit no copy would be known when files are appended.
    uncut = bool(config.top_k) and config.duplicates != "keep" and not config.scorer.first_stage
    if units <= 1 and not uncut:
        return 0
    if config.scorer.first_stage:
        raise InvalidRequest(
            "a first stage must see all candidates of a query at once, and rows of pairs may lie"
            " anywhere: use the nested shape, one row per query",
            "scorer.first_stage",
        )
    return bucket_count(pairs)


def fixed_plan(
    folder: JobFolder,
    config: RerankJobConfig,
    identity: dict[str, str],
    workers: Engine,
    *,
    texts: str = "",
    say: Say = silent,
    look: Look = list_inputs,
) -> Plan:
    """Return the folder's plan, making it if there is none. Raises JobChanged for another job."""
    store = folder.store
    fixed = read_plan(store)
    if fixed is None:
        gpus, root = partial(workers.gpus_per_replica, config), open_store(config.output)
        finished = finished_at(root) if config.append and store != root else None
        made = make_plan(
            config, identity, store, gpus, texts=texts, finished=finished, say=say, look=look
        )
        store.create_json(PLAN, plan_to_json(made, config))
        fixed = existing_plan(store)
    plan = plan_from_json(fixed)
    refuse_change(plan.identity, identity)
    return plan
