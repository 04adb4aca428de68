"""Requests per second and core: submitting by hash, reading a job, and a bare Starlette route."""

import contextlib
import json
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.child import call
from benchmarks.figures.drain import timed_drain
from benchmarks.record import quantile
from benchmarks.samples import REGISTRY
from benchmarks.service import ServiceFailed, Serving, api, serving

JOBS_PATH = "/api/verification-jobs"
# No request of these figures reaches a chain.
_NO_RPC = "http://127.0.0.1:9"


def bare(bench: Bench) -> dict[str, float]:
    """Measure a route without queue or database: parse and answer."""
    log_path = bench.server.scratch / "bare.log"
    with serving(["benchmarks.processes.bare_route"], {}, log_path, "/submit") as server:
        return {"http_bare": _load(bench, f"{server.url}/submit", "POST")[0]}


def submit(bench: Bench) -> dict[str, float]:
    """Measure POST /verify by hash; each row is durable before its reply."""
    with _api(bench) as (server, _):
        return {"http_submit": _load(bench, f"{server.url}{JOBS_PATH}/verify", "POST")[0]}


def get(bench: Bench) -> dict[str, float]:
    """Measure GET of a completed job at full load, and the p99 at half of the full load."""
    with _api(bench) as (server, database_url):
        body = {"contentHash": "0x" + "c0" * 32, "manifestURI": "https://example.org/m", "registryAddress": REGISTRY}
        status, answer = server.post(f"{JOBS_PATH}/verify", json.dumps(body))
        if status != 200:
            raise ServiceFailed(f"submitting answered {status}: {answer.decode(errors='replace')[:200]}")
        timed_drain(database_url, jobs=1, workers=1, concurrency=1, limit_seconds=bench.options.limit_seconds)
        url = f"{server.url}{JOBS_PATH}/{json.loads(answer)['jobId']}"
        peak, _ = _load(bench, url, "GET")
        _, latency_ms = _load(bench, url, "GET", per_second=peak / 2)
        return {"http_get": peak, "http_get_p99_ms": quantile(latency_ms, 0.99)}


@contextlib.contextmanager
def _api(bench: Bench) -> Iterator[tuple[Serving, str]]:
    with bench.server.migrated_database() as url:
        environment = {"DATABASE_URL": url, "RPC_URL": _NO_RPC}
        with api(environment, bench.server.scratch / "api.log") as server:
            yield server, url


def _load(bench: Bench, url: str, method: str, per_second: float = 0) -> tuple[float, list[float]]:
    arguments = [url, "--method", method, "--connections", bench.options.http_connections]
    arguments += ["--seconds", bench.options.http_seconds, "--per-second", per_second]
    done = call("load", arguments, {}, timeout_seconds=bench.options.http_seconds + 60)
    return float(done["per_s"]), done["latency_ms"]
