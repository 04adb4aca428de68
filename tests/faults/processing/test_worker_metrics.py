"""``/metrics`` of a working worker process."""

import socket
import urllib.error
import urllib.request
from typing import Any

import psycopg
from structlog.testing import capture_logs

from iidq.listening import listen
from iidq.observability.worker_metrics import serve_metrics
from iidq.settings import load_settings
from tests.eventually import eventually
from tests.exposition_format import value
from tests.faults.conftest import StartWorker
from tests.job_rows import insert, scalar


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def scrape(port: int, path: str = "/metrics", **headers: str) -> tuple[int, str]:
    """Return status and text; status 0 while the port is closed."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""
    except OSError:
        return 0, ""


async def test_a_worker_tells_what_it_did(
    start_worker: StartWorker, database_url: str, ledger: psycopg.Connection[Any]
) -> None:
    """A worker's metrics show attempts by outcome, running jobs, slots, the listener's state and the storing time."""
    port = free_port()
    start_worker(database_url, WORKER_METRICS_PORT=str(port), WORKER_CONCURRENCY="4", JOB_LEASE_SECONDS="30")
    insert(ledger, manifestUri="test:sleep:0.01", copies=2)
    insert(ledger, manifestUri="test:nonsense", maxAttempts=1)
    insert(ledger, manifestUri="test:sleep:60")
    ended = 'SELECT count(*) = 3 FROM "VerificationJob" WHERE "completedAt" IS NOT NULL'
    await eventually(lambda: scalar(ledger, ended))
    text = await eventually(
        lambda: (
            value(found := scrape(port)[1], "iidq_listening", listener="jobs") == 1
            and value(found, "iidq_attempts_total") == 3
            and found
        )
    )
    assert text
    assert value(text, "iidq_attempts_total", outcome="completed") == 2
    assert value(text, "iidq_attempts_total", outcome="failed") == 1
    assert value(text, "iidq_attempt_duration_seconds_count") == 3
    assert value(text, "iidq_verification_step_duration_seconds_count", step="store") >= 1
    assert value(text, "iidq_worker_running_jobs") == 1
    assert value(text, "iidq_worker_slots") == 4
    assert value(text, "process_resident_memory_bytes") > 0
    ledger.execute("SELECT cancel_job(id) FROM \"VerificationJob\" WHERE status = 'processing'")
    await eventually(lambda: value(scrape(port)[1], "iidq_attempts_total", outcome="cancelled") == 1)


async def test_metrics_are_guarded_and_optional(start_worker: StartWorker, database_url: str) -> None:
    """With ``API_KEY`` the metrics need the key; only ``/metrics`` is served. A taken port does not stop the worker."""
    port = free_port()
    start_worker(database_url, WORKER_METRICS_PORT=str(port), API_KEY="s3cret")
    await eventually(lambda: scrape(port)[0] == 401)
    assert scrape(port, **{"X-API-Key": "wrong"})[0] == 401
    assert scrape(port, "/other")[0] == 404
    assert scrape(port, **{"X-API-Key": "s3cret"})[0] == 200
    assert scrape(port, Authorization="Bearer s3cret")[0] == 200
    second = start_worker(database_url, WORKER_METRICS_PORT=str(port))
    await eventually(lambda: second.says("metrics.unavailable") and second.says("listener.up"))
    assert second.process.poll() is None


def test_metrics_are_served_where_the_api_would_be() -> None:
    """Metrics accept a HOST with brackets and a path with a slash; an unusable host or port is one line in the log."""
    with listen("::1", 0) as free:
        port = free.getsockname()[1]
    with serve_metrics(load_settings(host="[::1]", worker_metrics_port=port)):
        for path in ("/metrics", "/metrics/", "/metrics/?a=b"):
            with urllib.request.urlopen(f"http://[::1]:{port}{path}", timeout=10) as reply:
                assert reply.status == 200
        for host, fault in (("[::1]", f"WORKER_METRICS_PORT={port}: another"), ("a..b", "HOST='a..b': no address")):
            with capture_logs() as logged, serve_metrics(load_settings(host=host, worker_metrics_port=port)):
                pass
            [line] = logged
            assert line["event"] == "metrics.unavailable"
            assert fault in line["error"]
