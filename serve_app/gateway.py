"""The HTTP side as a plain ASGI application: door, limits, dialect, admission, scoring, answer.

It knows the replicas only as ScoringPools, so all of it runs and is tested without Ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from rerank_core import DeadlineExceeded
from serve_app.admission import Admission
from serve_app.asked import most_tokens, rank_ask, read_ask
from serve_app.config import ServeConfig
from serve_app.dialects import ROUTES, Answer, Dialect, choose, common_error
from serve_app.door import Door
from serve_app.exchange import Exchange, Observe
from serve_app.limits import check_ask, check_counts, deadline_of
from serve_app.pages import Pages
from serve_app.problems import UnknownModel, problem_of, refused
from serve_app.readiness import Readiness
from serve_app.scatter import LoadedModel, RetryBudget, ScoringPool, score_in_units
from serve_app.wire import (
    Bodies,
    ClientGone,
    Receive,
    Reply,
    Scope,
    Send,
    check_content,
    json_reply,
    local_path,
    parse_object,
    read_body,
    read_headers,
    request_id,
    send_reply,
)
from serve_app.work_units import estimate_tokens

log = logging.getLogger("ray.serve")


class Gateway:
    """The ASGI application. `pools` holds the replicas of each model by its public name.

    `names_requests` is off where a proxy in front already answers with `x-request-id`.
    """

    def __init__(
        self,
        config: ServeConfig,
        pools: Mapping[str, ScoringPool],
        *,
        door: Door | None = None,
        observe: Observe = lambda exchange: None,
        names_requests: bool = True,
    ) -> None:
        self.config = self._deployed = config
        self.admission = Admission(config.admission)
        self._pools = pools
        self._scorers = config.served
        self._default = next(iter(pools))
        self._door = door or Door()
        self._observe = observe
        self._names_requests = names_requests
        self._retries = RetryBudget(config.admission.retry_share)
        self._bodies = Bodies(config.limits.max_held_bytes)
        self._readiness = Readiness(pools, probe=config.scaling.min_replicas > 0)
        self._pages = Pages(config)

    def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take new `limits` and `admission`, whole or not at all. Raises ValueError if wrong.

        What is left out is as deployed, so that a gateway that starts later has the same.
        """
        unknown = set(user_config) - {"limits", "admission"}
        if unknown:
            raise ValueError(f"user_config takes limits and admission, not {sorted(unknown)}")
        deployed = self._deployed.model_dump()
        given = {name: values or {} for name, values in user_config.items()}
        if not all(isinstance(values, Mapping) for values in given.values()):
            raise ValueError("limits and admission are objects with their fields")
        changed = {name: {**deployed[name], **values} for name, values in given.items()}
        self.config = ServeConfig.model_validate({**deployed, **changed})
        self.admission.settings = self.config.admission
        self._retries.share = self.config.admission.retry_share
        self._bodies.max_bytes = self.config.limits.max_held_bytes
        self._pages = Pages(self.config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        exchange = Exchange(local_path(scope))
        try:
            reply = await self._answer(scope, receive, exchange)
            named = {"x-request-id": exchange.id} if self._names_requests else {}
            exchange.status = reply.status
            exchange.ended = time.monotonic()
            await send_reply(send, reply, {**named, **exchange.headers()})
        except ClientGone:
            exchange.status = 499
        except BaseException:
            # Cancelled, because the client has gone: whoever is cancelled has no one to answer.
            exchange.status = exchange.status or 499
            raise
        finally:
            self._observe(exchange)

    async def _answer(self, scope: Scope, receive: Receive, exchange: Exchange) -> Reply:
        dialect: Dialect | None = None
        try:
            headers = read_headers(scope, self.config.limits)
            exchange.id = request_id(headers) or exchange.id
            exchange.key = self._door.check(exchange.path, headers)
            dialects = ROUTES.get(exchange.path)
            if dialects is None:
                return await self._other(scope["method"], exchange.path, scope.get("root_path", ""))
            _check_method(scope["method"], "POST")
            dialect = dialects[0]
            exchange.dialect = dialect.name
            deadline = deadline_of(headers, exchange.started, self.config.limits)
            check_content(headers, self.config.limits)
            with self._bodies.one() as arrived:
                body = parse_object(await read_body(receive, self.config.limits, arrived))
                dialect = choose(exchange.path, body)
                exchange.dialect = dialect.name
                return json_reply(200, await self._rerank(dialect, body, exchange, deadline))
        except ClientGone:
            raise
        except Exception as error:
            problem = problem_of(error)
            if problem.status == 500:
                # The type only: a foreign exception's message could hold a text.
                log.error("request %s failed: %s", exchange.id, _trail(error))
            exchange.error_type = problem.type
            body = (dialect.error if dialect else common_error)(problem, exchange.id)
            return json_reply(problem.status, body, problem.headers)

    async def _rerank(
        self, dialect: Dialect, body: dict[str, Any], exchange: Exchange, deadline: float
    ) -> Any:
        check_counts(body, self.config.limits)
        ask = read_ask(dialect, body)
        check_ask(ask, self.config.limits)
        exchange.documents = len(ask.pairs)
        exchange.model = name = self._model_name(ask.model)
        loaded = await self._loaded(name, deadline)
        scorer = self._scorers[name]
        costs = estimate_tokens(ask.pairs, most_tokens(scorer, loaded.info))
        unit_tokens = self.config.unit_tokens or loaded.info.max_batch_tokens
        if scorer.first_stage is not None:
            # A cascade must see all candidates of a query together.
            unit_tokens = max(1, sum(costs))
        with self.admission.admit(sum(costs), exchange.key):
            gathered = await score_in_units(
                self._pools[name],
                ask,
                costs,
                unit_tokens=unit_tokens,
                deadline=deadline,
                # Not the id alone: callers choose it, and equal ones would share a turn.
                caller=f"{exchange.id}/{id(exchange)}",
                retries=self._retries,
            )
        exchange.gathered = gathered
        result = rank_ask(ask, gathered.scores, loaded)
        self._readiness.scored(name)
        answer = Answer(
            id=f"rerank-{exchange.id}",
            model=name,
            created=int(time.time()),
            result=result,
            truncated=tuple(i for i, cut in enumerate(gathered.scores.truncated) if cut),
        )
        exchange.tokens, exchange.truncated = answer.result.tokens, answer.truncated
        return dialect.write(ask, answer)

    async def _loaded(self, name: str, deadline: float) -> LoadedModel:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._readiness.loaded(name)
        except TimeoutError:
            raise DeadlineExceeded("the model was not up before the deadline") from None

    def _model_name(self, asked: str | None) -> str:
        if not asked or asked in self.config.model_names:
            return self._default
        if asked in self._pools:
            return asked
        if self.config.unknown_models == "default":
            return self._default
        raise UnknownModel("no such model here; /v1/models lists the names", "model")

    async def _other(self, method: str, path: str, mount: str) -> Reply:
        if path == "/health/ready":
            _check_method(method, "GET")
            await self._readiness.check()
            return json_reply(200, {"status": "ready"})
        if path == "/info":
            _check_method(method, "GET")
            deadline = time.monotonic() + self.config.limits.request_timeout_s
            loaded = await self._loaded(self._default, deadline)
            return json_reply(200, self._pages.info(loaded.info, self._default))
        if not path:
            # Without the last slash the playground would look for its neighbours one level up.
            return Reply(307, b"", headers={"location": f"{mount}/"})
        page = self._pages.get(path)
        if page is None:
            raise refused(404, "not_found_error", "no such path; /openapi.json lists them")
        _check_method(method, "GET")
        return page


def _check_method(method: str, allowed: str) -> None:
    # Load balancers ask by HEAD; servers leave the body out.
    if method != allowed and (method, allowed) != ("HEAD", "GET"):
        raise refused(405, "invalid_request_error", f"use {allowed} here", allow=allowed)


def _trail(error: BaseException) -> str:
    """Return where an error comes from, without its message."""
    places, frame = [], error.__traceback__
    while frame:
        places.append(f"{frame.tb_frame.f_code.co_qualname}:{frame.tb_lineno}")
        frame = frame.tb_next
    return f"{type(error).__name__} at {' > '.join(places[-6:])}"


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
