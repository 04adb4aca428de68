"""Test ``ETag`` and ``If-None-Match``: a client with the present state gets no second copy."""

import asyncio
from typing import Any

import httpx
import psycopg
import pytest

from tests.job_rows import COMPLETED, PROCESSING, Sql, insert, update
from tests.web.serving import JOBS, ServeApi


@pytest.fixture
def sql(database_url: str) -> Any:
    """Connect to the database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def test_who_has_the_present_state_gets_304(
    serve_api: ServeApi, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """A client with the present ETag, weak or in a list, gets an empty 304 with ``Retry-After`` from any process."""
    url = f"{JOBS}/{insert(sql, PROCESSING)}"
    async with serve_api(database_url=database_url) as one, serve_api(database_url=database_url) as other:
        whole = await one.get(url)
        tag = whole.headers["etag"]
        assert (tag[0], tag[-1], whole.headers["cache-control"]) == ('"', '"', "no-cache")
        for asked in (tag, f"W/{tag}", f'"x", W/{tag} , "y"', "*"):
            reply = await other.get(url, headers={"If-None-Match": asked})
            assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", tag)
            assert (reply.headers["retry-after"], reply.headers["vary"]) == ("1", "Prefer")
        for asked in ('"x"', tag.strip('"'), ""):
            reply = await other.get(url, headers={"If-None-Match": asked})
            assert (reply.status_code, reply.content) == (200, whole.content)


@pytest.mark.parametrize(
    "change",
    [
        {"progress": 11},
        {"fileName": "renamed.jpg"},
        {"updatedAt": Sql("now() + interval '1 second'")},
        {"status": "queued", "workerId": None, "leaseUntil": None},
    ],
)
async def test_the_tag_changes_with_the_bytes(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], change: dict[str, Any]
) -> None:
    """Any change of the row changes the ETag."""
    job_id = insert(sql, PROCESSING, progress=10)
    before = await api.get(f"{JOBS}/{job_id}")
    update(sql, job_id, **change)
    after = await api.get(f"{JOBS}/{job_id}", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.content != before.content
    assert after.headers["etag"] != before.headers["etag"]


async def test_only_what_has_not_ended_is_worth_asking_again(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any]
) -> None:
    """Replies for waiting and running jobs have ``Retry-After``; replies for ended jobs do not."""
    waiting, ended = await asyncio.gather(api.get(f"{JOBS}/{insert(sql)}"), api.get(f"{JOBS}/{insert(sql, COMPLETED)}"))
    assert waiting.headers["retry-after"] == "1"
    assert "retry-after" not in ended.headers
