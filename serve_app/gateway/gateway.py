"""The HTTP side as a plain ASGI application: keys, limits, dialect, admission, scoring, answer.

It knows the replicas only as ScoringPools, so all of it runs and is tested without Ray.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from serve_app.config import ServeConfig
from serve_app.dialects import Answer, Dialect, ParsedRequest, choose, within
from serve_app.dialects.decoding import Parsing, slice_fields
from serve_app.gateway.admission import AdmissionGate, CountedPool
from serve_app.gateway.draining import Draining
from serve_app.gateway.fan_out import score_in_units
from serve_app.gateway.hedging import hedged
from serve_app.gateway.local_metrics import LocalMetrics
from serve_app.gateway.meter import RequestMeter
from serve_app.gateway.ranking import answer_of
from serve_app.gateway.readiness import Readiness
from serve_app.gateway.refusals import refusal
from serve_app.gateway.request_log import Observe, RequestRecord
from serve_app.gateway.retries import RetryBudget
from serve_app.gateway.units import estimate_tokens, most_tokens, tokens_of
from serve_app.http import headers as sent
from serve_app.http.api_keys import ApiKeys
from serve_app.http.asgi import Receive, Scope, Send, answer_server, local_path
from serve_app.http.body import BodyBudget, ClientGone, IncomingBody, read_body
from serve_app.http.cors import Cors
from serve_app.http.lingering import Lingering
from serve_app.http.pages import Pages
from serve_app.http.replies import Reply, json_reply, send_reply
from serve_app.http.routes import dialects_at, model_name, plain
from serve_app.pool import ScoringPool


class Gateway:
    """The ASGI application. `pools` holds the replicas of each model by its public name, and
    `names_requests` is off where a proxy in front already answers with `x-request-id`."""

    def __init__(
        self,
        config: ServeConfig,
        pools: Mapping[str, ScoringPool],
        *,
        api_keys: ApiKeys | None = None,
        observe: Observe = lambda record: None,
        names_requests: bool = True,
    ) -> None:
        self.config = self._deployed = config
        self.admission = {
            name: AdmissionGate(one.admission, one.scaling.look_back_period_s)
            for name, one in config.by_model.items()
        }
        self._pools = hedged(pools, config.admission.retry_share)
        self._scorers = config.served
        self._api_keys = api_keys or ApiKeys()
        self._observe = observe
        self._names_requests = names_requests
        self._parsing = Parsing()
        self._retries = RetryBudget(config.admission.retry_share)
        self._bodies = BodyBudget(config.limits.max_held_bytes)
        self._draining = Draining()
        self._lingering = Lingering()
        self._readiness = Readiness(
            pools,
            probed=[name for name, one in config.by_model.items() if one.scaling.min_replicas],
            may_take=self._draining.check,
        )
        self._metrics = LocalMetrics()
        self._meter = RequestMeter(self.admission, self._metrics.kinds)
        self._pages = Pages(config, self._readiness, self._metrics.text, self._api_keys.locked)
        self._cors = Cors(config.cors_origins)

    def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take new `limits` and `admission`, whole or not at all. Raises ValueError if wrong.

        What is left out is as deployed, so that a gateway that starts later has the same.
        """
        self.config = self._deployed.changed(user_config)
        for name, gate in self.admission.items():
            gate.settings = self.config.by_model[name].admission
        for budget in (self._retries, *(pool.budget for pool in self._pools.values())):
            budget.share = self.config.admission.retry_share
        self._bodies.max_bytes = self.config.limits.max_held_bytes
        self._pages.config = self.config

    async def drain(self, seconds: float) -> None:
        """Take no more requests; return when none is under way, or after so many seconds."""
        await self._draining.drain(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] != "http":
            await answer_server(scope, receive, send)
            return
        incoming = IncomingBody(receive)
        with self._draining.request():
            await self._serve(scope, incoming, send)
        await self._lingering.end(incoming, send, self.config.limits)

    async def _serve(self, scope: Scope, incoming: IncomingBody, send: Send) -> None:
        record = RequestRecord(plain(local_path(scope)))
        try:
            reply = await self._answer(scope, incoming, record)
            headers = {"x-request-id": record.id} if self._names_requests else {}
            record.status, record.ended = reply.status, time.monotonic()
            headers |= record.headers() | self._cors.headers(scope)
            incoming.lingers = self._lingering.wanted(scope, incoming, reply)
            await send_reply(send, reply, headers, ends=not incoming.lingers)
        except ClientGone:
            record.status = 499
        except BaseException:
            # Cancelled, because the client has gone: whoever is cancelled has no one to answer.
            record.status = record.status or 499
            raise
        finally:
            self._meter(record)
            self._observe(record)

    async def _answer(self, scope: Scope, incoming: IncomingBody, record: RequestRecord) -> Reply:
        dialect: Dialect | None = None
        limits = self.config.limits
        if preflight := self._cors.preflight(scope):
            return preflight
        try:
            headers = sent.read_headers(scope, limits)
            record.id = sent.request_id(headers) or record.id
            sent.check_upgrade(scope["method"], headers)
            record.key = self._api_keys.check(record.path, headers)
            dialects = dialects_at(scope["method"], record.path)
            if not dialects:
                return await self._pages.answer(scope, record.path)
            self._draining.check()
            record.dialect = (dialect := dialects[0]).name
            deadline = sent.deadline_of(headers, record.started, limits)
            gzipped = sent.check_content(headers, limits)
            waits = sent.says_batch(headers) or record.key in self.config.admission.batch_keys
            self._check_open(headers, record)
            with self._bodies.hold() as count_bytes:
                body = await read_body(incoming, limits, count_bytes, gzipped=gzipped)
                parse = partial(self._parsing, body, deadline)
                fields = await parse(slice_fields, body)
                dialect = choose(record.path, fields)
                record.dialect = dialect.name
                request = await parse(dialect.parse, fields, limits, can_wait=waits)
                count_bytes(max(0, request.text_bytes - len(body)))
                # What waits for scores holds its texts, no longer what they were decoded from.
                del body, fields, parse
                answer = await self._rerank(request, record, deadline)
                return json_reply(200, dialect.write(request, answer))
        except ClientGone:
            raise
        except Exception as error:
            return refusal(error, dialect, record)

    def _check_open(self, headers: Mapping[bytes, bytes], record: RequestRecord) -> None:
        """Refuse before the body is read what will be refused; of several models it names one."""
        if len(self.admission) == 1:
            ((record.model, gate),) = self.admission.items()
            gate.check_open(tokens_of(int(headers.get(b"content-length", b"0"))), record.key)

    async def _rerank(
        self, request: ParsedRequest, record: RequestRecord, deadline: float
    ) -> Answer:
        record.documents, record.ignored = len(request.pairs), request.ignored
        record.model = name = model_name(self.config, request.model)
        if name in self.config.per_model:
            request = within(request, self.config.by_model[name].limits)
        loaded = await self._readiness.loaded(name, deadline)
        costs = estimate_tokens(request.pairs, most_tokens(self._scorers[name], loaded.info))
        gate, pool = self.admission[name], self._pools[name]
        await gate.replicas.ask(pool)
        left_s = deadline - time.monotonic()
        with gate.admit(sum(costs), record.key, left_s, can_wait=request.can_wait) as share:
            record.gathered = gathered = await score_in_units(
                CountedPool(pool, gate, share),
                request.pairs,
                costs,
                unit_tokens=self._unit_tokens(name, costs, loaded.info.max_batch_tokens),
                deadline=deadline,
                replicas=gate.replicas.count,
                can_wait=request.can_wait,
                # Not the id alone: callers choose it, and equal ones would share a turn.
                caller=f"{record.id}/{id(record)}",
                retries=self._retries,
            )
        self._readiness.scored(name, gathered.model, gathered.scores)
        answer = answer_of(request, gathered.scores, gathered.model, id=record.id, model=name)
        record.answered(answer)
        return answer

    def _unit_tokens(self, name: str, costs: Sequence[int], most: int) -> int:
        if self._scorers[name].first_stage is not None:
            # A cascade must see all candidates of a query together.
            return max(1, sum(costs))
        return self.config.unit_tokens or self.admission[name].replicas.unit_tokens(costs, most)
