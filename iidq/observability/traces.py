"""Optional OpenTelemetry traces: one trace from a request, through the queue, to each attempt and its steps.

Off unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_TRACES_EXPORTER`` is set and the extra ``otel`` is installed; then
nothing of the SDK is imported, and a span costs a comparison. The SDK reads further variables
(``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_TRACES_SAMPLER``, ``OTEL_RESOURCE_ATTRIBUTES`` …) by itself.

The ``traceparent`` (W3C Trace Context) of a request is the parent of its span; the span's ``traceparent`` is stored on
the job and is the parent of every attempt. Spans carry ids, states and error codes: no URL, no content, no message.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from importlib.util import find_spec
from logging import LogRecord, getLogger
from typing import Any, Final, Literal

from iidq import __version__
from iidq.errors import IidqError
from iidq.extras import install_command
from iidq.observability import logs
from iidq.settings import Settings

_SHUTDOWN_SECONDS: Final = 5.0
_TRACEPARENT: Final = b"traceparent"

_off: Final[AbstractContextManager[Any]] = nullcontext()
# The tracer while traces are on. The SDK's types may be missing.
_tracer: Any = None


def _without_values(record: LogRecord) -> bool:
    record.msg = "OTEL_EXPORTER_OTLP_HEADERS has an entry that cannot be used; expected name=value, percent-encoded"
    record.args = ()
    return True


def on() -> bool:
    """Return whether spans are made."""
    return _tracer is not None


def use(provider: Any) -> None:
    """Make spans with this ``TracerProvider`` from now on; None switches traces off."""
    global _tracer
    _tracer = None if provider is None else provider.get_tracer("iidq", __version__)


@asynccontextmanager
async def open_traces(settings: Settings, part: Literal["api", "worker"]) -> AsyncIterator[None]:
    """Enable traces as configured for the block; then send the remaining spans within 5 s."""
    # The SDK's log line would quote a malformed OTEL_EXPORTER_OTLP_HEADERS with credentials.
    getLogger("opentelemetry.util.re").addFilter(_without_values)
    wanted = settings.otel_exporter_otlp_endpoint or settings.otel_traces_exporter
    if not wanted or settings.otel_traces_exporter == "none":
        yield
        return
    provider = _provider(settings, part)
    if provider is None:
        logs.traces_unavailable(install_command("otel"))
        yield
        return
    use(provider)
    try:
        yield
    finally:
        use(None)
        # The exporter may wait for an unreachable collector.
        stopping = asyncio.get_running_loop().run_in_executor(None, provider.shutdown)
        await asyncio.wait([stopping], timeout=_SHUTDOWN_SECONDS)


def _provider(settings: Settings, part: str) -> Any:
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        return None
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    exporter: SpanExporter
    if settings.otel_traces_exporter == "console":
        exporter = ConsoleSpanExporter()
    else:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            return None
        endpoint = settings.otel_exporter_otlp_endpoint
        # The OTLP specification appends each signal's path to the base endpoint.
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES of the operator win.
    resource = Resource({SERVICE_NAME: f"iidq-{part}", SERVICE_VERSION: __version__}).merge(_named_by_operator())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _named_by_operator() -> Any:
    from opentelemetry.sdk.resources import OTELResourceDetector

    return OTELResourceDetector().detect()


@contextmanager
def request(headers: list[tuple[bytes, bytes]], method: str) -> Iterator[Any]:
    """Make the span of a request current for the block; only while traces are :func:`on`."""
    from opentelemetry.trace import SpanKind, use_span

    span = _tracer.start_span(
        method, context=_context(_sent_traceparent(headers)), kind=SpanKind.SERVER, attributes=_method(method)
    )
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield span


def request_served(span: Any, method: str, route: str, status: int) -> None:
    """Name the request's span for its route; 5xx makes it an error."""
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _method(method: str) -> dict[str, str]:
    return {"http.request.method": method}


def _sent_traceparent(headers: list[tuple[bytes, bytes]]) -> str | None:
    sent = [value for name, value in headers if name == _TRACEPARENT]
    # W3C Trace Context, section 4.3: more than one header starts a new trace.
    return sent[0].decode("latin-1") if len(sent) == 1 else None


def attempt(trace_context: str | None, job_id: object, attempt: int, kind: str) -> AbstractContextManager[Any]:
    """Return the span of one attempt, a child of the span of the job's request."""
    if _tracer is None:
        return _off
    return _attempt(trace_context, job_id, attempt, kind)


@contextmanager
def _attempt(trace_context: str | None, job_id: object, attempt: int, kind: str) -> Iterator[Any]:
    from opentelemetry.trace import SpanKind, use_span

    span = _tracer.start_span(
        f"attempt {kind}",
        context=_context(trace_context),
        kind=SpanKind.CONSUMER,
        attributes={"iidq.job.id": str(job_id), "iidq.job.type": kind, "iidq.job.attempt": attempt},
    )
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield span


def attempt_ended(span: Any, outcome: str, error: str | None) -> None:
    """Set outcome and error code of the attempt; ``span`` is None while traces are off."""
    if span is not None:
        span.set_attribute("iidq.attempt.outcome", outcome)
        if error is not None:
            # Stored as "code: message".
            _failed(span, error.partition(":")[0])


def span(name: str) -> AbstractContextManager[Any]:
    """Return a span inside the current one."""
    return _off if _tracer is None else _child(name)


@contextmanager
def _child(name: str) -> Iterator[Any]:
    with _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as child:
        try:
            yield child
        except Exception as error:
            _failed(child, error.code if isinstance(error, IidqError) else type(error).__name__)
            raise


def _failed(span: Any, code: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR)


def current() -> str | None:
    """Return the current span as a ``traceparent``, or None."""
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _context(traceparent: str | None) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {} if traceparent is None else {"traceparent": traceparent}
    # A fresh context: the current span is not the parent.
    return TraceContextTextMapPropagator().extract(carrier, context=Context())
