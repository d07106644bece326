"""A Serve on a small cluster of this process, and what can go wrong with it.

Reads commands on stdin, a line of JSON each, and answers each with one on stdout. It is a process
of its own because a session of tests has a Ray of its own. It knows nothing of load or verdicts.
"""

# No postponed annotations: Serve reads the type of an application's argument.
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.schema import ServeDeploySchema

from rerank_core import LoadedScorer, ScorerConfig
from serve_app.application import build
from serve_app.config import ServeConfig

APP = "rerank"


def too_large(args: ServeConfig) -> serve.Application:
    """The application with a model that does not fit: it fails as torch does, while loading."""
    return build(args, _out_of_memory)


def _out_of_memory(config: ScorerConfig) -> LoadedScorer:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class FaultyCluster:
    """`nodes` raylets with `cpus` logical CPUs on this machine.

    A lone head does all; beside others it has the gateway and no scorer.
    """

    def __init__(self, port: int, nodes: int, cpus: int, every_node: bool) -> None:
        small = {"num_cpus": cpus, "object_store_memory": 100 << 20}
        head = {**small, "include_dashboard": False, "resources": {"head": 1}}
        if nodes > 1:
            head["num_cpus"] = 0
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._small = small
        self._others = [self._cluster.add_node(**small) for _ in range(nodes - 1)]
        ray.init(address=self._cluster.address, log_to_driver=False)
        self._http = {"host": "127.0.0.1", "port": port}
        self._where = "EveryNode" if every_node else "HeadOnly"
        serve.start(proxy_location=self._where, http_options=self._http)

    def deploy(self, args: dict[str, Any], target: str = "serve_app:app", surge: int = 100) -> str:
        """Take a Serve file as `serve deploy` does; returns at once."""
        at_head = {"num_cpus": 0, "resources": {"head": 0.1}}
        deployments = [
            {"name": "Gateway", "ray_actor_options": at_head},
            {"name": "Scorer", "max_surge_percent": surge},
        ]
        application = {"name": APP, "route_prefix": "/", "import_path": target, "args": args}
        config = {
            "proxy_location": self._where,
            "http_options": self._http,
            "applications": [{**application, "deployments": deployments}],
        }
        # What the dashboard's agent does with the file; there is no dashboard here.
        client = serve.context._get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate(config), _blocking=False)
        return "sent"

    def status(self) -> dict[str, Any]:
        """Return what the controller says of the application."""
        found = serve.status().applications[APP]
        replicas = {name: d.replica_states for name, d in found.deployments.items()}
        return {
            "status": str(found.status.value),
            "message": found.message + " ".join(d.message for d in found.deployments.values()),
            "scorers": replicas.get("Scorer", {}).get("RUNNING", 0),
        }

    def count(self, actor: str) -> int:
        """Return how many processes of that actor class there are."""
        return len(processes_below(os.getpid(), f"ray::{actor}"))

    def kill(self, actor: str) -> int:
        """SIGKILL one process of that actor class; returns its pid."""
        pid = processes_below(os.getpid(), f"ray::{actor}")[0]
        os.kill(pid, signal.SIGKILL)
        return pid

    def lose_gcs(self, seconds: float) -> float:
        """Kill the cluster's control store and start it again after a while."""
        head = self._cluster.head_node
        head.kill_gcs_server()
        time.sleep(seconds)
        head.start_gcs_server()
        return seconds

    def lose_node(self) -> int:
        """Take the last node away without a goodbye; returns how many are left."""
        self._cluster.remove_node(self._others.pop(), allow_graceful=False)
        return 1 + len(self._others)

    def add_node(self) -> int:
        """Add a node; returns how many there are."""
        self._others.append(self._cluster.add_node(**self._small))
        return 1 + len(self._others)

    def stop(self) -> None:
        """Stop what was started here, and nothing else."""
        ray.shutdown()
        self._cluster.shutdown()


def processes_below(root: int, name: str) -> list[int]:
    """Pids of the descendants of `root` whose command line starts with `name`."""
    parents: dict[int, int] = {}
    named = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if (entry / "cmdline").read_text().startswith(name):
                named.append(int(entry.name))
        except OSError:
            continue

    def below(pid: int) -> bool:
        while pid > 1 and pid != root:
            pid = parents.get(pid, 0)
        return pid == root

    return sorted(filter(below, named))


def main(arguments: Sequence[str]) -> None:
    """Start with PORT NODES CPUS PROXIES (head or every), then do as told until stdin ends."""
    port, nodes, cpus, proxies = arguments
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints, too.
    cluster = FaultyCluster(int(port), int(nodes), int(cpus), proxies == "every")
    try:
        print(json.dumps("started"), file=answers, flush=True)
        for line in sys.stdin:
            name, *values = json.loads(line)
            print(json.dumps(getattr(cluster, name)(*values)), file=answers, flush=True)
    finally:
        cluster.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
