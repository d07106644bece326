"""How many gateways and scorers there are, and on what, as options of their deployments.

It translates settings for Serve; what a demand wants is decided in `serve_app.scaling`.
"""

from __future__ import annotations

import logging
from typing import Any

import click
import ray
from ray._private.accelerators import get_accelerator_manager_for_resource
from ray._private.services import canonicalize_bootstrap_address
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from rerank_core import ScorerConfig
from serve_app.config import Scaling, ServeConfig
from serve_app.scaling import DemandPolicy

# Serve asks a replica for its figures five times in it, and wants more than its push interval.
_STATS_LOOK_BACK_S = 11.0


def gateway_replicas(scaling: Scaling) -> dict[str, Any]:
    """Return a fixed number of gateways, or one that follows the requests under way in them."""
    options: dict[str, Any] = {}
    if scaling.gateways_per_node:
        options["max_replicas_per_node"] = scaling.gateways_per_node
    if (scaling.max_gateways or scaling.gateways) == scaling.gateways:
        return {**options, "num_replicas": scaling.gateways}
    bounds = {"min_replicas": scaling.gateways, "max_replicas": scaling.max_gateways}
    config = _by_calls(scaling, bounds, scaling.gateway_requests)
    return {**options, "autoscaling_config": config}


def scorer_replicas(scaling: Scaling) -> dict[str, Any]:
    """Return a fixed number of scorers, or one that follows the demand in tokens."""
    if scaling.min_replicas == scaling.max_replicas:
        return {"num_replicas": scaling.min_replicas}
    bounds = {"min_replicas": scaling.min_replicas, "max_replicas": scaling.max_replicas}
    if scaling.target_units is not None:
        return {"autoscaling_config": _by_calls(scaling, bounds, scaling.target_units)}
    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]
        policy_function=f"{DemandPolicy.__module__}:{DemandPolicy.__name__}",
        policy_kwargs={
            "target_utilisation": scaling.target_utilisation,
            "upscale_delay_s": scaling.upscale_delay_s,
            "downscale_delay_s": scaling.downscale_delay_s,
        },
    )
    # The policy damps by itself.
    config = AutoscalingConfig(
        **bounds,
        policy=policy,
        upscale_delay_s=0,
        downscale_delay_s=0,
        look_back_period_s=_STATS_LOOK_BACK_S,
    )
    return {"autoscaling_config": config}


def _by_calls(scaling: Scaling, bounds: dict[str, Any], target: float) -> AutoscalingConfig:
    return AutoscalingConfig(
        **bounds,
        target_ongoing_requests=target,
        upscale_delay_s=scaling.upscale_delay_s,
        downscale_delay_s=scaling.downscale_delay_s,
        look_back_period_s=scaling.look_back_period_s,
    )


def gpus_of(scorer: ScorerConfig, config: ServeConfig) -> float:
    """Return the GPUs of one replica of a scorer."""
    asked = config.scaling.gpus_per_replica
    if asked != "auto":
        return asked
    if scorer.model == "lexical" or scorer.device == "cpu":
        return 0
    return 1 if _cluster_gpus() >= 1 else 0


def _cluster_gpus() -> float:
    if ray.is_initialized():
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return resources.get("GPU", 0)
    # `serve run` builds the application before it connects: look where it will, and let go again.
    command = click.get_current_context(silent=True)
    asked = command.params.get("address") if command else None
    address = canonicalize_bootstrap_address(asked)  # type: ignore[arg-type]
    if address is None:
        # It will start a cluster of this machine alone.
        manager = get_accelerator_manager_for_resource("GPU")
        return manager.get_current_node_num_accelerators() if manager else 0
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        return _cluster_gpus()
    finally:
        ray.shutdown()
