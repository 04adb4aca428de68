"""A client of a running service: one job sent and followed to its end, whatever happens on the way."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

from iidq.json_depth import is_too_deep

_JOBS: Final = "/api/verification-jobs"
_ENDED: Final = {"completed", "failed", "cancelled"}
_ANSWER_SECONDS = 60.0
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS, _POLL_GROWTH = 0.1, 2.0, 1.3
_DEFAULT_PATIENCE_SECONDS = 2.0

Body = dict[str, Any]


class NotFoundOut(Exception):
    """There is no verdict; the text says why, and what to do."""


class JobClient:
    """Talks to ``server`` until ``timeout_seconds`` have passed.

    A service that is busy or briefly away is asked again. Sending again is harmless: every submission has its own
    ``Idempotency-Key``. All methods raise :class:`NotFoundOut`.
    """

    def __init__(
        self,
        server: str,
        api_key: str | None,
        *,
        timeout_seconds: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._server = server.rstrip("/")
        headers = {"x-api-key": api_key} if api_key else {}
        try:
            self._http = httpx.Client(
                base_url=self._server, headers=headers, timeout=_ANSWER_SECONDS, transport=transport
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise NotFoundOut(f"--server {server} cannot be used ({error}); expected http://host:port") from None
        self._timeout_seconds = timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._http.close()

    def job_url(self, job_id: str) -> str:
        """Where anybody can see the job."""
        return f"{self._server}{_JOBS}/{quote(job_id, safe='')}"

    def send(self, kind: str, form: Callable[[], dict[str, Any]]) -> Body:
        """Submit a job; ``form`` makes httpx's arguments, anew each time. Returns the service's reply."""
        key = {"Idempotency-Key": uuid4().hex}
        return self._ask(lambda: self._http.post(f"{_JOBS}/{kind}", headers=key, **form()))

    def follow(self, job_id: str, report: Callable[[Body], None]) -> Body:
        """The job once it has ended; ``report`` sees it at each look."""
        url = f"{_JOBS}/{quote(job_id, safe='')}"
        pause_seconds = _FIRST_POLL_SECONDS
        while True:
            job = self._ask(lambda: self._http.get(url))
            report(job)
            if job.get("status") in _ENDED:
                return job
            self._wait(pause_seconds, f"no end yet; the job goes on: {self.job_url(job_id)}")
            pause_seconds = min(pause_seconds * _POLL_GROWTH, _LONGEST_POLL_SECONDS)

    def _ask(self, exchange: Callable[[], httpx.Response]) -> Body:
        while True:
            try:
                response = exchange()
            except httpx.UnsupportedProtocol:
                raise NotFoundOut(f"--server {self._server} cannot be used; expected http://host:port") from None
            except httpx.TransportError as error:
                said = f"{self._server} cannot be reached ({str(error) or type(error).__name__})"
                if not self._answered:
                    raise NotFoundOut(f"{said}; is `iidq serve` running there? --server names another") from None
                self._wait(_DEFAULT_PATIENCE_SECONDS, said)
                continue
            self._answered = True
            if response.status_code not in (429, 503):
                return self._body(response)
            self._wait(_patience_seconds(response), self._refusal(response))

    def _wait(self, seconds: float, reason: str) -> None:
        if time.monotonic() + seconds > self._deadline:
            raise NotFoundOut(f"gave up after {self._timeout_seconds:g} s: {reason}")
        time.sleep(seconds)

    def _body(self, response: httpx.Response) -> Body:
        body = _json_object(response)
        if response.is_success and body:
            return body
        raise NotFoundOut(self._refusal(response))

    def _refusal(self, response: httpx.Response) -> str:
        if response.status_code == 401:
            return f"{self._server} asks for a key: --api-key, or IIDQ_API_KEY"
        body = _json_object(response)
        faults = [f"{fault.get('field')}: {fault.get('message')}" for fault in _objects(body.get("errors"))]
        said = "; ".join(faults) or body.get("error")
        if not isinstance(said, str):
            return f"{self._server} answered HTTP {response.status_code}, and not as iidq does"
        return f"{said} (HTTP {response.status_code})"


def _json_object(response: httpx.Response) -> Body:
    if is_too_deep(response.content):
        return {}
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _objects(value: object) -> list[Body]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _patience_seconds(response: httpx.Response) -> float:
    """``Retry-After`` in either of its forms (RFC 9110, section 10.2.3)."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return max(float(text[:9]), _FIRST_POLL_SECONDS)
    try:
        seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return _DEFAULT_PATIENCE_SECONDS
    return max(seconds, _FIRST_POLL_SECONDS)
