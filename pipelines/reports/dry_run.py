"""--dry-run: the plan in words, with an estimate of tokens and hours, before a GPU is started."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pyarrow as pa

from pipelines.commits.records import is_complete
from pipelines.commits.store import open_store
from pipelines.config import RerankJobConfig
from pipelines.growing.finished import finished_at
from pipelines.identity import ListOnce, identity_of, refuse_other_settings, versions_of
from pipelines.inputs.joins import Texts, join_texts, load_texts
from pipelines.inputs.left_out import left_out_line
from pipelines.inputs.listing import InputFile
from pipelines.inputs.pairs import extract
from pipelines.inputs.reading import read_units
from pipelines.inputs.units import Slice
from pipelines.plan import make_plan
from pipelines.plan_file import Plan
from pipelines.retries import retried
from rerank_core import ScorerConfig, load_scorer

_SAMPLE_PAIRS = 1000
_SAMPLE_SLICES = 4
# Typical subword tokens per word or ideograph, as the lexical scorer counts them.
_TOKENS_PER_TERM = 1.3
_SPEEDS = (2_000, 50_000, 500_000)


def describe(config: RerankJobConfig) -> str:
    """Return the plan of the job as lines of text; loads no model and starts no Ray."""
    look, root = ListOnce(), open_store(config.output)
    identity = identity_of(config, look=look)
    texts = load_texts(config, versions_of(identity), look)
    finished = finished_at(root) if config.append and is_complete(root) else None
    if finished:
        refuse_other_settings(finished.plan.identity, identity)
    with tempfile.TemporaryDirectory() as scratch:
        # Without Ray nobody knows of GPUs that are not asked for.
        plan = make_plan(
            config,
            identity,
            open_store(scratch),
            lambda: config.gpus_per_replica or 0.0,
            texts=texts.digest if texts else "",
            finished=finished,
            look=look,
        )
        tokens, sampled, aside = _sample(plan, config, texts)
    rows = sum(plan.rows.values())
    lines = [
        f"shape: {plan.shape}",
        f"files: {len(plan.files):,}, unreadable: {len(plan.bad_files):,}",
        *(f"  {path}: {reason}" for path, reason in plan.bad_files.items()),
        *(f"table: {name} at version {n}" for name, n in versions_of(plan.identity).items()),
        *filter(None, [left_out_line(plan.left_out)]),
        *_appending(plan),
        f"rows: {rows:,}",
        f"pairs: {plan.pairs:,}",
        f"units: {len(plan.rows):,}, read in {len(plan.slices):,} slices",
        f"merge of queries over units: {f'{plan.buckets} buckets' if plan.buckets else 'none'}",
        f"model: {config.scorer.model}, fingerprint {plan.identity['scorer']}",
    ]
    if sampled:
        pairs = plan.pairs - (finished.plan.pairs if finished else 0)
        total = pairs * tokens / sampled
        lines += [
            f"tokens: about {total:,.0f} ({tokens / sampled:,.0f} a pair, from {sampled:,} sampled"
            f" pairs; {aside:,} rows of the sample cannot be scored)",
            "hours: "
            + ", ".join(f"{total / speed / 3600:,.1f} at {speed:,} tokens/s" for speed in _SPEEDS),
        ]
    return "\n".join(lines)


def _appending(plan: Plan) -> list[str]:
    if not plan.former:
        return []
    rows = sum(list(plan.rows.values())[plan.former_units :])
    files = len(plan.files) - plan.former["files"]
    return [f"appends: {files:,} files with {rows:,} rows; the others are finished"]


def _readable(
    piece: Slice, file: InputFile, config: RerankJobConfig, schema: pa.Schema | None
) -> Iterator[pa.Table]:
    """Yield the rows of the slice's units; none if the job would set the file aside."""
    try:
        yield from retried(
            lambda: [rows for _, rows in read_units(piece, file, config, schema)], file.path
        )
    except (pa.ArrowException, OSError):
        return


def _sample(plan: Plan, config: RerankJobConfig, texts: Texts | None) -> tuple[float, int, int]:
    """Return (estimated tokens, pairs, rows set aside) of the first unit of a few slices."""
    limit = config.scorer.max_length
    slices = plan.slices[plan.former_units :]
    counter = load_scorer(ScorerConfig(model="lexical", max_length=limit))
    tokens, sampled, aside = 0.0, 0, 0
    for piece in slices[:: max(1, len(slices) // _SAMPLE_SLICES)][:_SAMPLE_SLICES]:
        first = Slice(piece.file, piece.first, piece.last, piece.start, piece.units[:1])
        for rows in _readable(first, plan.files[piece.file], config, plan.schema):
            table = join_texts(rows, texts, config.names) if texts else rows
            copies = config.duplicates == "keep"
            found = extract(table, plan.shape, config.names, config.max_text_chars, copies)
            pairs = found.pairs[: _SAMPLE_PAIRS // _SAMPLE_SLICES]
            terms = counter.score(pairs).tokens.astype(float) * _TOKENS_PER_TERM
            tokens += float((terms.clip(max=limit) if limit else terms).sum())
            sampled += len(pairs)
            aside += len(found.aside)
    return tokens, sampled, aside
