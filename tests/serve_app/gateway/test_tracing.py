"""What a span says of a request."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serve_app.gateway.request_log import RequestRecord
from serve_app.gateway.tracing import note, otlp


def test_the_open_span_says_what_the_log_line_says_and_no_text():
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    record = RequestRecord("/v2/rerank", documents=3, status=200)
    with provider.get_tracer("test").start_as_current_span("request"):
        note(record)
    (span,) = kept.get_finished_spans()
    expected = {f"rerank.{name}": value for name, value in record.log_fields().items()}
    told = {**span.attributes, "rerank.total_ms": expected["rerank.total_ms"]}
    assert told == expected
    assert told["rerank.documents"] == 3


def test_without_an_open_span_nothing_is_told():
    note(RequestRecord("/v2/rerank"))


def test_serve_gets_one_processor_for_a_collector(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    (processor,) = otlp()
    assert processor.span_exporter._endpoint == "http://127.0.0.1:1/v1/traces"
    processor.shutdown()
