"""Logs, spans and metrics of a process: structlog JSON, OpenTelemetry, Prometheus.

Nothing here ever carries a prompt, a completion or a credential: log events, not sentences, and
say of an error only its kind and place (``described``).
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from traceback import extract_tb

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter, Gauge, Histogram

from infra.settings import TelemetrySettings

Headers = Sequence[tuple[str, bytes | None]]

TRACEPARENT = "traceparent"
# As https://www.w3.org/TR/trace-context/ has it; the first group is the trace id.
PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# Bytes; a longer header than this is no trace, and what comes of a record must not carry it on.
LONGEST_PARENT = 256

# Libraries whose log lines quote errors, or requests with their keys.
QUOTING = frozenset(
    {"anthropic", "asyncio", "faust", "httpcore", "httpx", "mode", "openai", "vllm"}
)

BROKER = Gauge("tessera_broker_answers", "Whether the broker answered when last asked: 1 or 0")
RECORDS = Counter("tessera_records", "Records taken up, by what became of them", ["what"])
SECONDS = Histogram("tessera_record_seconds", "From taking a record up to its acknowledgement")
DRIFT = Gauge("tessera_drift_rows", "Rows that the last comparison found to differ", ["index"])
FRESHNESS = Histogram(
    "tessera_freshness_seconds",
    "From the commit of a change to the moment at which it can be found",
    ["index"],
    buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600),
)
IN_FLIGHT = Gauge("tessera_in_flight", "Records taken up and not yet acknowledged")
LAG = Gauge("tessera_lag", "Records behind the end of the topic", ["topic", "partition"])

_propagator = TraceContextTextMapPropagator()


def configure(process: str, settings: TelemetrySettings) -> None:
    """Sets up the logs of this process and, where an exporter is named, its spans."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.log_level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    library = logging.StreamHandler()
    library.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _without_content,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ]
        )
    )
    logging.basicConfig(level=settings.library_log_level.upper(), handlers=[library], force=True)
    if settings.otlp_endpoint:
        provider = TracerProvider(resource=Resource({"service.name": f"tessera-{process}"}))
        provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.otlp_endpoint))
        )
        trace.set_tracer_provider(provider)
        _exporting.cache_clear()


def configure_command(name: str) -> None:
    """Sets up the logs of a command, which are of interest where something is wrong.

    They go to standard error: what is asked for stands on standard output.
    """
    configure(name, TelemetrySettings(log_level="warning"))


def close() -> None:
    """Sends the spans that still wait; call it last."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def _without_content(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Keeps of a library's line what cannot quote a record."""
    record: logging.LogRecord = event["_record"]
    error = event.pop("exc_info", None)
    if isinstance(error, tuple) and error[1] is not None:
        event["error"] = described(error[1])
    # These put errors, with their texts, into the line: only the template is kept of it.
    quotes = record.name.partition(".")[0] in QUOTING
    event["event"] = (str(record.msg) if quotes else str(event["event"])).partition("\n")[0]
    return event


def described(error: BaseException) -> str:
    """Returns an error's kind and place, without its text: that could quote a record."""
    frames = extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def new_traceparent() -> str:
    """Returns a W3C ``traceparent`` for a request that starts a trace."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def trace_id(headers: Headers) -> str | None:
    """Returns the W3C trace id in a record's headers: 32 hexadecimal digits.

    None where there is no ``traceparent``, or it is none.
    """
    for name, value in headers:
        if name == TRACEPARENT and value is not None:
            found = PARENT.fullmatch(value)
            return found[1].decode() if found else None
    return None


@lru_cache(maxsize=1)
def _exporting() -> bool:
    """Returns whether spans go anywhere; the library reads the environment each time."""
    return isinstance(trace.get_tracer_provider(), TracerProvider)


@contextmanager
def consuming(name: str, topic: str, headers: Headers) -> Iterator[Headers]:
    """Wraps the work on one record in a span that joins the trace in its headers.

    Yields:
        The headers for what comes of the record. Without an exporter no span is made and the
        trace passes through unchanged.
    """
    passed = [
        (key, value)
        for key, value in headers
        if key == TRACEPARENT and len(value or b"") <= LONGEST_PARENT
    ]
    if not _exporting():
        yield passed
        return
    carrier = {key: value.decode("ascii", "replace") for key, value in passed if value}
    with trace.get_tracer("tessera").start_as_current_span(
        f"process {topic}",
        context=_propagator.extract(carrier),
        kind=SpanKind.CONSUMER,
        attributes={
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.consumer.group.name": name,
        },
        record_exception=False,
    ):
        onward: dict[str, str] = {}
        _propagator.inject(onward)
        yield [(key, value.encode()) for key, value in onward.items()]


def annotate(attributes: Mapping[str, str | int | float]) -> None:
    """Adds ``gen_ai.*`` attributes to the span of the record under way."""
    trace.get_current_span().set_attributes(attributes)


def now() -> datetime:
    """Returns this instant in UTC, to the millisecond: what Avro keeps."""
    instant = datetime.now(UTC)
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)
