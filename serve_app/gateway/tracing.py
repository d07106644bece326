"""OpenTelemetry: what a trace says of a request, and the way to a collector.

Serve makes the spans, in proxy, gateway and replicas, and carries their context; a Serve file
switches it on (`tracing_config`). Nothing here costs anything where it is off.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace

from serve_app.gateway.request_log import RequestRecord


def note(record: RequestRecord) -> None:
    """Write what the log line of a request says into the span that is open, if one is."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes(
            {f"rerank.{name}": value for name, value in record.log_fields().items()}
        )


def otlp() -> list[Any]:
    """Return what sends spans by OTLP over HTTP; Serve calls it in each process.

    Where to, and under which name, say OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_SERVICE_NAME).
    """
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ImportError("to send traces: pip install 'ray-rerank[tracing]'") from None
    return [BatchSpanProcessor(OTLPSpanExporter())]
