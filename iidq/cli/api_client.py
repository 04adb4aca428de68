"""HTTP client of a running service: send jobs and follow each to the end, through restarts and busy periods."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx
from pydantic_core import from_json

from iidq.cli.event_stream import EventStreamReader, EventStreamTooLong
from iidq.observability.redaction import redact_url

JOBS_PATH: Final = "/api/verification-jobs"
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
_REPLY_SECONDS: Final = 60.0
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS, _POLL_GROWTH = 0.1, 2.0, 1.3
_DEFAULT_RETRY_SECONDS = 2.0
_SILENCE_SECONDS = 40.0
"""Longest silence of an event stream. The service sends a comment every 15 s."""
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Body = dict[str, Any]


class NoAnswer(Exception):
    """No verdict, or no reply; the text gives the reason and the remedy."""


class Refused(NoAnswer):
    """The service replied with an error status."""

    def __init__(self, text: str, status: int, faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        """The HTTP status, 400 or higher."""
        self.faults = tuple(faults)
        """Field and message of each fault that the service named; empty for most statuses."""


class JobClient:
    """Client of the service at ``server``; each call takes at most ``timeout_seconds``.

    A call to a busy or briefly absent service is repeated. Repeating is harmless: every submission has an
    ``Idempotency-Key``. All methods raise :class:`NoAnswer`.
    """

    def __init__(
        self,
        server: str,
        api_key: str | None,
        *,
        timeout_seconds: float,
        transport: httpx.AsyncBaseTransport | None = None,
        # A service sends the present state at once. Where nothing comes, a proxy holds events back.
        first_event_seconds: float = 5.0,
        reconnect_seconds: float = 1.0,
    ) -> None:
        self.server = redact_url(server.rstrip("/"))
        """The URL without credentials, for messages."""
        self._has_key = bool(api_key)
        if api_key and not api_key.isprintable():
            # httpx would quote the key in its error.
            raise NoAnswer("the API key cannot be used; expected one line of printable characters")
        try:
            self._http = httpx.AsyncClient(
                base_url=server.rstrip("/"),
                # Bytes, because httpx encodes text as ASCII.
                headers={b"x-api-key": api_key.encode()} if api_key else None,
                timeout=_REPLY_SECONDS,
                transport=transport,
                # HTTP_PROXY names a proxy that cannot reach this machine's loopback.
                trust_env=urlsplit(server).hostname not in _LOOPBACK_HOSTS,
            )
        except (httpx.InvalidURL, ValueError):
            raise _unusable_url() from None
        self._timeout_seconds = timeout_seconds
        self._first_event_seconds = first_event_seconds
        self._reconnect_seconds = reconnect_seconds
        self._reached = False
        self.restart_clock()

    def restart_clock(self) -> None:
        """Grant the whole ``timeout_seconds`` again."""
        self._deadline = time.monotonic() + self._timeout_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def job_url(self, job_id: str) -> str:
        """Return the URL of the job."""
        return self.server + _job_path(job_id)

    async def send(self, kind: str, form: Callable[[], dict[str, Any]]) -> Body:
        """Submit a job and return the reply; ``form`` makes httpx's arguments for each attempt."""
        key = {"Idempotency-Key": uuid4().hex}
        return await self._request(lambda: self._http.post(f"{JOBS_PATH}/{kind}", headers=key, **form()))

    async def send_batch(self, jobs: Sequence[Mapping[str, object]]) -> list[str]:
        """Submit up to 1,000 jobs by hash, all or none; return the ids, in order."""
        reply = await self.send("batch", lambda: {"json": {"jobs": list(jobs)}})
        job_ids = reply.get("jobIds")
        if not isinstance(job_ids, list) or len(job_ids) != len(jobs):
            raise self.foreign_reply()
        return [str(job_id) for job_id in job_ids]

    async def get(self, path: str = "", **query: object) -> Body:
        """Return the reply to GET of ``path`` below the jobs' path; parameters with None are left out."""
        params = {name: str(value) for name, value in query.items() if value is not None}
        return await self._request(lambda: self._http.get(JOBS_PATH + path, params=params))

    async def post(self, path: str, body: Mapping[str, object] | None = None) -> Body:
        """Return the reply to POST of ``path`` below the jobs' path."""
        return await self._request(lambda: self._http.post(JOBS_PATH + path, json=body))

    async def probe(self, path: str) -> tuple[int, Body]:
        """Return status and JSON object (empty if there is none) of a single GET of ``path``, for any status."""
        try:
            response = await self._http.get(path)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise _unusable_url() from None
        except httpx.TransportError as error:
            raise NoAnswer(self._unreachable(error)) from None
        return response.status_code, _object(response.content)

    async def follow(self, job_id: str, report: Callable[[Body], None]) -> Body:
        """Return the ended job; call ``report`` with each state on the way.

        Reads events, and polls where events do not get through.
        """
        return await self._follow_events(job_id, report) or await self._poll(job_id, report)

    async def _follow_events(self, job_id: str, report: Callable[[Body], None]) -> Body | None:
        path = f"{_job_path(job_id)}/events"
        state: Body = {}
        try:
            while True:
                state = {}
                # A stream that ends before the job (a restart, a proxy's limit) is opened again if it sent an event.
                with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
                    async with asyncio.timeout(self._first_event_seconds) as limit:
                        async with self._http.stream("GET", path, timeout=None) as response:
                            if not _is_event_stream(response):
                                return None
                            self._reached = True
                            reader = EventStreamReader()
                            async for chunk in response.aiter_bytes():
                                for event in reader.feed(chunk):
                                    state = _object(event.data)
                                    report(state)
                                    if state.get("status") in ENDED:
                                        return state
                                silence = _SILENCE_SECONDS if state else self._first_event_seconds
                                limit.reschedule(asyncio.get_running_loop().time() + min(silence, self._left()))
                if not state or self._left() < self._first_event_seconds:
                    return None
                await asyncio.sleep(self._reconnect_seconds)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, EventStreamTooLong):
            return None

    async def _poll(self, job_id: str, report: Callable[[Body], None]) -> Body:
        pause_seconds = _FIRST_POLL_SECONDS
        while True:
            job = await self._request(lambda: self._http.get(_job_path(job_id)))
            report(job)
            if job.get("status") in ENDED:
                return job
            await self._wait(pause_seconds, f"no end yet; the job goes on: {self.job_url(job_id)}")
            pause_seconds = min(pause_seconds * _POLL_GROWTH, _LONGEST_POLL_SECONDS)

    async def _request(self, send: Callable[[], Awaitable[httpx.Response]]) -> Body:
        while True:
            try:
                response = await send()
            except (httpx.UnsupportedProtocol, httpx.InvalidURL):
                raise _unusable_url() from None
            except httpx.TransportError as error:
                reason = self._unreachable(error)
                if not self._reached:
                    raise NoAnswer(f"{reason}; is `iidq serve` running there? --server names another") from None
                await self._wait(_DEFAULT_RETRY_SECONDS, reason)
                continue
            self._reached = True
            if response.status_code not in (429, 503):
                return self._body(response)
            await self._wait(_retry_seconds(response), str(self._refusal(response)))

    def foreign_reply(self, status: str = "") -> NoAnswer:
        """Return the error for a reply of a foreign server."""
        return NoAnswer(f"{self.server} answered{status}, but not as iidq does; check --server")

    def _unreachable(self, error: httpx.TransportError) -> str:
        return f"{self.server} cannot be reached ({str(error) or type(error).__name__})"

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    async def _wait(self, seconds: float, reason: str) -> None:
        if seconds > self._left():
            raise NoAnswer(f"gave up after {self._timeout_seconds:g} s: {reason}")
        await asyncio.sleep(seconds)

    def _body(self, response: httpx.Response) -> Body:
        body = _object(response.content)
        if response.is_success and body:
            return body
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> Refused:
        status = response.status_code
        if status == 401:
            fault = "does not take this key" if self._has_key else "asks for a key"
            return Refused(f"{self.server} {fault}: set IIDQ_API_KEY, or give --api-key", status)
        body = _object(response.content)
        errors = body.get("errors")
        faults = [
            (str(fault.get("field")), str(fault.get("message")))
            for fault in (errors if isinstance(errors, list) else [])
            if isinstance(fault, dict)
        ]
        reason = "; ".join(f"{field}: {message}" for field, message in faults) or body.get("error")
        if not isinstance(reason, str):
            return Refused(str(self.foreign_reply(f" HTTP {status}")), status)
        return Refused(f"{reason} (HTTP {status})", status, faults)


def _unusable_url() -> NoAnswer:
    return NoAnswer("the URL of --server cannot be used; expected http://host:port")


def _job_path(job_id: str) -> str:
    return f"{JOBS_PATH}/{quote(job_id, safe='')}"


def _is_event_stream(response: httpx.Response) -> bool:
    return response.status_code == 200 and response.headers.get("content-type", "").startswith("text/event-stream")


def _object(text: str | bytes) -> Body:
    try:
        body = from_json(text, allow_inf_nan=False)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _retry_seconds(response: httpx.Response) -> float:
    """Return ``Retry-After`` of either form in seconds (RFC 9110, section 10.2.3)."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return max(float(text[:9]), _FIRST_POLL_SECONDS)
    try:
        seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return _DEFAULT_RETRY_SECONDS
    return max(seconds, _FIRST_POLL_SECONDS)
