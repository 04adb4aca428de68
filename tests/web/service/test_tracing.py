"""Test a trace from the request through the queue to the worker, on a real server, database, chain and worker."""

import asyncio
import contextlib
import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.embedded.demo_registry import deploy_registry, register
from iidq.embedded.endpoint import serve_locally
from iidq.embedded.manifests import serve_manifests
from iidq.observability import logs, traces
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.manifest import make_manifest
from iidq.provenance.verifier import open_verifier
from iidq.queue.processing.loop import open_work_loop
from iidq.settings import Settings
from iidq.worker import verification
from tests.eventually import eventually
from tests.job_rows import insert, scalar
from tests.web.serving import JOBS, ServeApi

CONTENT_HASH = "0x" + hashlib.sha256(b"traced").hexdigest()
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Return the exporter of all ended spans; traces are on during the test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.use(provider)
    yield exporter
    traces.use(None)
    provider.shutdown()


@dataclass(frozen=True)
class World:
    """A client of an API with a worker, the fields of a registered content, and the database."""

    api: httpx.AsyncClient
    """A client of the API."""
    fields: dict[str, str]
    """The fields of a submission with the verdict OK."""
    sql: psycopg.Connection[Any]
    """A connection to the database."""

    async def submit(self, headers: list[tuple[str, str]] | None = None, **fields: str) -> str:
        """Submit, wait for the end, return the job's id."""
        reply = await self.api.post(f"{JOBS}/verify", json={**self.fields, **fields}, headers=headers)
        assert reply.status_code == 200, reply.text
        job_id = str(reply.json()["jobId"])
        ended = 'SELECT count(*) FROM "VerificationJob" WHERE "completedAt" IS NOT NULL AND id = %s'
        await eventually(lambda: scalar(self.sql, ended, job_id))
        return job_id


@pytest.fixture
async def world(serve_api: ServeApi, database_url: str, development_chain: str) -> AsyncIterator[World]:
    key = DEVELOPMENT_KEYS[3]
    registry = await deploy_registry(development_chain, key)
    async with serve_manifests() as manifests:
        uri = manifests.publish("traced.json", make_manifest(CONTENT_HASH, key, "ipfs://x", 31337))
        await register(development_chain, registry, key, CONTENT_HASH, uri)
        settings = Settings.model_validate(
            {
                "database_url": database_url,
                "rpc_url": development_chain,
                "fetch_allow_private": ("127.0.0.1",),
                "retry_backoff_ms": 0,
                "max_retry_attempts": 2,
                "poll_interval_seconds": 0.2,
                "result_cache_seconds": 0,
            }
        )
        async with (
            serve_api(**settings.model_dump(exclude={"rpc_urls"})) as api,
            open_verifier(settings) as verifier,
            open_work_loop(settings, verification(verifier), "tracing") as loop,
        ):
            working = asyncio.create_task(loop.run())
            fields = {"registryAddress": registry, "manifestURI": uri, "contentHash": CONTENT_HASH}
            with psycopg.connect(database_url, autocommit=True) as sql:
                yield World(api, fields, sql)
            loop.stop()
            await working


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def parent_id(span: ReadableSpan) -> str:
    assert span.parent is not None
    return f"{span.parent.span_id:016x}"


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def own_id(span: ReadableSpan) -> str:
    return f"{context_of(span).span_id:016x}"


async def test_a_trace_goes_through_the_queue(world: World, spans: InMemorySpanExporter) -> None:
    """The caller's trace contains the request, the worker's attempt and each step of the attempt."""
    job_id = await world.submit([("traceparent", TRACEPARENT)])
    await eventually(lambda: named(spans, "attempt verify"))
    [request] = named(spans, f"POST {JOBS}/verify")
    [attempt] = named(spans, "attempt verify")
    assert (request.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CONSUMER)
    assert parent_id(request) == PARENT_ID
    assert scalar(world.sql, 'SELECT "traceContext" FROM "VerificationJob"') == f"00-{TRACE_ID}-{own_id(request)}-01"
    assert parent_id(attempt) == own_id(request)
    steps = {
        span.name: span for span in spans.get_finished_spans() if span.parent and parent_id(span) == own_id(attempt)
    }
    assert steps.keys() == {"manifest", "signature", "registry", "store"}
    assert {f"{context_of(span).trace_id:032x}" for span in (request, attempt, *steps.values())} == {TRACE_ID}
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": f"{JOBS}/verify",
        "http.response.status_code": 200,
    }
    assert attempt.attributes == {
        "iidq.job.id": job_id,
        "iidq.job.type": "verify",
        "iidq.job.attempt": 1,
        "iidq.attempt.outcome": "completed",
    }


