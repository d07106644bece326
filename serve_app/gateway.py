"""The HTTP side as a plain ASGI application: door, limits, dialect, scoring, answer.

It knows the replicas only as ScoringPools, so all of it runs and is tested without Ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from rerank_core import InvalidRequest, RerankResult, ScorerInfo, ScoringFailed
from rerank_core.ranking import activate
from rerank_core.reranker import check_request, rank_request
from serve_app.config import ServeConfig
from serve_app.dialects import ROUTES, Answer, Ask, Dialect, choose, common_error
from serve_app.info import tei_info
from serve_app.problems import UnknownModel, problem_of, refused
from serve_app.scatter import Gathered, RetryBudget, ScoringPool, score_in_units
from serve_app.wire import (
    ClientGone,
    Receive,
    Scope,
    Send,
    check_content,
    parse_object,
    read_body,
    read_headers,
    request_id,
    send_json,
)
from serve_app.work_units import estimate_tokens

log = logging.getLogger("ray.serve")

_READY_PROBE_S = 5.0


@dataclass(slots=True)
class Exchange:
    """One request and what became of it; all that logs, metrics and headers need."""

    path: str
    id: str
    started: float = field(default_factory=time.monotonic)
    dialect: str = ""
    status: int = 0
    error_type: str = ""
    documents: int = 0
    gathered: Gathered | None = None
    tokens: int = 0

    def headers(self) -> dict[str, str]:
        """Return the response headers; times in milliseconds, under TEI's names."""
        headers = {"x-request-id": self.id}
        if self.gathered:
            total_s = time.monotonic() - self.started
            headers |= {
                "x-compute-tokens": str(self.tokens),
                "x-queue-time": f"{self.gathered.queue_s * 1000:.1f}",
                "x-inference-time": f"{self.gathered.inference_s * 1000:.1f}",
                "x-total-time": f"{total_s * 1000:.1f}",
            }
        return headers


class Gateway:
    """The ASGI application. `pools` holds the replicas of each model by its public name."""

    def __init__(self, config: ServeConfig, pools: Mapping[str, ScoringPool]) -> None:
        self._config = config
        self._limits = config.limits
        self._pools = pools
        self._default = next(iter(pools))
        self._infos: dict[str, ScorerInfo] = {}
        self._retries = RetryBudget(config.admission.retry_share)
        self._last_success = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        exchange = Exchange(scope["path"], "")
        try:
            await self._answer(scope, receive, send, exchange)
        except ClientGone:
            exchange.status = 499

    async def _answer(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        dialect: Dialect | None = None
        extra: Mapping[str, str] = {}
        try:
            headers = read_headers(scope, self._limits)
            exchange.id = request_id(headers)
            dialects = ROUTES.get(exchange.path)
            if dialects is None:
                value = await self._other(scope["method"], exchange.path)
            else:
                _check_method(scope["method"], "POST")
                dialect = dialects[0]
                check_content(headers, self._limits)
                body = parse_object(await read_body(receive, self._limits))
                dialect = choose(exchange.path, body)
                value = await self._rerank(dialect, body, exchange)
            exchange.status = 200
        except ClientGone:
            raise
        except Exception as error:
            problem = problem_of(error)
            if problem.status == 500:
                log.exception("request %s failed", exchange.id)
            exchange.status, exchange.error_type = problem.status, problem.type
            value = (dialect.error if dialect else common_error)(problem, exchange.id)
            extra = problem.headers
        await send_json(send, exchange.status, value, {**exchange.headers(), **extra})

    async def _rerank(self, dialect: Dialect, body: dict[str, Any], exchange: Exchange) -> Any:
        exchange.dialect = dialect.name
        ask = _read(dialect, body)
        self._check_limits(ask)
        exchange.documents = len(ask.pairs)
        name = self._model_name(ask.model)
        info = await self._info(name)
        exchange.gathered = gathered = await score_in_units(
            self._pools[name],
            ask.pairs,
            estimate_tokens(ask.pairs, info.max_length),
            unit_tokens=self._config.unit_tokens or info.max_batch_tokens,
            deadline=exchange.started + self._limits.request_timeout_s,
            caller=exchange.id,
            retries=self._retries,
        )
        self._last_success = time.monotonic()
        answer = Answer(
            id=f"rerank-{exchange.id}",
            model=name,
            created=int(time.time()),
            result=_rank(ask, gathered, info),
            truncated=tuple(i for i, cut in enumerate(gathered.scores.truncated) if cut),
        )
        exchange.tokens = answer.result.tokens
        return dialect.write(ask, answer)

    def _check_limits(self, ask: Ask) -> None:
        limits = self._limits
        check_request(ask.request)
        if len(ask.pairs) > limits.max_documents:
            raise InvalidRequest(
                f"{len(ask.pairs)} documents; at most {limits.max_documents} in one request",
                "documents",
            )
        for index, (query, document) in enumerate(ask.pairs):
            if len(query) > limits.max_query_characters:
                raise InvalidRequest(
                    f"the query is longer than {limits.max_query_characters} characters", "query"
                )
            if len(document) > limits.max_document_characters:
                raise InvalidRequest(
                    f"a document is longer than {limits.max_document_characters} characters",
                    f"documents.{index}",
                )

    def _model_name(self, asked: str | None) -> str:
        if not asked or asked in self._config.model_names:
            return self._default
        if asked in self._pools:
            return asked
        if self._config.unknown_models == "default":
            return self._default
        raise UnknownModel("no such model here; /v1/models lists the names", "model")

    async def _info(self, name: str) -> ScorerInfo:
        if name not in self._infos:
            self._infos[name] = await self._pools[name].info()
        return self._infos[name]

    async def _other(self, method: str, path: str) -> Any:
        if path == "/health/live":
            _check_method(method, "GET")
            return {"status": "alive"}
        if path == "/health/ready":
            _check_method(method, "GET")
            return await self._ready()
        if path == "/info":
            _check_method(method, "GET")
            return tei_info(await self._info(self._default), self._default, self._config)
        raise refused(404, "not_found_error", "no such path")

    async def _ready(self) -> dict[str, str]:
        """Every model answers; the default one has scored lately or does so now."""
        try:
            async with asyncio.timeout(_READY_PROBE_S):
                for name in self._pools:
                    await self._info(name)
        except TimeoutError:
            raise refused(
                503, "service_unavailable_error", "the model is not ready", retry_after="1"
            ) from None
        return {"status": "ready"}


def _read(dialect: Dialect, body: dict[str, Any]) -> Ask:
    try:
        return dialect.read(dialect.body.model_validate(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # Only what pydantic itself says of types; a location holds names and indices, not texts.
        param = ".".join(str(part) for part in first["loc"][:2])
        raise InvalidRequest(f"{param}: {first['msg']}", param) from None


def _rank(ask: Ask, gathered: Gathered, info: ScorerInfo) -> RerankResult:
    scores = gathered.scores
    if scores.errors:
        index, reason = min(scores.errors.items())
        raise ScoringFailed(f"document {index} could not be scored: {reason}")
    if ask.refuse_truncation and scores.truncated.any():
        index = int(scores.truncated.argmax())
        raise InvalidRequest(
            f"document {index} is longer than the model reads; shorten it or allow truncation",
            f"documents.{index}",
        )
    return rank_request(ask.request, scores, activate(scores.raw, info.activation))


def _check_method(method: str, allowed: str) -> None:
    if method != allowed:
        raise refused(405, "invalid_request_error", f"use {allowed} here", allow=allowed)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
