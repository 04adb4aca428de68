"""Test the Idempotency-Key header, and requests with a shared job."""

import asyncio
from typing import Any

import httpx
import psycopg
import pytest

from tests.web.request.test_submit import CONTENT, CONTENT_HASH, FIELDS, rows
from tests.web.serving import JOBS

KEY = {"Idempotency-Key": "order-4711"}
QUESTION: dict[str, Any] = {**FIELDS, "contentHash": CONTENT_HASH}


async def test_the_same_request_gets_the_first_job(api: httpx.AsyncClient, database_url: str) -> None:
    """The same request under the same key gives the first job."""
    first = await api.post(f"{JOBS}/verify", json=QUESTION, headers=KEY)
    again = await api.post(f"{JOBS}/verify", json=QUESTION, headers=KEY)
    assert first.status_code == 200
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert len(await rows(database_url)) == 1


async def test_an_upload_is_known_by_its_content(api: httpx.AsyncClient, database_url: str) -> None:
    """An upload with the same name and bytes is the same request; other bytes are another request."""

    async def upload(content: bytes) -> httpx.Response:
        return await api.post(f"{JOBS}/verify", data=FIELDS, files={"file": ("a.jpg", content)}, headers=KEY)

    first = await upload(CONTENT)
    assert (await upload(CONTENT)).json() == first.json()
    assert (await upload(CONTENT + b"!")).status_code == 422
    assert len(await rows(database_url)) == 1


async def test_another_request_under_the_key_is_refused(api: httpx.AsyncClient, database_url: str) -> None:
    """Another request under a used key gives 422 with a code, and the first job does not change."""
    await api.post(f"{JOBS}/verify", json=QUESTION, headers=KEY)
    other = {**QUESTION, "contentHash": "0x" + "1" * 64}
    reply = await api.post(f"{JOBS}/verify", json=other, headers=KEY)
    assert (reply.status_code, reply.json()["code"]) == (422, "idempotency.conflict")
    assert len(await rows(database_url)) == 1


async def test_keys_are_each_callers_own(api: httpx.AsyncClient, database_url: str) -> None:
    """The same key of another caller or on another endpoint belongs to a separate job."""
    replies = [
        await api.post(f"{JOBS}/verify", json=QUESTION, headers=KEY),
        await api.post(f"{JOBS}/verify", json=QUESTION, headers={**KEY, "x-api-key": "somebody else"}),
        await api.post(f"{JOBS}/proof", json=QUESTION, headers=KEY),
    ]
    assert len({reply.json()["jobId"] for reply in replies}) == 3
    assert len(await rows(database_url)) == 3
    # A caller may send an API key in either header.
    bearer = await api.post(f"{JOBS}/verify", json=QUESTION, headers={**KEY, "Authorization": "Bearer somebody else"})
    assert bearer.json() == replies[1].json()


async def test_an_expired_key_is_free_again(api: httpx.AsyncClient, database_url: str) -> None:
    """An expired key belongs to its next request."""
    first = await api.post(f"{JOBS}/verify", json=QUESTION, headers=KEY)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("""UPDATE iidq_idempotency_key SET "expiresAt" = now() - interval '1 second'""")
    other = {**QUESTION, "contentHash": "0x" + "1" * 64}
    second = await api.post(f"{JOBS}/verify", json=other, headers=KEY)
    assert second.status_code == 200
    assert second.json()["jobId"] != first.json()["jobId"]


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "ümlaut"])
async def test_a_key_has_a_form(api: httpx.AsyncClient, key: str) -> None:
    """A malformed key gives 400 with the header's name."""
    reply = await api.post(f"{JOBS}/verify", json=QUESTION, headers={b"Idempotency-Key": key.encode()})
    assert reply.status_code == 400
    assert reply.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_one_request_has_one_key(api: httpx.AsyncClient, database_url: str) -> None:
    """Two key headers give 400, and no job is queued."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    reply = await api.post(f"{JOBS}/verify", json=QUESTION, headers=headers)
    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (400, "Idempotency-Key")
    assert await rows(database_url) == []


async def test_a_request_that_was_refused_leaves_its_key_free(api: httpx.AsyncClient) -> None:
    """A refused request leaves its key free for the corrected request."""
    wrong = await api.post(f"{JOBS}/verify", json={**QUESTION, "registryAddress": "0x1"}, headers=KEY)
    assert wrong.status_code == 400
    assert (await api.post(f"{JOBS}/verify", json=QUESTION, headers=KEY)).status_code == 200


async def test_racing_requests_under_one_key_are_one_job(api: httpx.AsyncClient, database_url: str) -> None:
    """Twenty simultaneous requests under one key, uploads and JSON, create one job."""
    upload = {"data": FIELDS, "files": {"file": ("a.jpg", CONTENT)}}
    as_json = {"json": {**QUESTION, "fileName": "a.jpg"}}
    replies = await asyncio.gather(
        *(api.post(f"{JOBS}/verify", headers=KEY, **form) for form in (upload, as_json) * 10)
    )
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["jobId"] for reply in replies}) == 1
    assert len(await rows(database_url)) == 1


async def test_those_who_ask_may_share_a_job(api: httpx.AsyncClient, database_url: str) -> None:
    """Identical requests with `share` get the same unfinished job; a request without `share` gets a separate job."""
    first = await api.post(f"{JOBS}/verify", json={**QUESTION, "share": True, "fileName": "a.jpg"})
    second = await api.post(f"{JOBS}/verify", data={**QUESTION, "share": "true"}, files={"x": ("", b"")})
    alone = await api.post(f"{JOBS}/verify", json=QUESTION)
    assert first.json()["jobId"] == second.json()["jobId"] != alone.json()["jobId"]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("SELECT cancel_job(%s)", [first.json()["jobId"]])
    later = await api.post(f"{JOBS}/verify", json={**QUESTION, "share": True})
    assert later.json()["jobId"] not in {first.json()["jobId"], alone.json()["jobId"]}


async def test_only_identical_questions_share(api: httpx.AsyncClient, database_url: str) -> None:
    """Another content, manifest, registry, chain or type gets a separate job; another file name does not."""
    asked: dict[str, Any] = {**QUESTION, "share": True}
    others: list[dict[str, Any]] = [
        {},
        {"contentHash": "0x" + "1" * 64},
        {"manifestURI": "https://example.org/other.json"},
        {"registryAddress": "0x" + "12" * 20},
        {"chainId": 5},
    ]
    replies = [await api.post(f"{JOBS}/verify", json=asked | other) for other in others]
    replies.append(await api.post(f"{JOBS}/proof", json=asked))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["jobId"] for reply in replies}) == len(replies)
    same = await api.post(f"{JOBS}/verify", json=asked | {"fileName": "b.jpg"})
    assert same.json()["jobId"] == replies[0].json()["jobId"]
    assert len(await rows(database_url)) == len(replies)


async def test_share_is_true_or_false(api: httpx.AsyncClient) -> None:
    """A wrong value of `share` gives 400 with the field's name."""
    reply = await api.post(f"{JOBS}/verify", json={**QUESTION, "share": "maybe"})
    assert reply.json()["errors"] == [{"field": "share", "message": "expected true or false"}]