async def test_every_attempt_is_in_the_trace(world: World, spans: InMemorySpanExporter) -> None:
    """A retried job has one span per attempt, with the code of the fault and without its text."""
    await world.submit([("traceparent", TRACEPARENT)], manifestURI="http://127.0.0.1:9/secret-path.json")
    attempts = await eventually(lambda: len(found := named(spans, "attempt verify")) == 2 and found)
    assert attempts
    assert [span.attributes and span.attributes["iidq.attempt.outcome"] for span in attempts] == ["retried", "failed"]
    for span in attempts:
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert str(span.attributes["error.type"]).startswith("fetch.")
    assert "secret-path" not in "".join(span.to_json() for span in spans.get_finished_spans())


@pytest.mark.parametrize(
    "sent",
    [["00-zz-1-01"], [f"00-{'0' * 32}-{PARENT_ID}-01"], [TRACEPARENT, TRACEPARENT], ["x" * 5000]],
    ids=["malformed", "zero", "doubled", "long"],
)
async def test_a_bad_traceparent_begins_anew(
    lonely_api: httpx.AsyncClient, spans: InMemorySpanExporter, sent: list[str]
) -> None:
    """A malformed ``traceparent`` is ignored: the request starts a new trace, and is served."""
    reply = await lonely_api.get("/livez", headers=[("traceparent", value) for value in sent])
    assert reply.status_code == 200
    [span] = named(spans, "GET /livez")
    assert span.parent is None


async def test_failures_mark_the_request(lonely_api: httpx.AsyncClient, spans: InMemorySpanExporter) -> None:
    """A 5xx reply marks the request's span as an error; a 4xx reply does not."""
    await lonely_api.get(JOBS)
    await lonely_api.get("/nowhere")
    [broken], [unknown] = named(spans, f"GET {JOBS}"), named(spans, "GET unmatched")
    assert (broken.status.status_code, unknown.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)


async def test_without_traces_nothing_is_stored(api: httpx.AsyncClient, database_url: str) -> None:
    """With traces off, ``traceparent`` is ignored, and the column stays null."""
    fields = {"registryAddress": "0x" + "11" * 20, "manifestURI": "https://example.org/m", "contentHash": CONTENT_HASH}
    reply = await api.post(f"{JOBS}/verify", json=fields, headers={"traceparent": TRACEPARENT})
    assert reply.status_code == 200
    with psycopg.connect(database_url) as sql:
        assert scalar(sql, 'SELECT "traceContext" FROM "VerificationJob"') is None


def test_only_a_traceparent_is_stored(database_url: str) -> None:
    """Postgres refuses any other text in the column, so a worker reads only a ``traceparent``."""
    with psycopg.connect(database_url, autocommit=True) as sql:
        insert(sql, traceContext=TRACEPARENT)
        with pytest.raises(psycopg.errors.CheckViolation):
            insert(sql, traceContext="anything")


def test_off_means_not_even_imported() -> None:
    """API and worker load no OpenTelemetry module unless traces are on."""
    code = "import sys, iidq.web.app, iidq.worker; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


async def test_missing_packages_cost_the_traces_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With traces on but without the packages, iidq logs one message and runs."""
    said: list[str] = []
    monkeypatch.setattr(logs, "traces_unavailable", said.append)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(traces, "find_spec", lambda name: None if name.startswith("opentelemetry") else find_spec(name))
    async with traces.open_traces(Settings(_env_file=None, otel_traces_exporter="otlp"), "api"):
        assert not traces.on()
    assert len(said) == 1


async def test_spans_reach_the_collector() -> None:
    """Spans go over OTLP/HTTP to ``/v1/traces`` with the service's name, the last spans at shutdown."""
    received: list[bytes] = []

    async def collect(request: Request) -> Response:
        received.append(await request.body())
        return Response(b"", media_type="application/x-protobuf")

    app = Starlette(routes=[Route("/v1/traces", collect, methods=["POST"])])
    async with serve_locally(app) as url:
        settings = Settings(_env_file=None, otel_exporter_otlp_endpoint=url)
        async with traces.open_traces(settings, "worker"):
            with traces.attempt(None, "job", 1, "verify"), contextlib.suppress(ValueError), traces.span("manifest"):
                raise ValueError
    assert not traces.on()
    sent = b"".join(received)
    assert b"iidq-worker" in sent
    assert b"attempt verify" in sent
