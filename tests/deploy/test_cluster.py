"""cluster.yaml and its on-premises twin against Ray's own schema, defaults and scheduler.

Nothing here talks to a cloud. Ray's modules for this are private; Ray is pinned.
"""

from __future__ import annotations

import copy
import functools
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.aws.config import _create_default_inbound_rules
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import (
    _default_utilization_scorer,
    get_nodes_for,
)
from ray.autoscaler._private.util import prepare_config, validate_config

from serve_app.http.proxy import RETRIES, UPGRADES

ROOT = Path(__file__).parents[2]
AWS = ROOT / "cluster.yaml"
LOCAL = ROOT / "deploy" / "cluster-local.yaml"
both = pytest.mark.parametrize("path", [AWS, LOCAL], ids=["aws", "local"])


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    ready = prepare_config(copy.deepcopy(config))
    validate_config(ready)
    return ready


def nodes_to_start(*demands: dict[str, float]) -> dict[str, int]:
    """What Ray's autoscaler would start on the empty cluster for these demands."""
    config = prepared(load(AWS))
    scorer = functools.partial(
        _default_utilization_scorer, node_availability_summary=NodeAvailabilitySummary({})
    )
    nodes, unmet = get_nodes_for(
        config["available_node_types"], {"head": 1}, "head", 100, list(demands), scorer
    )
    assert unmet == []
    return dict(nodes)


@both
def test_ray_accepts_the_file(path: Path) -> None:
    prepared(load(path))


@pytest.mark.parametrize(
    ("where", "key"), [((), "max_worker"), (("available_node_types", "cpu"), "min_worker")]
)
def test_ray_refuses_a_typo(where: tuple[str, ...], key: str) -> None:
    config = load(AWS)
    functools.reduce(lambda part, name: part[name], where, config)[key] = 1
    with pytest.raises(jsonschema.ValidationError, match=key):
        prepared(config)


@both
def test_no_command_of_rays_defaults_slips_in(path: Path) -> None:
    config = prepared(load(path))
    for name in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert config[name] == []


def test_the_head_runs_no_replica() -> None:
    assert load(AWS)["available_node_types"]["head"]["resources"] == {"CPU": 0}
    for path in (AWS, LOCAL):
        assert "--num-cpus=0" in load(path)["head_start_ray_commands"][-1]


def test_workers_scale_from_zero_and_fit_the_total() -> None:
    config = load(AWS)
    workers = {k: v for k, v in config["available_node_types"].items() if k != "head"}
    assert {v["min_workers"] for v in workers.values()} == {0}
    assert sum(v["max_workers"] for v in workers.values()) == config["max_workers"]


def test_a_serving_replica_starts_an_on_demand_gpu() -> None:
    assert nodes_to_start({"CPU": 1, "GPU": 1, "serving": 1}) == {"gpu_serving": 1}


def test_a_batch_actor_starts_a_spot_gpu() -> None:
    assert nodes_to_start({"CPU": 1, "GPU": 1}) == {"gpu_batch": 1}


def test_two_half_gpus_share_a_node() -> None:
    assert nodes_to_start(*[{"CPU": 1, "GPU": 0.5, "serving": 1}] * 2) == {"gpu_serving": 1}


def test_ingress_and_decoding_start_no_gpu() -> None:
    assert nodes_to_start(*[{"CPU": 1}] * 8) == {"cpu": 1}


def test_only_batch_runs_on_spot() -> None:
    types = load(AWS)["available_node_types"]
    spot = {name for name, t in types.items() if "InstanceMarketOptions" in t["node_config"]}
    assert spot == {"gpu_batch"}


def test_every_worker_type_stages_pinned_weights_before_ray_starts() -> None:
    # CPU machines too: gateways and drivers look at the model's folder.
    for name, node_type in load(AWS)["available_node_types"].items():
        commands = " ".join(node_type.get("worker_setup_commands", []))
        pinned = re.search(r"--revision [0-9a-f]{40}\b", commands) is not None
        assert pinned == (name != "head"), name


