"""Test ``rpcUrl``: endpoints with different credentials are always distinguished."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.embedded.development_chain.chain_server import answer
from iidq.embedded.endpoint import serve_locally
from iidq.provenance.verifier import open_verifier
from iidq.settings import load_settings
from iidq.worker import verification
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import insert, read, scalar
from tests.web.serving import JOBS, ServeApi

KEYS = {"alpha": 1, "beta": 2}
"""The chain of each key."""
FIELDS = {
    "registryAddress": "0x" + "ab" * 20,
    "contentHash": "0x" + "cd" * 32,
    "manifestURI": "https://manifests.example/m.json",
}


class TwoEndpoints:
    """One host with two endpoints, ``urls`` by key; counts the requests of each."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.urls: dict[str, str] = {}

    async def reply(self, request: Request) -> Response:
        key = request.query_params.get("apikey") or request.path_params.get("key", "")
        key = key.removeprefix("path-key-of-").strip("-")
        self.asked[key] += 1
        told = answer(await request.body(), {"eth_chainId": lambda: hex(KEYS[key])})
        return Response(told, media_type="application/json")


@pytest.fixture(params=["/?apikey={}", "/v3/path-key-of-{}-----"])
async def endpoints(request: pytest.FixtureRequest) -> AsyncIterator[TwoEndpoints]:
    """Start real endpoints, distinguished by a parameter or by a segment of the path."""
    two = TwoEndpoints()
    routes = [Route(path, two.reply, methods=["POST"]) for path in ("/", "/v3/{key}")]
    async with serve_locally(Starlette(routes=routes)) as base:
        two.urls = {key: base + request.param.format(key) for key in KEYS}
        yield two


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the operator."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def _other_chain(key: str) -> int:
    return 3 - KEYS[key]


async def test_a_job_reads_the_endpoint_that_was_asked_for(
    endpoints: TwoEndpoints, database_url: str, sql: psycopg.Connection[Any], serve_api: ServeApi
) -> None:
    """Each job uses the named endpoint, queued or synchronous; replies and rows hold no credential."""
    allowed = tuple(endpoints.urls.values())
    settings = load_settings(rpc_url="http://127.0.0.1:9/", rpc_allowed_urls=",".join(allowed))
    async with (
        serve_api(database_url=database_url, rpc_url="http://127.0.0.1:9/", rpc_allowed_urls=allowed) as api,
        open_verifier(settings) as verifier,
        working(database_url, verification(verifier)),
    ):
        for key, url in endpoints.urls.items():
            asked = {**FIELDS, "rpcUrl": url, "chainId": _other_chain(key)}
            wrong_chain = f"rpcUrl is on chain {KEYS[key]}, not {_other_chain(key)}"
            location = (await api.post(f"{JOBS}/verify", json=asked)).headers["location"]
            await eventually(
                lambda: scalar(sql, "SELECT count(*) = 0 FROM \"VerificationJob\" WHERE status <> 'failed'")
            )
            job = (await api.get(location)).json()
            assert job["error"] == f"rpc.chain_mismatch: {wrong_chain}"
            assert key not in json.dumps(job)
            assert wrong_chain in (await api.post("/api/verify", json=asked)).text
            # Asked once by the worker and once by the API; each then caches the chain.
            assert endpoints.asked[key] == 2
        rows = str(sql.execute('SELECT * FROM "VerificationJob"').fetchall())
    assert [key for key in KEYS if key in rows] == []


async def test_what_means_several_endpoints_is_refused(
    endpoints: TwoEndpoints, database_url: str, sql: psycopg.Connection[Any], serve_api: ServeApi
) -> None:
    """The redacted form of two endpoints gives 400 over HTTP, and a permanent fault in a row from plain SQL."""
    allowed = tuple(endpoints.urls.values())
    settings = load_settings(rpc_url="http://127.0.0.1:9/", rpc_allowed_urls=",".join(allowed))
    async with (
        serve_api(database_url=database_url, rpc_url="http://127.0.0.1:9/", rpc_allowed_urls=allowed) as api,
        open_verifier(settings) as verifier,
        working(database_url, verification(verifier)),
    ):
        location = (await api.post(f"{JOBS}/verify", json={**FIELDS, "rpcUrl": allowed[0]})).headers["location"]
        shown = (await api.get(location)).json()["rpcUrl"]
        refused = await api.post(f"{JOBS}/verify", json={**FIELDS, "rpcUrl": shown})
        assert refused.status_code == 400
        assert [fault["field"] for fault in refused.json()["errors"]] == ["rpcUrl"]
        assert "several endpoints" in refused.json()["errors"][0]["message"]
        job_id = insert(sql, rpcUrl=shown, chainId=1)
        await eventually(lambda: read(sql, job_id)["status"] == "failed")
        assert read(sql, job_id)["error"].startswith("fetch.refused.rpc_url: ")
        whole = insert(sql, rpcUrl=allowed[1], chainId=1)
        await eventually(lambda: read(sql, whole)["status"] == "failed")
        assert read(sql, whole)["error"] == "rpc.chain_mismatch: rpcUrl is on chain 2, not 1"


async def test_a_worker_without_the_endpoint_takes_no_other(
    endpoints: TwoEndpoints, database_url: str, sql: psycopg.Connection[Any], serve_api: ServeApi
) -> None:
    """A worker with only the other key retries later, reports the reason, and sends no request."""
    settings = load_settings(rpc_url="http://127.0.0.1:9/", rpc_allowed_urls=endpoints.urls["alpha"])
    async with (
        serve_api(
            database_url=database_url, rpc_url="http://127.0.0.1:9/", rpc_allowed_urls=tuple(endpoints.urls.values())
        ) as api,
        open_verifier(settings) as verifier,
        working(database_url, verification(verifier)),
    ):
        reply = await api.post(f"{JOBS}/verify", json={**FIELDS, "rpcUrl": endpoints.urls["beta"]})
        job_id = reply.json()["jobId"]
        await eventually(lambda: read(sql, job_id)["retryCount"] == 1)
    [met] = read(sql, job_id)["errors"]
    assert met["error"].startswith("rpc.endpoint_not_configured: ")
    later = 'SELECT "runAt" > now() + interval \'10 seconds\' FROM "VerificationJob" WHERE id = %s'
    assert scalar(sql, later, job_id)
    assert not endpoints.asked


async def test_a_key_stands_for_one_endpoint(endpoints: TwoEndpoints, database_url: str, serve_api: ServeApi) -> None:
    """The same request with another endpoint is another request for Idempotency-Key and ``share``."""
    one, two = endpoints.urls.values()
    async with serve_api(database_url=database_url, rpc_url="http://127.0.0.1:9/", rpc_allowed_urls=(one, two)) as api:
        key = {"Idempotency-Key": "k"}
        first = await api.post(f"{JOBS}/verify", json={**FIELDS, "rpcUrl": one}, headers=key)
        again = await api.post(f"{JOBS}/verify", json={**FIELDS, "rpcUrl": one}, headers=key)
        other = await api.post(f"{JOBS}/verify", json={**FIELDS, "rpcUrl": two}, headers=key)
        shared = [
            (await api.post(f"{JOBS}/verify", json={**FIELDS, "rpcUrl": url, "share": True})).json()["jobId"]
            for url in (one, two, one)
        ]
    assert first.json()["jobId"] == again.json()["jobId"]
    assert other.status_code in (409, 422)
    assert shared[0] == shared[2] != shared[1]
