"""The Kubernetes manifests: schemas of Kubernetes, fields of KubeRay, and who may talk to whom."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipelines.settings import load_config
from serve_app.config import ServeConfig
from serve_app.http.proxy import HAPROXY, RETRIES, UPGRADES

pytestmark = pytest.mark.seconds

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
MANIFESTS = sorted(p for p in FOLDER.glob("*.yaml") if p.name != "kustomization.yaml")
KUBERNETES = "1.32"


def objects(*paths: Path) -> list[dict[str, Any]]:
    found = []
    for path in paths or MANIFESTS:
        found += [o for o in yaml.safe_load_all(path.read_text(encoding="utf-8")) if o]
    return found


def one(kind: str) -> dict[str, Any]:
    (found,) = [o for o in objects() if o["kind"] == kind]
    return found


def kuberay_schema(kind: str) -> dict[str, Any]:
    text = (Path(__file__).parent / "kuberay_schema.yaml").read_text(encoding="utf-8")
    definitions = yaml.safe_load(text)["definitions"]
    return {"definitions": definitions, "$ref": f"#/definitions/{kind}"}


def pod_templates(value: Any) -> Iterator[dict[str, Any]]:
    """Find every pod template inside an object, wherever it lies."""
    if isinstance(value, list):
        for item in value:
            yield from pod_templates(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("template", "submitterPodTemplate"):
                yield item
            else:
                yield from pod_templates(item)


def pods() -> list[dict[str, Any]]:
    return [template["spec"] for o in objects() for template in pod_templates(o)]


def containers() -> list[dict[str, Any]]:
    return [container for pod in pods() for container in pod["containers"]]


@pytest.mark.parametrize("manifest", objects(), ids=lambda o: o["kind"])
def test_kubernetes_knows_every_field(manifest: dict[str, Any]) -> None:
    if manifest["apiVersion"] == "ray.io/v1":
        jsonschema.validate(manifest["spec"], kuberay_schema(manifest["kind"]))
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    for template in pod_templates(manifest):
        holder = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
        kubernetes_validate.validate(holder, KUBERNETES, strict=True)


def test_a_mistyped_field_of_kuberay_is_refused() -> None:
    spec = one("RayService")["spec"]
    spec["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(spec, kuberay_schema("RayService"))


def test_a_mistyped_field_of_a_pod_is_refused() -> None:
    template = next(pod_templates(one("RayService")))
    template["spec"]["tolerationz"] = []
    holder = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(holder, KUBERNETES, strict=True)


def test_every_pod_runs_as_nobody_special() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers():
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_only_heads_get_a_service_account_token() -> None:
    with_token = [p for p in pods() if p.get("automountServiceAccountToken") is not False]
    assert [p["containers"][0]["name"] for p in with_token] == ["ray-head", "ray-head"]


def test_every_container_names_a_fixed_image_and_its_memory() -> None:
    for container in containers():
        assert ":" in container["image"]
        assert not container["image"].endswith(":latest")
        assert "memory" in container["resources"]["limits"]


def test_tokens_are_on_and_no_replica_runs_on_a_head() -> None:
    service, job = one("RayService")["spec"], one("RayJob")["spec"]
    for cluster in (service["rayClusterConfig"], job["rayClusterSpec"]):
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["rayVersion"] == "2.60.0"


def test_the_service_starts_the_proxy_that_production_has() -> None:
    cluster = one("RayService")["spec"]["rayClusterConfig"]
    groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert env.items() >= {HAPROXY: "1", **UPGRADES, **RETRIES}.items()


def test_every_secret_that_is_named_has_an_example() -> None:
    examples = {o["metadata"]["name"]: set(o["stringData"]) for o in objects() if "stringData" in o}
    named = set()
    for pod in pods():
        named |= {v["secret"]["secretName"] for v in pod.get("volumes", []) if "secret" in v}
        env = [e for c in pod["containers"] for e in c.get("env", []) if "valueFrom" in e]
        named |= {e["valueFrom"]["secretKeyRef"]["name"] for e in env}
    assert named == set(examples)
    assert examples["ray-rerank-redis"] == {"password"}


def test_no_command_line_holds_a_secret() -> None:
    for container in containers():
        for word in container.get("command", []) + container.get("args", []):
            # What stands before the here-document becomes arguments; the document does not.
            assert "PASSWORD" not in word.split("<<")[0]


def groups_of(kind: str) -> dict[str, dict[str, Any]]:
    return {g["groupName"]: g for g in one(kind)["spec"]["rayClusterConfig"]["workerGroupSpecs"]}


def test_disruption_budgets_can_be_computed_for_pods_that_kuberay_owns() -> None:
    # RayCluster has no scale subresource: for its pods maxUnavailable would allow no eviction.
    budgets = [o["spec"] for o in objects() if o["kind"] == "PodDisruptionBudget"]
    groups = groups_of("RayService")
    guarded = {b["selector"]["matchLabels"]["ray.io/group"]: b["minAvailable"] for b in budgets}
    assert guarded == dict.fromkeys(groups, 1)
    for budget in budgets:
        labels = {"app.kubernetes.io/component": "service"}
        group = budget["selector"]["matchLabels"].pop("ray.io/group")
        assert budget["selector"]["matchLabels"] == labels
        assert labels.items() <= groups[group]["template"]["metadata"]["labels"].items()


def test_a_drain_can_take_one_of_the_gateways_pods() -> None:
    assert groups_of("RayService")["ingress"]["minReplicas"] > 1


def test_workers_of_the_service_are_spread_over_zones_and_machines() -> None:
    for name, group in groups_of("RayService").items():
        spread = group["template"]["spec"]["topologySpreadConstraints"]
        keys = [rule["topologyKey"] for rule in spread]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        # The label that KubeRay gives the pods of a group.
        labels = [rule["labelSelector"]["matchLabels"]["ray.io/group"] for rule in spread]
        assert labels == [name, name]


@pytest.mark.parametrize("where", ["rayjob.yaml", "cluster.md"])
def test_the_job_scores_as_the_service_does(where: str) -> None:
    if where == "rayjob.yaml":
        command = one("RayJob")["spec"]["entrypoint"]
    else:
        page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
        (command,) = re.findall(r"^ray job submit (.*?[^\\])\n", page, re.DOTALL | re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " "))
    job = load_config(words[words.index("pipelines.rerank_job") + 1 :])
    serve = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text(encoding="utf-8"))
    online = ServeConfig.model_validate(serve["applications"][0]["args"]).scorer
    # Settings, because a fingerprint is of what lies in the folder, which is not here. Where a
    # model may be fetched from changes no score.
    apart = {"local_files_only"}
    assert job.scorer.model_dump(exclude=apart) == online.model_dump(exclude=apart)
    # `auto` would count the GPUs of a cluster that has not started any.
    assert job.replicas != "auto"
    assert job.gpus_per_replica == 1
    # The first GPU machine is still to be started.
    assert job.machine_wait_s >= 600


def test_the_service_deploys_exactly_the_serve_config_of_the_repository() -> None:
    inline = one("RayService")["spec"]["serveConfigV2"]
    assert inline == (ROOT / "deploy" / "serve.yaml").read_text(encoding="utf-8")


class Pod(NamedTuple):
    """Enough of a pod to ask the network policies about it."""

    namespace: str
    labels: Mapping[str, str]
    namespace_labels: Mapping[str, str] = MappingProxyType({})


HOME = "ray-rerank"
PART = {"app.kubernetes.io/part-of": "ray-rerank"}
HEAD = Pod(HOME, {**PART, "ray.io/node-type": "head"})
WORKER = Pod(HOME, {**PART, "app.kubernetes.io/component": "service", "ray.io/node-type": "worker"})
JOB_WORKER = Pod(HOME, {**PART, "app.kubernetes.io/component": "job", "ray.io/node-type": "worker"})
STRANGER = Pod(HOME, {"app": "something-else"})
CLIENT = Pod("shop", {"app": "search"}, {"ray-rerank.dev/client": "true"})
OPERATOR = Pod("kuberay", {"app.kubernetes.io/name": "kuberay-operator"})
PROMETHEUS = Pod("monitoring", {}, {"kubernetes.io/metadata.name": "monitoring"})


def matches(selector: dict[str, Any], labels: Mapping[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(peer: dict[str, Any], pod: Pod) -> bool:
    if "namespaceSelector" in peer:
        in_namespace = matches(peer["namespaceSelector"], pod.namespace_labels)
    else:
        in_namespace = pod.namespace == HOME
    return in_namespace and matches(peer.get("podSelector", {}), pod.labels)


def policies(direction: str) -> list[dict[str, Any]]:
    specs = [o["spec"] for o in objects() if o["kind"] == "NetworkPolicy"]
    return [spec for spec in specs if direction in spec["policyTypes"]]


def may_reach(source: Pod, target: Pod, port: int) -> bool:
    """Ask the policies as Kubernetes does: what selects the target must allow the source."""
    selecting = [p for p in policies("Ingress") if matches(p["podSelector"], target.labels)]
    rules = [rule for p in selecting for rule in p["ingress"]]
    return not selecting or any(
        any(is_peer(peer, source) for peer in rule["from"])
        and ("ports" not in rule or port in [allowed["port"] for allowed in rule["ports"]])
        for rule in rules
    )


def open_ports(source: Pod, target: Pod) -> set[int]:
    asked = (6379, 8000, 8080, 8265, 8404, 8500, 9101, 10001, 30000, 52365)
    return {port for port in asked if may_reach(source, target, port)}


def test_the_cluster_reaches_itself() -> None:
    assert may_reach(WORKER, HEAD, 6379)
    assert may_reach(HEAD, WORKER, 30000)


def test_a_stranger_in_the_same_namespace_reaches_nothing() -> None:
    assert open_ports(STRANGER, HEAD) == open_ports(STRANGER, WORKER) == set()


def test_a_client_reaches_the_http_port_of_workers_and_nothing_else() -> None:
    assert open_ports(CLIENT, WORKER) == {8000}
    assert open_ports(CLIENT, HEAD) == open_ports(CLIENT, JOB_WORKER) == set()


def test_prometheus_reaches_metrics_and_nothing_else() -> None:
    assert open_ports(PROMETHEUS, HEAD) == open_ports(PROMETHEUS, WORKER) == {8080}


def test_the_operator_reaches_the_job_api_but_not_the_control_plane() -> None:
    assert open_ports(OPERATOR, HEAD) == {8000, 8265}


def test_no_pod_of_ours_may_call_out_but_the_heads_autoscaler() -> None:
    rules = [(p["podSelector"], rule) for p in policies("Egress") for rule in p["egress"]]
    to_anywhere = [selector for selector, rule in rules if "to" not in rule]
    assert to_anywhere == [{"matchLabels": HEAD.labels}]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_the_folder() -> None:
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
    built = list(yaml.safe_load_all(run(["kubectl", "kustomize", str(FOLDER)]).stdout))
    assert {o["metadata"]["namespace"] for o in built} == {"ray-rerank"}
    assert "RayService" in {o["kind"] for o in built}