def globs_and_what_is_before_them(text: str) -> set[tuple[str, str]]:
    words = shlex.split(text)
    return {(before, word) for before, word in pairwise(words) if word.startswith("*")}


def test_every_pattern_of_a_download_has_its_own_option() -> None:
    # A second pattern behind one --include would be taken for a file's name.
    patterns = {("--include", f"*.{end}") for end in ("json", "safetensors", "model", "txt")}
    (staging,) = load(AWS)["available_node_types"]["cpu"]["worker_setup_commands"]
    image = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").split("hf download")[1]
    assert globs_and_what_is_before_them(staging.split("hf download")[1].rstrip(")")) == patterns
    assert globs_and_what_is_before_them(image.split(";")[0].replace("\\\n", " ")) == patterns


@both
def test_tokens_and_the_production_proxy_are_on_everywhere(path: Path) -> None:
    config = load(path)
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "--env=RAY_SERVE_ENABLE_HA_PROXY=1" in config["docker"]["run_options"]
    for name, value in {**UPGRADES, **RETRIES}.items():
        # A shell reads them.
        assert f"--env={name}={shlex.quote(value)}" in config["docker"]["run_options"]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@both
def test_the_dashboard_listens_on_loopback(path: Path) -> None:
    assert "--dashboard-host=127.0.0.1" in load(path)["head_start_ray_commands"][-1]


def test_http_is_opened_to_private_addresses_and_ray_itself_adds_only_ssh() -> None:
    provider = load(AWS)["provider"]
    assert provider["use_internal_ips"] is True
    ours = provider["security_group"]["IpPermissions"]
    within, *opened = _create_default_inbound_rules(["sg-0"], ours)
    assert within["UserIdGroupPairs"] == [{"GroupId": "sg-0"}]
    assert [(rule["FromPort"], rule["ToPort"], rule["IpRanges"]) for rule in opened] == [
        (22, 22, [{"CidrIp": "0.0.0.0/0"}]),
        (8000, 8000, [{"CidrIp": "10.0.0.0/8"}]),
    ]


@pytest.fixture(scope="module")
def ec2() -> Any:
    """Amazon's own description of its API, which ships with botocore."""
    return botocore.session.get_session().get_service_model("ec2")


@pytest.mark.parametrize("node_type", ["head", "cpu", "gpu_serving", "gpu_batch"])
def test_ec2_knows_every_field_of_a_node(node_type: str, ec2: Any) -> None:
    node = load(AWS)["available_node_types"][node_type]["node_config"]
    request = ec2.operation_model("RunInstances").input_shape
    report = ParamValidator().validate({**node, "MinCount": 1, "MaxCount": 1}, request)
    assert not report.has_errors(), report.generate_report()
    assert node["InstanceType"] in request.members["InstanceType"].enum
    assert node["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    assert node["MetadataOptions"]["HttpTokens"] == "required"


def test_ec2_knows_every_field_of_the_security_group(ec2: Any) -> None:
    rules = {
        "GroupId": "sg-0",
        "IpPermissions": load(AWS)["provider"]["security_group"]["IpPermissions"],
    }
    request = ec2.operation_model("AuthorizeSecurityGroupIngress").input_shape
    report = ParamValidator().validate(rules, request)
    assert not report.has_errors(), report.generate_report()


def test_both_clusters_start_ray_the_same_way() -> None:
    aws, local = load(AWS), load(LOCAL)
    assert aws["docker"] == local["docker"]
    assert aws["file_mounts"] == local["file_mounts"]
    assert aws["head_start_ray_commands"] == local["head_start_ray_commands"]
    assert local["worker_start_ray_commands"][-1] == (
        aws["worker_start_ray_commands"][-1] + """ --resources='{"serving":100}'"""
    )
