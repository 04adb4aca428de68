"""Test submissions: the reply of the contract, and a row for any worker."""

import hashlib
import re
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from tests.web.serving import JOBS, ServeApi

CONTENT = b"some bytes of a file"
CONTENT_HASH = "0x" + hashlib.sha256(CONTENT).hexdigest()
FIELDS = {
    "registryAddress": "0x" + "aB" * 20,
    "manifestURI": "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o",
}


async def rows(database_url: str) -> list[dict[str, Any]]:
    async with await psycopg.AsyncConnection.connect(database_url, row_factory=dict_row) as connection:
        cursor = await connection.execute('SELECT * FROM "VerificationJob" ORDER BY "createdAt", id')
        return await cursor.fetchall()


@pytest.mark.parametrize(
    ("kind", "message"),
    [("verify", "Verification job queued successfully"), ("proof", "Proof generation job queued successfully")],
)
async def test_an_upload_becomes_a_queued_job(
    api: httpx.AsyncClient, database_url: str, kind: str, message: str
) -> None:
    """An upload gives exactly the reply of the contract, and the row is stored before the reply."""
    reply = await api.post(f"{JOBS}/{kind}", data=FIELDS, files={"file": ("photo.jpg", CONTENT)})
    body = reply.json()
    job_id = body["jobId"]
    assert reply.status_code == 200
    assert body == {
        "mode": "async",
        "jobId": job_id,
        "status": "queued",
        "message": message,
        "pollUrl": f"{JOBS}/{job_id}",
    }
    assert reply.headers["location"] == f"{JOBS}/{job_id}"
    assert UUID(job_id).version == 7
    (row,) = await rows(database_url)
    assert (str(row["id"]), row["type"], row["status"]) == (job_id, kind, "queued")
    assert (row["contentHash"], row["manifestUri"]) == (CONTENT_HASH, FIELDS["manifestURI"])
    assert (row["registryAddress"], row["fileName"]) == (FIELDS["registryAddress"], "photo.jpg")
    assert (row["rpcUrl"], row["chainId"]) == (None, None)


async def test_fields_may_come_before_or_after_the_file(api: httpx.AsyncClient, database_url: str) -> None:
    """The order of the form's parts does not matter."""

    def form(*parts: tuple[str, bytes]) -> bytes:
        lines = b"".join(
            b"--b\r\nContent-Disposition: form-data; " + name.encode() + b"\r\n\r\n" + value + b"\r\n"
            for name, value in parts
        )
        return lines + b"--b--\r\n"

    file = ('name="file"; filename="x"', CONTENT)
    registry, manifest = ((f'name="{name}"', value.encode()) for name, value in FIELDS.items())
    for parts in [(file, registry, manifest), (registry, file, manifest), (manifest, registry, file)]:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        reply = await api.post(f"{JOBS}/verify", content=form(*parts), headers=headers)
        assert reply.status_code == 200
    assert [row["contentHash"] for row in await rows(database_url)] == [CONTENT_HASH] * 3


async def test_a_hash_is_as_good_as_its_file(api: httpx.AsyncClient, database_url: str) -> None:
    """A hash works in place of the file, by form or JSON, in upper or lower case, with optional chain and file name."""
    loud = CONTENT_HASH.upper().replace("X", "x")
    by_form = await api.post(
        f"{JOBS}/verify", files={"contentHash": (None, loud), **{k: (None, v) for k, v in FIELDS.items()}}
    )
    more = {"contentHash": loud, "chainId": 84532, "fileName": "photo.jpg", "rpcUrl": None, "colour": ["ignored"]}
    by_json = await api.post(f"{JOBS}/proof", json={**FIELDS, **more})
    assert (by_form.status_code, by_json.status_code) == (200, 200)
    first, second = await rows(database_url)
    assert first["contentHash"] == second["contentHash"] == CONTENT_HASH
    assert (second["type"], second["chainId"], second["fileName"]) == ("proof", 84532, "photo.jpg")


async def test_an_rpc_endpoint_is_chosen_without_its_credentials_leaving(
    serve_api: ServeApi, database_url: str
) -> None:
    """A configured endpoint may be named with its credentials; row and reply show the credentials redacted."""
    url = "https://me:hidden@rpc.example/v1?apikey=hidden"
    async with serve_api(database_url=database_url, rpc_allowed_urls=(url,)) as api:
        reply = await api.post(f"{JOBS}/verify", json={**FIELDS, "contentHash": CONTENT_HASH, "rpcUrl": url})
        shown = await api.get(reply.headers["location"])
    (row,) = await rows(database_url)
    assert row["rpcUrl"] == shown.json()["rpcUrl"] == "https://***@rpc.example/v1?apikey=***"
    assert "hidden" not in reply.text + shown.text


async def test_every_reply_has_a_correlation_id(api: httpx.AsyncClient) -> None:
    """A plain correlation id of the client is kept; a missing or unsafe id is replaced."""
    kept = await api.get("/livez", headers={"X-Correlation-ID": "req-1.A_z"})
    assert kept.headers["x-correlation-id"] == "req-1.A_z"
    for sent in (b"", b"a b", b"x" * 65, "ä".encode()):
        reply = await api.get("/livez", headers=[(b"X-Correlation-ID", sent)] if sent else [])
        assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-correlation-id"])
