"""A finished output whose scores a job takes over: whether it may, and where they lie."""

from __future__ import annotations

from pipelines.commits.records import MODEL, JobFolder
from pipelines.commits.store import Store, open_store
from pipelines.commits.verify import finished_manifest
from pipelines.config import RerankJobConfig
from pipelines.growing.exchange import current
from pipelines.identity import JobChanged
from rerank_core import InvalidRequest

# A file of the former output, and where in it the kept scores lie.
Span = tuple[str, int, int]


def kept_scores(config: RerankJobConfig) -> tuple[Store, str, list[Span]]:
    """Return where the former output is, which run it is of, and its kept scores.

    Raises InvalidRequest where none is finished there, or it kept no scores; JobChanged for those
    of another scorer.
    """
    if config.scorer.first_stage:
        raise InvalidRequest(
            "with a first stage a pair's score depends on the query's other candidates: score"
            " without --reuse",
            "reuse",
        )
    store = current(open_store(config.reuse or ""))
    manifest = finished_manifest(store)
    theirs, mine = manifest["identity"]["scorer"], config.scorer.fingerprint()
    if theirs != mine:
        raise JobChanged(
            f"--reuse {config.reuse}: its scores have the fingerprint {theirs}, those of this job"
            f" {mine}; scores of two models do not mix: take its scorer's settings, or leave"
            " --reuse out"
        )
    if not all("scored" in file for file in manifest["files"]):
        raise InvalidRequest(
            f"--reuse {config.reuse}: it was finished without the hashes of its texts"
            " (keep_scores); leave --reuse out",
            "reuse",
        )
    spans = [(file["file"], *file["scored"]) for file in manifest["files"]]
    return store, manifest["run"]["runId"], spans


def refuse_other_weights(folder: JobFolder, former: Store) -> None:
    """Make workers with other weights than the former job's refuse, whatever the model's name."""
    theirs = former.read_json(MODEL)
    if theirs is None or folder.store.create_json(MODEL, theirs):
        return
    if folder.store.read_json(MODEL) != theirs:
        raise JobChanged(
            "--reuse: its scores are of other weights of this model: leave --reuse out"
        )
