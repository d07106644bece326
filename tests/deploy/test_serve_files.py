"""The Serve files: one base and what each adds, no key is lost, and the cluster can run them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.application import app
from serve_app.config import ServeConfig

ROOT = Path(__file__).parents[2]
FILES = ["serve.yaml", "serve-container.yaml"]
BASE = "serve_app/local.yaml"
# A model of its own, on GPUs: the same wherever production runs.
PRODUCTION = {
    "proxy_location": "EveryNode",
    "args.scorer.dtype": "bfloat16",
    "args.scorer.max_length": 1024,
    "args.scaling": {"max_replicas": 8, "gateway_cpus": 1},
}
# What each file says beside the base; whatever else differs is a mistake.
OVERLAYS: dict[str, dict[str, Any]] = {
    "deploy/serve-container.yaml": {"http_options.host": "0.0.0.0"},
    "deploy/two-nodes.yaml": {
        "proxy_location": "HeadOnly",
        "args.scorer.threads": 1,
        "args.scaling": {"gateway_cpus": 1},
        "deployments": [
            {"name": "Gateway", "max_surge_percent": 100},
            {"name": "Scorer", "max_surge_percent": 100},
        ],
    },
    "serve_app/serve.yaml": {
        **PRODUCTION,
        "args.scorer.model": "BAAI/bge-reranker-v2-m3",
        "args.scorer.revision": "953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e",
        "args.model_names": ["rerank-v3.5", "bge-reranker-v2-m3"],
    },
    "deploy/serve.yaml": {
        **PRODUCTION,
        "http_options.host": "0.0.0.0",
        "args.scorer.model": "/models/bge-reranker-v2-m3",
        "args.scorer.local_files_only": True,
        "args.model_names": ["rerank-v3.5", "BAAI/bge-reranker-v2-m3", "bge-reranker-v2-m3"],
        "args.api_keys_file": "/home/ray/.config/ray-rerank/api_keys",
        "args.scaling": {
            "gpus_per_replica": 1,
            "cpus_per_replica": 4,
            "min_replicas": 2,
            "max_replicas": 8,
            "gateways": 2,
            "max_gateways": 8,
            "gateway_cpus": 1,
        },
        "deployments": [
            {"name": "Gateway", "max_surge_percent": 50},
            {
                "name": "Scorer",
                "max_surge_percent": 50,
                "ray_actor_options": {"num_cpus": 4, "num_gpus": 1, "resources": {"serving": 1}},
            },
        ],
    },
}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy" / name).read_text(encoding="utf-8"))


def application(name: str) -> dict[str, Any]:
    (found,) = load(name)["applications"]
    return found


def lost_keys(given: Any, kept: Any, where: str = "") -> list[str]:
    """Name the keys of `given` that `kept` lacks, at any depth."""
    if isinstance(given, dict):
        lost = [f"{where}.{key}" for key in given if key not in kept]
        for key in given.keys() & kept.keys():
            lost += lost_keys(given[key], kept[key], f"{where}.{key}")
        return lost
    if isinstance(given, list):
        return [x for g, k in zip(given, kept, strict=True) for x in lost_keys(g, k, where)]
    return []


def lost_by_serve(config: dict[str, Any]) -> list[str]:
    """Serve ignores what it does not know, so what goes in must come out again."""
    understood = ServeDeploySchema.model_validate(config).model_dump(exclude_unset=True)
    return lost_keys(config, understood)


def read(path: str) -> dict[str, Any]:
    """Read a Serve file with its one application's keys beside the others."""
    found = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    (application,) = found.pop("applications")
    return {**found, **application}


