"""From what was raised to the answer that says so, in the caller's dialect, and the log's line."""

from __future__ import annotations

import logging

from serve_app.dialects import Dialect, common_error
from serve_app.gateway.request_log import RequestRecord
from serve_app.http.errors import error_reply, origin_of
from serve_app.http.replies import Reply, json_reply

log = logging.getLogger("ray.serve")


def refusal(error: Exception, dialect: Dialect | None, record: RequestRecord) -> Reply:
    """Return the answer to a request that failed, and note the reason in its record."""
    reply = error_reply(error)
    if reply.status == 500:
        # The type only: a foreign exception's message could hold a text.
        log.error("request %s failed: %s", record.id, origin_of(error))
    record.error_type = reply.type
    body = (dialect.error if dialect else common_error)(reply, record.id)
    return json_reply(reply.status, body, reply.headers)
