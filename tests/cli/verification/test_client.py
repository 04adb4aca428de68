"""Test ``iidq verify`` with a busy, briefly unavailable or foreign service."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from iidq.cli.api_client import JobClient, NoAnswer

JOB = {"jobId": "j", "status": "completed", "progress": 100, "result": {"status": "OK"}}
FIELDS: dict[str, Any] = {"json": {"contentHash": "0x"}}


class Script:
    """A service without events. Each request gets the next reply; an exception is a broken connection."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers: Iterator[httpx.Response | Exception] = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(404)
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(script: Callable[[httpx.Request], httpx.Response], timeout_seconds: float = 20, **options: Any) -> JobClient:
    arguments = {"server": "http://service", "api_key": None, **options}
    return JobClient(**arguments, timeout_seconds=timeout_seconds, transport=httpx.MockTransport(script))


def busy(status: int, retry_after: str = "0") -> httpx.Response:
    return httpx.Response(status, json={"error": "later"}, headers={"Retry-After": retry_after})


async def test_a_busy_service_is_asked_again_under_the_same_key() -> None:
    """The client waits after 429 and 503, and the repeated submission cannot create a second job."""
    script = Script(busy(429), busy(503), httpx.Response(200, json=JOB))
    async with client(script) as service:
        assert await service.send("verify", lambda: FIELDS) == JOB
    keys = {request.headers["idempotency-key"] for request in script.requests}
    assert (len(script.requests), len(keys)) == (3, 1)


@pytest.mark.parametrize("retry_after", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
async def test_patience_ends_with_the_deadline(retry_after: str) -> None:
    """The client never waits beyond its deadline, even if ``Retry-After`` asks for an hour."""
    async with client(Script(busy(503, retry_after))) as service:
        with pytest.raises(NoAnswer, match=r"gave up after 20 s: later"):
            await service.send("verify", lambda: FIELDS)


@pytest.mark.parametrize("retry_after", ["0", "-1", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_a_strange_retry_after_is_no_fault(retry_after: str) -> None:
    """A ``Retry-After`` in the past or without meaning leads to a short wait."""
    script = Script(busy(503, retry_after), httpx.Response(200, json=JOB))
    async with client(script) as service:
        assert await service.send("verify", lambda: FIELDS) == JOB


async def test_a_connection_that_breaks_while_following_is_made_anew() -> None:
    """A restart of the service in the middle costs time, not the verdict."""
    queued = httpx.Response(200, json={**JOB, "status": "queued", "progress": 0})
    script = Script(queued, httpx.ReadError("gone"), queued, httpx.Response(200, json=JOB))
    seen: list[str] = []
    async with client(script, reconnect_seconds=0.0) as service:
        assert await service.follow("j", lambda job: seen.append(job["status"])) == JOB
    assert seen == ["queued", "queued", "completed"]


async def test_a_service_that_was_never_there_is_told_at_once() -> None:
    """A service unreachable at the first request is an immediate error, because the URL may be wrong."""
    async with client(Script(httpx.ConnectError("refused"))) as service:
        with pytest.raises(NoAnswer, match=r"http://service cannot be reached \(refused\)"):
            await service.send("verify", lambda: FIELDS)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(401, json={"error": "Unauthorized"}), "IIDQ_API_KEY"),
        (httpx.Response(404, json={"error": "Job not found"}), r"Job not found \(HTTP 404\)"),
        (
            httpx.Response(400, json={"error": "x", "errors": [{"field": "a", "message": "b"}, 7]}),
            r"a: b \(HTTP 400\)",
        ),
        (httpx.Response(200, text="<html>"), "HTTP 200, but not as iidq does"),
        (httpx.Response(200, json=[]), "HTTP 200, but not as iidq does"),
        (httpx.Response(200, content=b"[" * 100_000), "not as iidq does"),
        (httpx.Response(302, headers={"Location": "/login"}), "HTTP 302, but not as iidq does"),
        (httpx.Response(500, json={"error": {"x": 1}}), "HTTP 500"),
    ],
)
async def test_any_other_answer_is_told(answer: httpx.Response, said: str) -> None:
    """A refusal is reported in the service's words, a foreign reply by its status; neither counts as a verdict."""
    async with client(Script(answer)) as service:
        with pytest.raises(NoAnswer, match=said):
            await service.send("verify", lambda: FIELDS)


