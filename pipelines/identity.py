"""Whether two runs are the same job: inputs, scorer and the options that change the output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.config import RerankJobConfig
from pipelines.inputs.listing import Listing, Look, list_inputs
from pipelines.inputs.paths import holds
from rerank_core import InvalidRequest, RerankError

# The options that change the output. Others (pool sizes, timeouts) may differ between runs.
_OUTPUT_OPTIONS = ("top_k", "names", "columns", "unit_pairs", "max_text_chars", "file_size")
_SINCE_0_2_0 = "file_size"


class JobChanged(RerankError):
    """The folder holds another job: inputs, model or options differ."""


class ListOnce:
    """Lists each input of a run once, so that its identity and its plan are of the same files."""

    def __init__(self) -> None:
        self._known: list[tuple[tuple[str, ...], Listing]] = []

    def __call__(
        self, inputs: tuple[str, ...], versions: Mapping[str, int] | None = None
    ) -> Listing:
        """Return what there is, or was at the first look, of these versions of tables."""
        given = versions or {}
        for known, listing in self._known:
            same = all(given.get(table) == version for table, version in listing.versions.items())
            if known == inputs and same:
                return listing
        self._known.append((inputs, list_inputs(inputs, versions)))
        return self._known[-1][1]

    def forget(self) -> None:
        """Forget what was listed: a plan keeps what it needs of millions of files."""
        self._known.clear()


def identity_of(
    config: RerankJobConfig,
    versions: dict[str, int] | None = None,
    among: Container[str] | None = None,
    look: Look = list_inputs,
) -> dict[str, str]:
    """Return what makes two runs the same job: inputs by path and size, scorer, options.

    Tables of a lake are those of these versions, else of their current ones; files of the input
    only those `among` these, if given. Raises InvalidRequest where the output would be read as
    input.
    """
    for text in config.input:
        if holds(text, config.output):
            raise InvalidRequest(
                f"the output {config.output} lies inside the input {text}, where its files would"
                " be read as input; take a folder beside it",
                "output",
            )
    listing = look(config.input, versions)
    tables = [look((path,), versions) for path in (config.queries, config.documents) if path]
    texts = [file for table in tables for file in table.files]
    sizes = {file.path: file.size for file in [*listing.files, *texts]}
    files = [[path, size] for path, size in sizes.items()]
    if among is not None:
        always = {file.path for file in texts}
        files = [file for file in files if file[0] in among or file[0] in always]
    options = config.model_dump(mode="json", include=set(_OUTPUT_OPTIONS))
    # Refusing duplicates and setting them aside are the same job: the first only does not end it.
    options["duplicates"] = config.duplicates != "keep"
    calibration = config.scorer.calibration
    if calibration and Path(calibration).is_file():
        options["calibration"] = hashlib.sha256(Path(calibration).read_bytes()).hexdigest()[:16]
    if found := dict(item for one in [listing, *tables] for item in one.versions.items()):
        options["tables"] = found
    return {"inputs": _hash(files), "scorer": config.scorer.fingerprint()} | {
        name: json.dumps(value, sort_keys=True) for name, value in options.items()
    }


def versions_of(identity: dict[str, str]) -> dict[str, int]:
    """Return the versions of its tables of a lake, by address, with which a job began."""
    return dict(json.loads(identity.get("tables", "{}")))


def identity_of_run(
    config: RerankJobConfig, begun: Iterable[dict[str, Any]], look: Look = list_inputs
) -> dict[str, str]:
    """Return the identity of a run: that of the job, of those begun, with which it goes on.

    Jobs are given as their plans. A table that has moved on since a job began is read as that job
    began to; files that came since are none of its, where they can be appended afterwards.
    """
    for plan in begun:
        identity = dict(plan["identity"])
        versions, among = versions_of(identity), None
        if config.append:
            among = {file.get("source") or file["path"] for file in plan["files"]}
        try:
            if (versions or among) and identity == identity_of(config, versions, among, look):
                return identity
        except InvalidRequest:  # a version may be gone: what a killed append has left begins anew
            if not (config.overwrite or (config.append and plan.get("former"))):
                raise
    return identity_of(config, look=look)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def identities_differ(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return the names of what differs between two jobs."""
    return [name for name in sorted(old.keys() | new) if old.get(name) != new.get(name)]


def refuse_other_settings(old: dict[str, str], new: dict[str, str]) -> None:
    """Raise JobChanged that names what differs between a finished job and one that adds to it."""
    changed = [name for name in identities_differ(old, new) if name not in ("inputs", "tables")]
    if changed:
        raise JobChanged(
            f"--append adds files to the same job, and {', '.join(changed)} changed since this"
            " output was finished: append with its settings, or take a new --output"
        )


def refuse_change(old: dict[str, str], new: dict[str, str]) -> None:
    """Raise JobChanged that names what differs, or that release 0.1.0 began the job."""
    if _SINCE_0_2_0 not in old:
        raise JobChanged(
            "this output was begun by release 0.1.0, whose fingerprints are no longer made: finish"
            " it with that release, or start again with --overwrite"
        )
    changed = identities_differ(old, new)
    if changed:
        raise JobChanged(
            f"this output belongs to another job: {', '.join(changed)} changed since it was"
            " planned. Take a new --output, or --overwrite to replace it at the end"
        )
