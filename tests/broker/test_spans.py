"""Spans: every stage joins the trace that comes in a record's headers, and hands it on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from infra.telemetry import TRACEPARENT, new_traceparent
from schemas.topics import INFERENCE_COMPLETED
from tests.broker.flows import Flows, event, flows
from tests.broker.pools import Pools, pools
from tests.harness import Bus, eventually
from tests.routed import routed

__all__ = ["flows", "pools"]

pytestmark = pytest.mark.stack

PROMPT = "a secret that no span may carry"


class Collector:
    """An OTLP receiver on loopback that keeps spans and raw bytes."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        collector = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.raw += body
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @contextmanager
    def listening(self) -> Iterator[Collector]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def of(self, traceparent: str) -> list[Span]:
        """Returns the spans of a trace."""
        return [span for span in self.spans if span.trace_id.hex() == traceparent.split("-")[1]]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector().listening() as collector:
        yield collector


def attributes(span: Span) -> dict[str, str]:
    return {
        each.key: str(getattr(each.value, str(each.value.WhichOneof("value"))))
        for each in span.attributes
    }


def onward(bus: Bus, topic: str, traceparent: str) -> str:
    """Returns the span id that the records of a trace carry on a topic."""
    found = [
        value.decode()
        for record in bus.records(topic)
        for key, value in record.headers
        if key == TRACEPARENT and value and traceparent.split("-")[1] in value.decode()
    ]
    assert len(found) == 1
    return found[0].split("-")[2]


def test_a_worker_joins_the_trace_and_says_what_the_model_used(
    bus: Bus, pools: Pools, collector: Collector
) -> None:
    pool, parent = pools(1), new_traceparent()
    asked = routed({"words": 3, "note": PROMPT})
    with pool.worker(TELEMETRY_OTLP_ENDPOINT=collector.endpoint) as worker:
        bus.put(
            pool.topic.name,
            asked.request.request_id.encode(),
            bus.codec.encode(asked),
            headers=[(TRACEPARENT, parent.encode())],
        )
        bus.settle()
        eventually(lambda: pool.completed(asked.request.request_id), what="the completion")
        assert worker.stop() == 0
    [span] = collector.of(parent)
    assert span.parent_span_id.hex() == parent.split("-")[2]
    assert span.span_id.hex() == onward(bus, INFERENCE_COMPLETED.name, parent)
    assert attributes(span) | {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": pool.topic.name,
        "messaging.consumer.group.name": pool.group,
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.output_tokens": "3",
    } == attributes(span)
    assert PROMPT.encode() not in collector.raw


def test_a_processor_joins_the_trace_and_hands_it_on(
    bus: Bus, flows: Flows, collector: Collector
) -> None:
    flow, parent = flows(1), new_traceparent()
    with flow.processor("open_copying", TELEMETRY_OTLP_ENDPOINT=collector.endpoint) as processor:
        bus.put(
            flow.name,
            b"7",
            bus.codec.encode(event(7)),
            headers=[(TRACEPARENT, parent.encode())],
        )
        bus.settle()
        eventually(lambda: flow.counts()["7"], what="the effect")
        assert processor.stop() == 0
    [span] = collector.of(parent)
    assert span.name == f"process {flow.name}"
    assert span.parent_span_id.hex() == parent.split("-")[2]
    assert attributes(span)["messaging.consumer.group.name"] == flow.group
    [effect] = [dict(record.headers)[TRACEPARENT] for record in bus.records(flow.effect_topic)]
    assert (effect or b"").decode().split("-")[2] == span.span_id.hex()


def test_without_a_collector_the_trace_passes_through_unchanged(bus: Bus, flows: Flows) -> None:
    flow, parent = flows(1), new_traceparent()
    with flow.processor("open_copying"):
        bus.put(
            flow.name, b"8", bus.codec.encode(event(8)), headers=[(TRACEPARENT, parent.encode())]
        )
        bus.settle()
        eventually(lambda: flow.counts()["8"], what="the effect")
    [record] = bus.records(flow.effect_topic)
    assert dict(record.headers)[TRACEPARENT] == parent.encode()
