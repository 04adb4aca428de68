"""Test submissions without a queue: processed synchronously, as documented for the replaced system."""

import asyncio

import pytest

from iidq.database.migrate import migrate
from iidq.web import synchronous
from tests.web.routes.test_legacy import CONTENT, CONTENT_HASH, NO_CODE, World, world  # noqa: F401 — a fixture
from tests.web.serving import JOBS, ServeApi

NOBODY = {"registryAddress": NO_CODE, "manifestURI": "http://127.0.0.1:9/m.json", "contentHash": CONTENT_HASH}


async def test_the_reply_is_the_mode_and_the_result(world: World) -> None:  # noqa: F811
    """The reply is `{"mode": "sync", "result": …}`, with the result of the synchronous call, for a file and a hash."""
    for kind in ("verify", "proof"):
        bare = (await world.api.post(f"/api/{kind}", data=world.fields, files={"file": ("x.txt", CONTENT)})).json()
        reply = await world.api.post(f"{JOBS}/{kind}", data=world.fields, files={"file": ("x.txt", CONTENT)})
        assert reply.status_code == 200, reply.text
        assert "location" not in reply.headers
        assert reply.json().keys() == {"mode", "result"}
        assert reply.json()["mode"] == "sync"
        result = reply.json()["result"]
        assert result.keys() == bare.keys()
        volatile = {"report", "generated_at"}
        assert {name: result[name] for name in result.keys() - volatile} == {
            name: bare[name] for name in bare.keys() - volatile
        }
    changed = await world.api.post(f"{JOBS}/verify", json={**world.fields, "contentHash": "0x" + "00" * 32})
    assert (changed.status_code, changed.json()["result"]["status"]) == (200, "FAIL")


async def test_what_needs_a_job_is_left_out(world: World) -> None:  # noqa: F811
    """Without a job, preferences are not applied, and an idempotency key has no effect."""
    fields = {**world.fields, "contentHash": CONTENT_HASH}
    for preference in ("respond-async", "wait=5"):
        reply = await world.api.post(f"{JOBS}/verify", json=fields, headers={"Prefer": preference})
        assert (reply.status_code, reply.json()["mode"]) == (200, "sync")
        assert "preference-applied" not in reply.headers
    for content_hash in (CONTENT_HASH, "0x" + "00" * 32):
        other = {**fields, "contentHash": content_hash}
        reply = await world.api.post(f"{JOBS}/verify", json=other, headers={"Idempotency-Key": "one"})
        assert (reply.status_code, reply.json()["result"]["fileHash"]) == (200, content_hash)


async def test_faults_are_told_as_by_the_synchronous_calls(world: World) -> None:  # noqa: F811
    """Wrong fields give 400, a permanent fault of the inputs 422, a temporary fault 503 with Retry-After."""
    fields = {**world.fields, "contentHash": CONTENT_HASH}
    wrong = await world.api.post(f"{JOBS}/verify", json={**fields, "registryAddress": "0x"})
    permanent = await world.api.post(f"{JOBS}/verify", json={**fields, "registryAddress": NO_CODE})
    temporary = await world.api.post(f"{JOBS}/verify", json=NOBODY)
    assert [reply.status_code for reply in (wrong, permanent, temporary)] == [400, 422, 503]
    assert permanent.json().keys() == {"error", "code", "correlationId"}
    assert int(temporary.headers["retry-after"]) > 0


async def test_not_migrated_is_not_available(
    world: World,  # noqa: F811
    serve_api: ServeApi,
    empty_database_url: str,
) -> None:
    """Without its tables the queue is unavailable; after the migrations submissions are jobs, without a restart."""
    settings = {"rpc_url": "http://127.0.0.1:9/", "fetch_allow_private": ("127.0.0.1",)}
    async with serve_api(database_url=empty_database_url, **settings) as api:
        # No server listens there: only a synchronous run finds the fault.
        assert (await api.post(f"{JOBS}/verify", json=NOBODY)).json()["code"].startswith(("fetch.", "rpc."))
        await asyncio.to_thread(migrate, empty_database_url)
        reply = await api.post(f"{JOBS}/verify", json=NOBODY)
        assert (reply.status_code, reply.json()["mode"]) == (200, "async")


async def test_it_can_be_switched_off(serve_api: ServeApi) -> None:
    """With ``SYNC_FALLBACK=off`` a submission gives a job or 503. The legacy calls stay synchronous."""
    async with serve_api(sync_fallback="off", fetch_allow_private=("127.0.0.1",)) as api:
        for kind in ("verify", "proof"):
            reply = await api.post(f"{JOBS}/{kind}", json=NOBODY)
            assert (reply.status_code, reply.json()["code"]) == (503, "database.unavailable")
            assert int(reply.headers["retry-after"]) > 0
            legacy = await api.post(f"/api/{kind}", json=NOBODY)
            assert (legacy.status_code, legacy.json()["code"].split(".")[0]) == (503, "rpc")


async def test_too_many_at_once_are_asked_to_come_back(serve_api: ServeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fallback and legacy calls share one bound; over the bound they give 503, and a free place can be used again."""
    monkeypatch.setattr(synchronous, "MAX_AT_ONCE", 2)
    started, release = asyncio.Semaphore(0), asyncio.Event()

    async def run(*_: object) -> dict[str, str]:
        started.release()
        await release.wait()
        return {"status": "OK"}

    monkeypatch.setattr(synchronous.SynchronousVerification, "_run", run)
    async with serve_api(fetch_allow_private=("127.0.0.1",)) as api:
        paths = (f"{JOBS}/verify", "/api/verify")
        running = [asyncio.create_task(api.post(path, json=NOBODY)) for path in paths]
        async with asyncio.timeout(30):
            for _ in running:
                await started.acquire()
        for path in (f"{JOBS}/proof", "/api/verify"):
            refused = await api.post(path, json=NOBODY)
            assert (refused.status_code, refused.json()["code"]) == (503, "service.busy")
            assert int(refused.headers["retry-after"]) > 0
        release.set()
        assert [reply.status_code for reply in await asyncio.gather(*running)] == [200, 200]
        assert (await api.post(f"{JOBS}/proof", json=NOBODY)).json() == {"mode": "sync", "result": {"status": "OK"}}
