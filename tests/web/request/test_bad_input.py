"""Test replies to bad input: a status, the field and the expected value, all without the database."""

from typing import Any

import httpx
import pytest

from tests.web.serving import JOBS, ServeApi

FILE = {"file": ("photo.jpg", b"x")}
FIELDS = {
    "registryAddress": "0x" + "ab" * 20,
    "manifestURI": "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o",
}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def fields_at_fault(reply: httpx.Response) -> set[str]:
    assert reply.status_code == 400, reply.text
    body = reply.json()
    assert body.keys() == {"error", "errors"}
    assert body["error"] == "Validation failed"
    assert all(fault.keys() == {"field", "message"} and fault["message"] for fault in body["errors"])
    named = [fault["field"] for fault in body["errors"]]
    assert len(named) == len(set(named))
    return set(named)


@pytest.mark.parametrize("path", [f"{JOBS}/verify", f"{JOBS}/proof", "/api/verify", "/api/proof"])
async def test_all_faults_of_a_form_are_named_at_once(lonely_api: httpx.AsyncClient, path: str) -> None:
    """Each of the four submit endpoints reports every wrong or missing field in one reply."""
    missing = await lonely_api.post(path, files={"unknown": (None, "x")})
    assert fields_at_fault(missing) == {"file", "registryAddress", "manifestURI"}
    wrong = {"registryAddress": "0x12", "manifestURI": "ftp://x/y", "rpcUrl": "", "chainId": "0"}
    bad = await lonely_api.post(path, data=wrong, files={"file": ("../photo.jpg", b"x")})
    assert fields_at_fault(bad) == {"file", *wrong}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"registryAddress": "0x" + "ab" * 20 + "\n"}, "registryAddress"),
        ({"manifestURI": "http://169.254.169.254/latest"}, "manifestURI"),
        ({"manifestURI": "https://me:secret@example.com/m.json"}, "manifestURI"),
        ({"manifestURI": "https://example.com:22/"}, "manifestURI"),
        ({"manifestURI": "https://example.com/\x00"}, "manifestURI"),
        ({"rpcUrl": "http://127.0.0.1:8545"}, "rpcUrl"),
        ({"rpcUrl": ""}, "rpcUrl"),
        ({"contentHash": "0x12"}, "contentHash"),
        ({"contentHash": "0x" + "0" * 64}, "contentHash"),
    ],
)
async def test_a_wrong_field_is_named(lonely_api: httpx.AsyncClient, changes: dict[str, str], field: str) -> None:
    """A wrong field gives one error entry, and a possible secret is not repeated."""
    reply = await lonely_api.post(f"{JOBS}/verify", data={**FIELDS, **changes}, files=FILE)
    assert fields_at_fault(reply) == {field}
    assert "secret" not in reply.text


@pytest.mark.parametrize("name", ["a..b", "a/b", "a\\b", "..", "a\x00b", "C:\\x\\y.jpg", "x" * 300])
async def test_a_file_name_that_leads_elsewhere_is_refused(lonely_api: httpx.AsyncClient, name: str) -> None:
    """A dangerous file name is a fault of the field ``file``, in any escaping."""
    reply = await lonely_api.post(f"{JOBS}/verify", data=FIELDS, files={"file": (name, b"x")})
    assert fields_at_fault(reply) == {"file"}


