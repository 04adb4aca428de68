"""Test ``callbackUrl`` in a submission: accepted, refused with a reason, and shown in the job."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.web.request.test_submit import CONTENT, CONTENT_HASH, FIELDS
from tests.web.serving import JOBS, ServeApi
from tests.webhooks import SECRET

QUESTION: dict[str, Any] = {**FIELDS, "contentHash": CONTENT_HASH}
URL = "https://receiver.example/hook?token=secret"
WAITING = {
    "url": "https://receiver.example/hook?***",
    "state": "waiting",
    "attempts": 0,
    "nextAt": None,
    "lastStatus": None,
    "lastError": None,
    "deliveredAt": None,
}


@pytest.fixture
async def api(serve_api: ServeApi, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an API with callbacks."""
    async with serve_api(
        database_url=database_url, webhook_secret=SECRET, fetch_allow_private=("10.1.0.0/16",)
    ) as client:
        yield client


def stored_urls(database_url: str) -> list[str]:
    with psycopg.connect(database_url) as connection:
        return [url for (url,) in connection.execute("SELECT url FROM iidq_webhook_delivery").fetchall()]


@pytest.mark.parametrize("form", ["json", "multipart", "proof"])
async def test_a_callback_is_shown_in_the_job(api: httpx.AsyncClient, database_url: str, form: str) -> None:
    """A callback from JSON or a form is shown in the job and the list, without its query."""
    if form == "multipart":
        reply = await api.post(f"{JOBS}/verify", data={**FIELDS, "callbackUrl": URL}, files={"file": ("a", CONTENT)})
    else:
        path = "proof" if form == "proof" else "verify"
        reply = await api.post(f"{JOBS}/{path}", json={**QUESTION, "callbackUrl": URL})
    assert reply.status_code == 200
    job = (await api.get(reply.json()["pollUrl"])).json()
    assert job["callback"] == WAITING
    assert (await api.get(JOBS)).json()["jobs"] == [job]
    assert "token=secret" not in json.dumps(job)
    assert stored_urls(database_url) == [URL]


async def test_a_job_without_one_says_null(api: httpx.AsyncClient, database_url: str) -> None:
    """The ``callback`` of a job without a callback is null."""
    reply = await api.post(f"{JOBS}/verify", json=QUESTION)
    assert (await api.get(reply.json()["pollUrl"])).json()["callback"] is None
    assert stored_urls(database_url) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        7,
        "receiver.example/hook",
        "ftp://receiver.example/",
        "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o",
        "https://user:password@receiver.example/",
        "https://8.8.8.8:8443/",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest",
        "http://0x7f.1/",
        "http://10.0.0.1/",
        "https://receiver.example/a b",
        "https://receiver.example/\ud800",
        "https://receiver.example/" + "a" * 2048,
    ],
)
async def test_a_forbidden_url_is_refused_by_its_text(api: httpx.AsyncClient, database_url: str, url: object) -> None:
    """A forbidden callback URL gives 400 with the field's name and no job."""
    reply = await api.post(f"{JOBS}/verify", content=json.dumps({**QUESTION, "callbackUrl": url}), headers=AS_JSON)
    assert reply.status_code == 400
    [fault] = reply.json()["errors"]
    assert fault["field"] == "callbackUrl"
    assert "expected" in fault["message"] or "Unicode" in fault["message"]
    assert "password" not in reply.text.replace("user and password", "")
    assert stored_urls(database_url) == []


AS_JSON = {"Content-Type": "application/json"}


async def test_what_the_operator_opened_may_be_called(api: httpx.AsyncClient, database_url: str) -> None:
    """``FETCH_ALLOW_PRIVATE`` applies to callbacks, on any port."""
    reply = await api.post(f"{JOBS}/verify", json={**QUESTION, "callbackUrl": "http://10.1.2.3:8080/hook#part"})
    assert reply.status_code == 200
    assert stored_urls(database_url) == ["http://10.1.2.3:8080/hook"]


async def test_a_shared_job_has_no_callback(api: httpx.AsyncClient) -> None:
    """A request with ``share`` and a callback gives 400, because a shared job may belong to another caller."""
    reply = await api.post(f"{JOBS}/verify", json={**QUESTION, "share": True, "callbackUrl": URL})
    assert reply.status_code == 400
    assert [fault["field"] for fault in reply.json()["errors"]] == ["callbackUrl"]
    assert (await api.post(f"{JOBS}/verify", json={**QUESTION, "share": False, "callbackUrl": URL})).status_code == 200


async def test_without_a_secret_a_callback_is_refused(serve_api: ServeApi, database_url: str) -> None:
    """Without a webhook secret, a callback gives 400, because no callback is sent unsigned."""
    async with serve_api(database_url=database_url) as api:
        reply = await api.post(f"{JOBS}/verify", json={**QUESTION, "callbackUrl": URL})
        assert reply.status_code == 400
        [fault] = reply.json()["errors"]
        assert fault["field"] == "callbackUrl"
        assert "WEBHOOK_SECRET" in fault["message"]
        assert (await api.post(f"{JOBS}/verify", json=QUESTION)).status_code == 200


async def test_a_key_stands_for_one_callback(api: httpx.AsyncClient, database_url: str) -> None:
    """Under one Idempotency-Key the same request with another callback gives 422."""
    key = {"Idempotency-Key": "order-4711"}
    first = await api.post(f"{JOBS}/verify", json={**QUESTION, "callbackUrl": URL}, headers=key)
    again = await api.post(f"{JOBS}/verify", json={**QUESTION, "callbackUrl": URL}, headers=key)
    assert first.json() == again.json()
    for other in ({"callbackUrl": "https://other.example/"}, {}):
        reply = await api.post(f"{JOBS}/verify", json={**QUESTION, **other}, headers=key)
        assert (reply.status_code, reply.json()["code"]) == (422, "idempotency.conflict")
    assert stored_urls(database_url) == [URL]
