"""Verifications end to end through the queue, with a gateway and a JSON-RPC endpoint answering from memory.

Each job has its own manifest and registry entry, so no cache helps; the result cache is off. The same round measures
the same steps with AsyncWeb3, httpx and eth_account, without a queue.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.bench import Bench
from benchmarks.child import Child, call
from benchmarks.figures.drain import DrainFailed, time_until_drained
from benchmarks.samples import make_samples, write_samples
from benchmarks.server import STATEMENTS, execute, settle

CONCURRENCY = 64


@dataclass(frozen=True, slots=True)
class Upstreams:
    """``samples`` is the samples' file, ``environment`` connects iidq to gateway and endpoint."""

    samples: Path
    url: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment for API and worker processes."""
        return {
            "RPC_URL": f"{self.url}/rpc",
            "IPFS_GATEWAYS": self.url,
            "FETCH_ALLOW_PRIVATE": "127.0.0.1",
            "RESULT_CACHE_SECONDS": "0",
        }


def upstreams(bench: Bench) -> Upstreams:
    """Yield samples and the running upstreams; made once."""

    @contextlib.contextmanager
    def opened() -> Iterator[Upstreams]:
        path = bench.server.scratch / "samples.jsonl"
        write_samples(make_samples(max(bench.options.verify_jobs, bench.options.posts)), path)
        with Child("upstreams", [path]) as child:
            yield Upstreams(path, f"http://127.0.0.1:{child.ready()}")

    return bench.once("upstreams", opened)


def verify(bench: Bench) -> dict[str, float]:
    """Measure CPU of the worker process per job, and jobs per second of one worker process."""
    jobs, sources = bench.options.verify_jobs, upstreams(bench)
    with bench.server.migrated_database() as url:
        arguments = ["--jobs", jobs, "--tasks", min(jobs, 1000), "--samples", sources.samples]
        call("enqueuer", arguments, {"DATABASE_URL": url}, timeout_seconds=600)
        settle(url)
        environment = {"DATABASE_URL": url, "WORKER_CONCURRENCY": str(CONCURRENCY), **sources.environment}
        with (
            Child("worker", ["--handler", "verify"], environment) as worker,
            psycopg.connect(url, autocommit=True) as watcher,
        ):
            worker.ready()
            [(since,)] = execute(url, STATEMENTS["clock"])
            seconds = time_until_drained([worker], watcher, jobs, bench.options.limit_seconds)
            [(ok,)] = execute(url, STATEMENTS["ended_ok"], {"since": since})
            cpu_seconds = float(worker.finish()["cpu_seconds"])
    if ok != jobs:
        raise DrainFailed(f"{ok} of {jobs} verifications came out OK")
    return {"verify_cpu_ms": cpu_seconds * 1000 / jobs, "verify_per_s": jobs / seconds}


def with_web3(bench: Bench) -> dict[str, float]:
    """Measure the comparison's CPU per verification."""
    sources = upstreams(bench)
    arguments = [sources.samples, sources.url, "--jobs", bench.options.verify_jobs, "--tasks", CONCURRENCY]
    done = call("web3_verifier", arguments, {}, timeout_seconds=600)
    return {
        "web3_cpu_ms": float(done["cpu_seconds"]) * 1000 / float(done["jobs"]),
        "web3_per_s": float(done["jobs"]) / float(done["seconds"]),
    }
