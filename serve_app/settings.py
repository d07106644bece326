"""The blocks of the service's settings. Each checks itself and knows nothing of the others."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """A block: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Limits(Settings):
    """What one request may ask for. Changes live through the Gateway's `user_config`."""

    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="Bytes of a body; more is a 413.")
    max_held_bytes: int = Field(
        2**30,
        ge=1024,
        description="Bytes of all bodies that one gateway holds at a time, or of their texts in"
        " memory where these take more; beyond it, a 429.",
    )
    max_header_bytes: int = Field(16_384, ge=1024, description="Bytes of all headers; else 431.")
    body_timeout_s: float = Field(10.0, gt=0, description="A slower sender gets a 408.")
    max_documents: int = Field(1000, ge=1, description="Documents in one request.")
    max_query_characters: int = Field(32_768, ge=1, description="Characters of a query.")
    max_document_characters: int = Field(
        200_000, ge=1, description="Characters of one document; the rest is cut, as truncated."
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="Deadline of a request; a client's header can only shorten it."
    )

    @model_validator(mode="after")
    def _room_for_one(self) -> Limits:
        if self.max_held_bytes < self.max_body_bytes:
            raise ValueError("max_held_bytes must be at least max_body_bytes")
        return self


class Admission(Settings):
    """How much work may wait. Changes live through the Gateway's `user_config`."""

    max_wait_s: float = Field(
        1.0,
        gt=0,
        description="Admit work worth this many seconds of measured throughput; refuse the rest"
        " with a 429 at once. Raise it for bursts, lower it for steadier latency.",
    )
    min_tokens: int = Field(
        16_384, ge=1, description="Estimated tokens that may wait before any rate is measured."
    )
    min_requests: int = Field(
        8,
        ge=1,
        description="So many requests are admitted whatever they cost, while they can end in a"
        " fifth of the time to their deadline: a small service serves its few users.",
    )
    retry_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Lost replicas whose units are sent again, and late units that are sent to a"
        " second replica, as a share of requests and of units (and ten at any time). 0: none.",
    )
    batch_keys: tuple[str, ...] = Field(
        (),
        description="Names of API keys whose requests give way to all others, as those do that say"
        " `x-rerank-priority: batch`: half of the room, and what others leave of each pass.",
    )


class Batching(Settings):
    """How units share passes. Changes live through a scorer deployment's `user_config`."""

    merge_tokens: int | None = Field(
        None,
        ge=1,
        description="Estimated tokens that a replica takes from its queue at once; empty: the"
        " scorer's max_batch_tokens.",
    )
    max_queued_tokens: int = Field(
        4_194_304, ge=1, description="Estimated tokens that may wait in one replica."
    )
    stall_s: float = Field(
        30.0, gt=0, description="A pass older than this makes the replica unhealthy: replaced."
    )


class Scaling(Settings):
    """Replicas and what each one gets."""

    gpus_per_replica: float | Literal["auto"] = Field(
        "auto",
        description="`auto`: 1 if the cluster has GPUs and the model uses them, else 0. Write a"
        " number on clusters that start from no GPU; 0.5 puts two models on one, without a fence.",
    )
    cpus_per_replica: float = Field(1.0, ge=0, description="CPUs of a scorer replica.")
    min_replicas: int = Field(
        1,
        ge=0,
        description="0 lets an idle model go to zero; the next request waits for a cold start.",
    )
    max_replicas: int = Field(1, ge=1, description="More than min_replicas: autoscaling.")
    target_utilisation: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Share of its time that a replica is to be busy. Lower: more replicas, shorter"
        " queues, room for bursts; above 0.8 chance alone fills the queue.",
    )
    target_units: float | None = Field(
        None, gt=0, description="Scale on units in work a replica instead, as Serve alone would."
    )
    upscale_delay_s: float = Field(5.0, ge=0, description="More must be wanted for so long.")
    downscale_delay_s: float = Field(
        120.0, ge=0, description="Replicas for the largest load of these seconds are kept."
    )
    look_back_period_s: float = Field(
        20.0, gt=10, description="Seconds over which demand is averaged."
    )
    max_ongoing_units: int = Field(
        256, ge=1, description="Units that one replica holds; beyond it they wait at the gateway."
    )
    gateways: int = Field(1, ge=1, description="Copies of the HTTP side, or the fewest of them.")
    max_gateways: int | None = Field(
        None, ge=1, description="More than `gateways`: they follow their requests; empty: fixed."
    )
    gateway_requests: float = Field(
        64.0, gt=0, description="Requests under way in a gateway to scale gateways for."
    )
    gateways_per_node: int | None = Field(
        None, ge=1, description="At most so many on one machine, so that its loss leaves others."
    )
    gateway_cpus: float = Field(
        0.0,
        ge=0,
        description="CPUs that each gateway reserves; with none it may land on the head.",
    )
    fused: bool | Literal["auto"] = Field(
        "auto",
        description="Gateway and scorer in one process: no hop between them, and one fails with the"
        " other. auto: where one model has one replica and one gateway, and no Serve file, which"
        " may have options for a deployment `Scorer`.",
    )
    drain_s: float = Field(35.0, ge=0, description="Time to finish work before a stop.")

    @model_validator(mode="after")
    def _bounds(self) -> Scaling:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must be at least min_replicas")
        if self.max_gateways is not None and self.max_gateways < self.gateways:
            raise ValueError("max_gateways must be at least gateways")
        if self.fused is True and not self.is_single:
            raise ValueError("fused needs one replica and one gateway; leave it to auto")
        return self

    @property
    def is_single(self) -> bool:
        """Say whether there is always just one scorer replica and one gateway."""
        gateways = self.max_gateways or self.gateways
        return self.min_replicas == self.max_replicas == self.gateways == gateways == 1


# What is decided before a request's model is known, or for the one gateway of all models.
_FOR_ALL = {
    "limits": {"max_body_bytes", "max_held_bytes", "max_header_bytes", "body_timeout_s"}
    | {"request_timeout_s"},
    "scaling": {name for name in Scaling.model_fields if "gateway" in name} | {"fused"},
}


class PerModel(Settings):
    """What differs for one of several models; what is left out is as for all."""

    limits: dict[str, Any] = Field(default_factory=dict, description="Its `limits`.")
    admission: dict[str, Any] = Field(default_factory=dict, description="Its `admission`.")
    batching: dict[str, Any] = Field(default_factory=dict, description="Its `batching`.")
    scaling: dict[str, Any] = Field(default_factory=dict, description="Its `scaling`.")

    @model_validator(mode="after")
    def _its_own(self) -> PerModel:
        for block, names in _FOR_ALL.items():
            if common := sorted(names & set(getattr(self, block))):
                raise ValueError(f"{block}.{common[0]} is for all models; give it in `{block}`")
        return self
