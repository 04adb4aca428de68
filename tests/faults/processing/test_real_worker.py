"""The program ``python -m iidq.worker``, with a chain, a registry and a manifest server."""

import secrets
import signal
import subprocess
import sys
from typing import Any

import psycopg

from iidq.embedded.demo_registry import deploy_registry, register
from iidq.embedded.manifests import serve_manifests
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.manifest import make_manifest
from tests.eventually import eventually
from tests.faults.conftest import StartWorker
from tests.job_rows import QUEUED, insert, read, scalar

CREATOR = DEVELOPMENT_KEYS[4]
CHAIN_ID = 31337


async def test_verifications_survive_a_killed_worker(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker, development_chain: str
) -> None:
    """Real verifications and proofs end with their verdict once, though a worker is killed."""
    registry = await deploy_registry(development_chain, CREATOR, "new")
    async with serve_manifests() as manifests:
        content_hash = "0x" + secrets.token_hex(32)
        uri = manifests.publish("a.json", make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
        receipt = await register(development_chain, registry, CREATOR, content_hash, uri)
        environment = {
            "module": "iidq.worker",
            "RPC_URL": development_chain,
            "IPFS_GATEWAYS": manifests.base_url,
            "FETCH_ALLOW_PRIVATE": "127.0.0.1",
            "JOB_LEASE_SECONDS": "1",
        }
        inputs = {**QUEUED, "contentHash": content_hash, "manifestUri": uri, "registryAddress": registry}
        victim = start_worker(database_url, **environment)
        jobs = [insert(ledger, inputs, type="verify" if number % 2 else "proof") for number in range(30)]
        await eventually(lambda: scalar(ledger, "SELECT count(*) FROM ending"))
        victim.signal(signal.SIGKILL)
        survivor = start_worker(database_url, **environment)
        await eventually(lambda: scalar(ledger, "SELECT count(*) FROM ending") == len(jobs))
        for number, job_id in enumerate(jobs):
            row = read(ledger, job_id)
            assert row["status"] == "completed", row["error"]
            if number % 2:
                assert row["result"]["status"] == "OK"
                assert row["result"]["onchain"]["timestamp"] == receipt.timestamp
            else:
                assert row["result"]["verification"]["status"] == "OK"
                assert row["result"]["tx"]["txHash"] == receipt.tx_hash
        assert scalar(ledger, "SELECT count(DISTINCT job_id) FROM ending") == len(jobs)
        survivor.signal(signal.SIGTERM)
        assert survivor.exit_code() == 0


def test_bad_settings_stop_the_start(database_url: str) -> None:
    """A bad setting stops the worker with one line, the variable's name and exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "iidq.worker", "--concurrency", "0"],
        env={"DATABASE_URL": database_url, "RPC_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == ("WORKER_CONCURRENCY=0 cannot be used; expected greater than or equal to 1")
