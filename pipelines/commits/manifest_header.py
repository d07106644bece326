"""What the manifest says beside counts and files: what ran, when, from what to what.

Keys are named as in OpenLineage's run event (eventType, run, job, inputs, outputs) where it has
one; it is no such event by itself. It does not know how the job was done.
"""

from __future__ import annotations

import os
import platform
import uuid
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pipelines.config import RerankJobConfig
from pipelines.growing.finished import began_s
from pipelines.plan_file import Plan

_PACKAGES = ("ray", "torch", "transformers", "sentence-transformers", "pyarrow", "numpy")


def manifest_header(
    plan: Plan, config: RerankJobConfig, root: str, records: dict[str, Any]
) -> dict[str, Any]:
    """Return the manifest without its counts and files; `records` are those of all units."""
    scored = [record for record in records.values() if "seconds" in record]
    began = min(map(began_s, scored), default=None)
    ended = max((r["at"] for r in scored), default=None)
    return {
        "eventType": "COMPLETE",
        "eventTime": datetime.now(UTC).isoformat(),
        "producer": "ray-rerank",
        "run": {"runId": str(uuid.uuid4())},
        "job": {"namespace": "ray-rerank", "name": root},
        "inputs": [
            {**_dataset(f.given), "path": f.given, "bytes": f.size, "bad": f.bad}
            | ({"snapshot": f.snapshot} if f.snapshot else {})
            for f in plan.files
        ],
        "outputs": [_dataset(root)],
        "appended": _appended(plan),
        "left_out": plan.left_out,
        "identity": plan.identity,
        "shape": plan.shape,
        "config": config.model_dump(mode="json"),
        "scoring": {
            "began": _time(began),
            "ended": _time(ended),
            "replica_seconds": round(sum(r["seconds"] for r in scored), 3),
            "retries": sum(r["retries"] for r in scored),
        },
        "versions": {name: version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
        "host": {"name": platform.node(), "cpus": os.cpu_count()},
    }


def _appended(plan: Plan) -> dict[str, Any] | None:
    """Return how much was added to which run's output; None for a job of its own."""
    if not plan.former:
        return None
    rows = list(plan.rows.values())[plan.former_units :]
    files = len(plan.files) - plan.former["files"]
    return {"to": plan.former["run"], "files": files, "units": len(rows), "rows": sum(rows)}


def _dataset(path: str) -> dict[str, str]:
    """Return OpenLineage's namespace and name of a path or URI."""
    if "://" not in path:
        return {"namespace": "file", "name": path}
    scheme, _, rest = path.partition("?")[0].partition("://")
    authority, _, name = rest.partition("/")
    return {"namespace": f"{scheme}://{authority}", "name": name}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
