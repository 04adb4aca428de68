"""Milliseconds from POST until the job is completed: API and idle workers as deployed, instant upstreams.

The client sends one job, then reads the row every millisecond over a separate connection until the status is
``completed``; a notification would add a wait.
"""

import json
import time
from contextlib import ExitStack

import psycopg

from benchmarks.bench import Bench
from benchmarks.figures.verify import upstreams
from benchmarks.record import quantile
from benchmarks.samples import REGISTRY, read_samples
from benchmarks.server import STATEMENTS
from benchmarks.service import ServiceFailed, api, program

WORKERS = 2
_SETTLE_SECONDS = 3.0
_POLL_SECONDS = 0.001
_PAUSE_SECONDS = 0.02
_LONGEST_SECONDS = 30.0


def post_to_completed(bench: Bench) -> dict[str, float]:
    """Send job after job, each with a new manifest."""
    sources, scratch = upstreams(bench), bench.server.scratch
    with bench.server.migrated_database() as url, ExitStack() as stack:
        environment = {"DATABASE_URL": url, **sources.environment}
        for _ in range(WORKERS):
            stack.enter_context(program(["iidq.worker"], environment, scratch / "worker.log"))
        server = stack.enter_context(api(environment, scratch / "api.log"))
        watcher = stack.enter_context(psycopg.connect(url, autocommit=True))
        time.sleep(_SETTLE_SECONDS)
        taken_ms = []
        for sample in read_samples(sources.samples)[: bench.options.posts]:
            body = {
                "contentHash": sample.content_hash,
                "manifestURI": sample.manifest_uri,
                "registryAddress": REGISTRY,
            }
            started_at = time.perf_counter()
            status, answer = server.post("/api/verification-jobs/verify", json.dumps(body))
            if status != 200:
                raise ServiceFailed(f"submitting answered {status}: {answer.decode(errors='replace')[:200]}")
            _wait_until_completed(watcher, json.loads(answer)["jobId"])
            taken_ms.append((time.perf_counter() - started_at) * 1000)
            time.sleep(_PAUSE_SECONDS)
    return {
        "post_to_completed_p50_ms": quantile(taken_ms, 0.50),
        "post_to_completed_p99_ms": quantile(taken_ms, 0.99),
    }


def _wait_until_completed(watcher: psycopg.Connection[tuple[object, ...]], job_id: str) -> None:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while True:
        row = watcher.execute(STATEMENTS["status_of"], {"id": job_id}).fetchone()
        if row == ("completed",):
            return
        if row == ("failed",) or time.monotonic() > deadline:
            raise ServiceFailed(f"job {job_id} is {row} after {_LONGEST_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)