async def test_the_key_goes_along() -> None:
    """A given key is sent with every request; without a key no header is sent."""
    script = Script(httpx.Response(200, json=JOB), httpx.Response(200, json=JOB))
    async with client(script, api_key="schlüssel") as service:
        await service.send("verify", lambda: FIELDS)
    async with client(script) as service:
        await service.send("verify", lambda: FIELDS)
    sent = [dict(request.headers.raw).get(b"x-api-key") for request in script.requests]
    assert sent == ["schlüssel".encode(), None]
    assert json.loads(script.requests[0].content) == FIELDS["json"]


def stream(*events: bytes) -> httpx.Response:
    """Return a stream with these events and an early end."""
    return httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, content=b"retry: 2000\n\n" + b"".join(events)
    )


def event(**state: Any) -> bytes:
    return b"id: 1\nevent: progress\ndata: " + json.dumps({**JOB, **state}).encode() + b"\n\n"


class Streaming:
    """A service with one stream after the other. Polling is a fault."""

    def __init__(self, *streams: httpx.Response | Exception) -> None:
        self._streams = iter(streams)
        self.polled = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            self.polled += 1
            return httpx.Response(200, json=JOB)
        answer = next(self._streams)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_job_is_followed_by_its_events() -> None:
    """The client sees each state by events without polling, and reopens a broken stream."""
    script = Streaming(
        stream(event(status="processing", progress=10), event(status="processing", progress=50)),
        stream(event(status="processing", progress=90), event()),
    )
    seen: list[int] = []
    async with client(script, reconnect_seconds=0.0) as service:
        assert await service.follow("j", lambda job: seen.append(job["progress"])) == JOB
    assert (seen, script.polled) == ([10, 50, 90, 100], 0)


class _Silent(httpx.AsyncByteStream):
    """The reply of a proxy with full buffering: headers and no body."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503),
        httpx.Response(200, text="<html>"),
        httpx.ConnectError("reset"),
        stream(),
        stream(b"data: " + b"[" * 100_000 + b"\n\n"),
        stream(b"data: 7\n\n"),
        httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=_Silent()),
    ],
    ids=["refused", "page", "reset", "empty", "deep", "no job", "held back"],
)
async def test_where_events_do_not_come_through_the_job_is_polled(answer: httpx.Response | Exception) -> None:
    """The verdict arrives by polling if a proxy or an older service spoils the stream."""
    script = Streaming(answer)
    async with client(script, first_event_seconds=0.1) as service:
        assert await service.follow("j", lambda _: None) == JOB
    assert script.polled == 1


async def test_a_batch_is_one_request() -> None:
    """A batch is one request with ids in order; a reply with a wrong number of ids is refused."""
    script = Script(httpx.Response(200, json={"jobIds": ["a", "b"]}), httpx.Response(200, json={"jobIds": ["a"]}))
    async with client(script) as service:
        assert await service.send_batch([{}, {}]) == ["a", "b"]
        with pytest.raises(NoAnswer, match="not as iidq does"):
            await service.send_batch([{}, {}])
    assert json.loads(script.requests[0].content) == {"jobs": [{}, {}]}


async def test_a_wrong_key_is_told_from_a_missing_one() -> None:
    """The error for 401 distinguishes a missing key from a wrong key, and names the variable."""
    for api_key, said in ((None, "asks for a key"), ("wrong", "does not take this key")):
        async with client(Script(httpx.Response(401, json={})), api_key=api_key) as service:
            with pytest.raises(NoAnswer, match=f"{said}.*IIDQ_API_KEY"):
                await service.get("/stats")
