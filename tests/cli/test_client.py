"""How ``iidq verify`` bears a service that is busy, away for a moment, or no iidq at all."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from iidq.cli.client import JobClient, NotFoundOut

JOB = {"jobId": "j", "status": "completed", "progress": 100, "result": {"status": "OK"}}
FIELDS: dict[str, Any] = {"json": {"contentHash": "0x"}}


class Script:
    """A service that gives these answers, one after the other; an exception is a broken connection."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers: Iterator[httpx.Response | Exception] = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
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


def test_a_busy_service_is_asked_again_under_the_same_key() -> None:
    """429 and 503 are waited out; the submission that is sent again cannot make a second job."""
    script = Script(busy(429), busy(503), httpx.Response(200, json=JOB))
    with client(script) as service:
        assert service.send("verify", lambda: FIELDS) == JOB
    keys = {request.headers["idempotency-key"] for request in script.requests}
    assert (len(script.requests), len(keys)) == (3, 1)


@pytest.mark.parametrize("retry_after", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_patience_ends_with_the_deadline(retry_after: str) -> None:
    """A service that asks for an hour is not waited for when nobody has an hour."""
    with (
        client(Script(busy(503, retry_after))) as service,
        pytest.raises(NotFoundOut, match=r"gave up after 20 s: later"),
    ):
        service.send("verify", lambda: FIELDS)


@pytest.mark.parametrize("retry_after", ["0", "-1", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_strange_retry_after_is_no_fault(retry_after: str) -> None:
    """Past dates and nonsense are answered with a short wait of our own."""
    script = Script(busy(503, retry_after), httpx.Response(200, json=JOB))
    with client(script) as service:
        assert service.send("verify", lambda: FIELDS) == JOB


def test_a_connection_that_breaks_while_following_is_made_anew() -> None:
    """A restart of the service in the middle costs time, not the verdict."""
    queued = httpx.Response(200, json={**JOB, "status": "queued", "progress": 0})
    script = Script(queued, httpx.ReadError("gone"), queued, httpx.Response(200, json=JOB))
    seen: list[str] = []
    with client(script) as service:
        assert service.follow("j", lambda job: seen.append(job["status"])) == JOB
    assert seen == ["queued", "queued", "completed"]


def test_a_service_that_was_never_there_is_told_at_once() -> None:
    """Before the first answer nobody waits for a server that may be named wrongly."""
    with (
        client(Script(httpx.ConnectError("refused"))) as service,
        pytest.raises(NotFoundOut, match=r"http://service cannot be reached \(refused\)"),
    ):
        service.send("verify", lambda: FIELDS)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(401, json={"error": "Unauthorized"}), "IIDQ_API_KEY"),
        (httpx.Response(404, json={"error": "Job not found"}), r"Job not found \(HTTP 404\)"),
        (
            httpx.Response(400, json={"error": "x", "errors": [{"field": "a", "message": "b"}, 7]}),
            r"a: b \(HTTP 400\)",
        ),
        (httpx.Response(200, text="<html>"), "HTTP 200, and not as iidq does"),
        (httpx.Response(200, json=[]), "HTTP 200, and not as iidq does"),
        (httpx.Response(200, content=b"[" * 100_000), "not as iidq does"),
        (httpx.Response(302, headers={"Location": "/login"}), "HTTP 302, and not as iidq does"),
        (httpx.Response(500, json={"error": {"x": 1}}), "HTTP 500"),
    ],
)
def test_any_other_answer_is_told(answer: httpx.Response, said: str) -> None:
    """Refusals in the service's words, strangers by their status; nothing is taken for a verdict."""
    with client(Script(answer)) as service, pytest.raises(NotFoundOut, match=said):
        service.send("verify", lambda: FIELDS)


def test_the_key_goes_along() -> None:
    """A given key is sent with every request, and none without one."""
    script = Script(httpx.Response(200, json=JOB), httpx.Response(200, json=JOB))
    with client(script, api_key="secret") as service:
        service.send("verify", lambda: FIELDS)
    with client(script) as service:
        service.send("verify", lambda: FIELDS)
    assert [request.headers.get("x-api-key") for request in script.requests] == ["secret", None]
    assert json.loads(script.requests[0].content) == FIELDS["json"]
