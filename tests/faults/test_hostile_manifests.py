"""A worker process, and manifests made to keep it busy."""

import signal
from typing import Any

import psycopg

from iidq.provenance.ipfs.cid import DAG_PB
from tests.eventually import eventually
from tests.faults.conftest import StartWorker
from tests.job_rows import QUEUED, insert, read, scalar
from tests.unit.guarded_http.scripted_server import serving
from tests.unit.ipfs.ipfs_blocks import car, cid_v0, countless_fields
from tests.unit.ipfs.test_gateways import by_format


async def test_a_block_of_a_million_fields_does_not_keep_a_worker(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker, development_chain: str
) -> None:
    """A valid 2 MiB block behind 4,000 links fails its job at once, and the worker ends on SIGTERM."""
    root, block = countless_fields(4000)
    async with serving(by_format({"raw": root, "car": car((DAG_PB, root), (DAG_PB, block))})) as gateway:
        environment = {"RPC_URL": development_chain, "IPFS_GATEWAYS": gateway.url, "JOB_LEASE_SECONDS": "10"}
        worker = start_worker(database_url, module="iidq.worker", **environment)
        job = insert(ledger, QUEUED, manifestUri=f"ipfs://{cid_v0(root)}")
        await eventually(lambda: scalar(ledger, "SELECT count(*) FROM ending"), timeout_seconds=60)
        row = read(ledger, job)
        assert (row["status"], row["retryCount"]) == ("failed", 0)
        assert row["error"].startswith("manifest.too_complex: ")
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0