def with_overlay(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Return the base with values put at dotted paths."""
    made = copy.deepcopy(base)
    for path, value in overlay.items():
        *above, last = path.split(".")
        place = made
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return made


@pytest.mark.parametrize("path", OVERLAYS)
def test_a_serve_file_is_the_base_and_what_it_adds(path: str) -> None:
    assert read(path) == with_overlay(read(BASE), OVERLAYS[path])


@pytest.mark.parametrize("path", [BASE, *OVERLAYS])
def test_a_file_for_one_replica_is_one_process_unless_it_tunes_a_scorer(path: str) -> None:
    scaling = ServeConfig.model_validate(read(path)["args"]).scaling
    tuned = {one["name"] for one in read(path).get("deployments", [])}
    # In a file `auto` is split.
    assert (scaling.fused is True) == (scaling.is_single and "Scorer" not in tuned)


def test_no_serve_file_is_left_out() -> None:
    files = {path for folder in ("serve_app", "deploy") for path in (ROOT / folder).rglob("*.yaml")}
    with_applications = {
        str(path.relative_to(ROOT)) for path in files if "\napplications:" in path.read_text()
    }
    assert with_applications == {BASE, *OVERLAYS}


@pytest.mark.parametrize("name", FILES)
def test_serve_understands_every_key(name: str) -> None:
    assert lost_by_serve(load(name)) == []


def test_a_mistyped_serve_key_would_be_found() -> None:
    config = load("serve.yaml")
    config["htp_options"] = {}
    config["applications"][0]["deployments"][0]["max_surge"] = 50
    assert lost_by_serve(config) == [".htp_options", ".applications.deployments.max_surge"]


@pytest.mark.parametrize("name", FILES)
def test_our_own_arguments_are_valid(name: str) -> None:
    assert application(name)["import_path"] == "serve_app:app"
    ServeConfig.model_validate(application(name)["args"])


def test_every_deployment_that_is_tuned_exists() -> None:
    built = app(ServeConfig.model_validate(application("serve.yaml")["args"]))
    scorers = built._bound_deployment.init_kwargs.values()
    names = {built._bound_deployment.name, *(s._bound_deployment.name for s in scorers)}
    assert {d["name"] for d in application("serve.yaml")["deployments"]} == names


def test_the_cluster_has_a_machine_for_every_replica_and_none_is_the_head() -> None:
    config = application("serve.yaml")
    (scorer,) = [d for d in config["deployments"] if d["name"] == "Scorer"]
    asked = scorer["ray_actor_options"]
    demand = {"CPU": asked["num_cpus"], "GPU": asked["num_gpus"], **asked["resources"]}
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    offered = cluster["available_node_types"]["gpu_serving"]
    assert all(offered["resources"][name] >= amount for name, amount in demand.items())
    scaling = config["args"]["scaling"]
    most = scaling["max_replicas"] * (1 + scorer["max_surge_percent"] / 100)
    assert most <= offered["max_workers"] <= cluster["max_workers"]
    manifest = (ROOT / "deploy" / "kubernetes" / "rayservice.yaml").read_text(encoding="utf-8")
    spec = next(yaml.safe_load_all(manifest))["spec"]["rayClusterConfig"]
    (pods,) = [g for g in spec["workerGroupSpecs"] if g["groupName"] == "gpu"]
    assert most <= pods["maxReplicas"]
    assert scaling["gateway_cpus"] > 0
    assert scaling["gpus_per_replica"] == asked["num_gpus"]
    assert scaling["cpus_per_replica"] == asked["num_cpus"]


def test_an_update_keeps_old_replicas_until_new_ones_answer() -> None:
    config = application("serve.yaml")
    assert config["args"]["scaling"]["min_replicas"] >= 2
    assert all(d["max_surge_percent"] > 0 for d in config["deployments"])


def test_what_is_reachable_from_outside_asks_for_keys() -> None:
    assert load("serve.yaml")["http_options"]["host"] == "0.0.0.0"
    keys = application("serve.yaml")["args"]["api_keys_file"]
    for path in (ROOT / "cluster.yaml", ROOT / "deploy" / "cluster-local.yaml"):
        mounts = yaml.safe_load(path.read_text(encoding="utf-8"))["file_mounts"]
        assert str(Path(keys).parent).replace("/home/ray", "~") in mounts


def test_weights_are_named_as_they_are_staged() -> None:
    model = application("serve.yaml")["args"]["scorer"]["model"]
    assert model in (ROOT / "cluster.yaml").read_text(encoding="utf-8")