@pytest.mark.parametrize(
    "json",
    [
        {},
        {"contentHash": 1},
        {"registryAddress": None},
        {"manifestURI": {}},
        {"rpcUrl": ["x"]},
        {"chainId": True},
    ],
)
async def test_json_is_checked_by_the_same_rules(lonely_api: httpx.AsyncClient, json: dict[str, Any]) -> None:
    """A JSON value of another type than text is a fault of its field."""
    good = {**FIELDS, "contentHash": "0x" + "ab" * 32}
    reply = await lonely_api.post(f"{JOBS}/verify", json={**good, **json} if json else {})
    assert fields_at_fault(reply) == (set(json) or {"file", "registryAddress", "manifestURI"})


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415),
        ({"Content-Type": "text/plain"}, b"x", 415),
        ({}, b"", 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"x", 415),
        ({"Content-Type": "multipart/form-data"}, b"x", 400),
        ({"Content-Type": 'multipart/form-data; boundary="'}, b"x", 400),
        (FORM, b"", 400),
        (FORM, b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\ncut", 400),
        (FORM, b"--wrong--\r\n", 400),
        ({"Content-Type": "application/json"}, b"", 400),
        ({"Content-Type": "application/json"}, b"[]", 400),
        ({"Content-Type": "application/json"}, b'{"a":', 400),
        ({"Content-Type": "application/json"}, b'{"a":1,"a":2}', 400),
        ({"Content-Type": "application/json"}, b'"\xff"', 400),
        ({"Content-Type": "application/json"}, b"[" * 60_000, 400),
        ({"Content-Type": "application/json"}, b" " * 70_000, 413),
    ],
)
async def test_a_body_of_the_wrong_form_is_refused(
    lonely_api: httpx.AsyncClient, headers: dict[str, str], content: bytes, status: int
) -> None:
    """A body of the wrong form gives 415 (type), 400 (syntax) or 413 (length), as JSON with the correlation id."""
    reply = await lonely_api.post(f"{JOBS}/verify", headers=headers, content=content)
    assert reply.status_code == status
    assert reply.json().keys() == {"error", "correlationId"}
    assert reply.json()["correlationId"] == reply.headers["x-correlation-id"]


@pytest.mark.parametrize(
    ("query", "field", "named"),
    [
        ("status=done", "status", "queued, processing, completed, failed, cancelled"),
        ("status=queued%00", "status", "queued"),
        ("status=queued&status=failed", "status", "more than once"),
        ("type=other", "type", "verify, proof"),
        ("contentHash=0x12", "contentHash", "64 hex"),
        ("limit=0", "limit", "1 to 500"),
        ("limit=501", "limit", "1 to 500"),
        ("limit=abc", "limit", "1 to 500"),
        ("limit=%D9%A3", "limit", "1 to 500"),
        ("limit=1e2", "limit", "1 to 500"),
        ("offset=-1", "offset", "0 to"),
        ("offset=99999999999999999999", "offset", "0 to"),
        ("cursor=nonsense", "cursor", "nextCursor"),
        ("cursor=%00%FF", "cursor", "nextCursor"),
    ],
)
async def test_a_wrong_query_names_the_allowed_values(
    lonely_api: httpx.AsyncClient, query: str, field: str, named: str
) -> None:
    """Filters and pages are checked as strictly as fields."""
    reply = await lonely_api.get(f"{JOBS}?{query}")
    assert fields_at_fault(reply) == {field}
    assert named in reply.text


@pytest.mark.parametrize("job_id", ["%7E1234567890", "null%20", "%00", "%F0%9F%98%80", "0" * 256, "..%2f", "a" * 5000])
async def test_what_is_no_job_id_is_not_found(lonely_api: httpx.AsyncClient, job_id: str) -> None:
    """A text that cannot be a job id gives 404 without the database."""
    reply = await lonely_api.get(f"{JOBS}/{job_id}")
    assert reply.status_code == 404
    if "%2f" not in job_id:
        assert reply.json() == {"error": "Job not found"}


async def test_unknown_routes_and_methods_answer_in_json(lonely_api: httpx.AsyncClient) -> None:
    """404 and 405 have the common JSON form, and a path with two final slashes is not redirected."""
    nowhere = await lonely_api.get("/nowhere")
    wrong_method = await lonely_api.put(f"{JOBS}/verify")
    slash = await lonely_api.post(f"{JOBS}/verify//", data=FIELDS, files=FILE)
    assert [reply.status_code for reply in (nowhere, wrong_method, slash)] == [404, 405, 404]
    assert wrong_method.headers["allow"] == "POST"
    for reply in (nowhere, wrong_method, slash):
        assert reply.json().keys() == {"error", "correlationId"}


async def test_an_unexpected_error_tells_nothing_but_its_id(
    serve_api: ServeApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An internal error gives 500 with the correlation id, without traceback, type or text of the error."""

    def broken(*_: object) -> None:
        raise RuntimeError("SELECT secret FROM table")

    monkeypatch.setattr("iidq.web.routes.jobs.find_job_id", broken)
    async with serve_api() as api:
        reply = await api.get(f"{JOBS}/x")
    assert reply.status_code == 500
    assert reply.json() == {"error": "Internal Server Error", "correlationId": reply.headers["x-correlation-id"]}
