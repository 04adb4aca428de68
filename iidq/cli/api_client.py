"""A client of a running service: jobs sent and followed to their end, whatever happens on the way."""

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
_ANSWER_SECONDS: Final = 60.0
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS, _POLL_GROWTH = 0.1, 2.0, 1.3
_DEFAULT_PATIENCE_SECONDS = 2.0
_FIRST_EVENT_SECONDS = 5.0
"""A service tells the present state at once; where nothing comes, a proxy between holds it back."""
_RECONNECT_SECONDS = 1.0
_SILENCE_SECONDS = 40.0
"""Between two signs of life of an event stream; the service gives one every 15 s."""
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Body = dict[str, Any]


class NotFoundOut(Exception):
    """There is no verdict, or no answer; the text says why, and what to do."""


class Refused(NotFoundOut):
    """The service answered, with a status that is an error."""

    def __init__(self, text: str, status: int, faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.faults = tuple(faults)
        """Field and message of each fault that the service named."""


class JobClient:
    """Talks to ``server``, each question for at most ``timeout_seconds``.

    A service that is busy or briefly away is asked again. Sending again is harmless: every submission has its own
    ``Idempotency-Key``. All methods raise :class:`NotFoundOut`.
    """

    def __init__(
        self,
        server: str,
        api_key: str | None,
        *,
        timeout_seconds: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.server = redact_url(server.rstrip("/"))
        """As it may be shown."""
        self._has_key = bool(api_key)
        if api_key and not api_key.isprintable():
            # httpx would quote it where it refuses it.
            raise NotFoundOut("the API key cannot be used; expected one line of printable characters")
        try:
            self._http = httpx.AsyncClient(
                base_url=server.rstrip("/"),
                # As bytes: httpx takes texts for ASCII.
                headers={b"x-api-key": api_key.encode()} if api_key else None,
                timeout=_ANSWER_SECONDS,
                transport=transport,
                # A proxy for the world knows no server of this machine.
                trust_env=urlsplit(server).hostname not in _LOOPBACK_HOSTS,
            )
        except (httpx.InvalidURL, ValueError):
            raise NotFoundOut("the URL of --server cannot be used; expected http://host:port") from None
        self._timeout_seconds = timeout_seconds
        self._answered = False
        self.restart_clock()

    def restart_clock(self) -> None:
        """A new question: it has the whole time again."""
        self._deadline = time.monotonic() + self._timeout_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def job_url(self, job_id: str) -> str:
        """Where anybody can see the job."""
        return self.server + _job_path(job_id)

    async def send(self, kind: str, form: Callable[[], dict[str, Any]]) -> Body:
        """Submit a job; ``form`` makes httpx's arguments, anew each time. Returns the service's reply."""
        key = {"Idempotency-Key": uuid4().hex}
        return await self._ask(lambda: self._http.post(f"{JOBS_PATH}/{kind}", headers=key, **form()))

    async def send_batch(self, jobs: Sequence[Mapping[str, object]]) -> list[str]:
        """Submit up to 1,000 jobs by hash, all or none; returns their ids, in order."""
        reply = await self.send("batch", lambda: {"json": {"jobs": list(jobs)}})
        job_ids = reply.get("jobIds")
        if not isinstance(job_ids, list) or len(job_ids) != len(jobs):
            raise NotFoundOut(f"{self.server} answered, and not as iidq does")
        return [str(job_id) for job_id in job_ids]

    async def get(self, path: str = "", **query: object) -> Body:
        """What GET of ``path`` below the jobs' gives; unset parameters are left out."""
        params = {name: str(value) for name, value in query.items() if value is not None}
        return await self._ask(lambda: self._http.get(JOBS_PATH + path, params=params))

    async def post(self, path: str, body: Mapping[str, object] | None = None) -> Body:
        """What POST of ``path`` below the jobs' gives."""
        return await self._ask(lambda: self._http.post(JOBS_PATH + path, json=body))

    async def probe(self, path: str) -> tuple[int, Body]:
        """Status and JSON (empty where it is none) of GET ``path``, whatever the status."""
        try:
            response = await self._http.get(path)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise self._unusable() from None
        except httpx.TransportError as error:
            raise NotFoundOut(self._unreachable(error)) from None
        return response.status_code, _object(response.content)

    async def follow(self, job_id: str, report: Callable[[Body], None]) -> Body:
        """The job once it has ended; ``report`` sees each state that becomes known.

        By events, and where these do not come through, by polling.
        """
        return await self._hear(job_id, report) or await self._poll(job_id, report)

    async def _hear(self, job_id: str, report: Callable[[Body], None]) -> Body | None:
        """The ended job as its events tell it; None where they do not."""
        path = f"{_job_path(job_id)}/events"
        state: Body = {}
        try:
            while True:
                state = {}
                # A stream that ends before the job (a restart, a proxy's limit) is opened anew if it gave anything.
                with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
                    async with asyncio.timeout(_FIRST_EVENT_SECONDS) as patience:
                        async with self._http.stream("GET", path, timeout=None) as response:
                            if not _is_event_stream(response):
                                return None
                            self._answered = True
                            reader = EventStreamReader()
                            async for chunk in response.aiter_bytes():
                                for event in reader.feed(chunk):
                                    state = _object(event.data)
                                    report(state)
                                    if state.get("status") in ENDED:
                                        return state
                                silence = _SILENCE_SECONDS if state else _FIRST_EVENT_SECONDS
                                patience.reschedule(asyncio.get_running_loop().time() + min(silence, self._left()))
                if not state or self._left() < _FIRST_EVENT_SECONDS:
                    return None
                await asyncio.sleep(_RECONNECT_SECONDS)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, EventStreamTooLong):
            return None

    async def _poll(self, job_id: str, report: Callable[[Body], None]) -> Body:
        pause_seconds = _FIRST_POLL_SECONDS
        while True:
            job = await self._ask(lambda: self._http.get(_job_path(job_id)))
            report(job)
            if job.get("status") in ENDED:
                return job
            await self._wait(pause_seconds, f"no end yet; the job goes on: {self.job_url(job_id)}")
            pause_seconds = min(pause_seconds * _POLL_GROWTH, _LONGEST_POLL_SECONDS)

    async def _ask(self, exchange: Callable[[], Awaitable[httpx.Response]]) -> Body:
        while True:
            try:
                response = await exchange()
            except (httpx.UnsupportedProtocol, httpx.InvalidURL):
                raise self._unusable() from None
            except httpx.TransportError as error:
                said = self._unreachable(error)
                if not self._answered:
                    raise NotFoundOut(f"{said}; is `iidq serve` running there? --server names another") from None
                await self._wait(_DEFAULT_PATIENCE_SECONDS, said)
                continue
            self._answered = True
            if response.status_code not in (429, 503):
                return self._body(response)
            await self._wait(_patience_seconds(response), str(self._refusal(response)))

    def _unusable(self) -> NotFoundOut:
        return NotFoundOut("the URL of --server cannot be used; expected http://host:port")

    def _unreachable(self, error: httpx.TransportError) -> str:
        return f"{self.server} cannot be reached ({str(error) or type(error).__name__})"

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    async def _wait(self, seconds: float, reason: str) -> None:
        if seconds > self._left():
            raise NotFoundOut(f"gave up after {self._timeout_seconds:g} s: {reason}")
        await asyncio.sleep(seconds)

    def _body(self, response: httpx.Response) -> Body:
        body = _object(response.content)
        if response.is_success and body:
            return body
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> Refused:
        status = response.status_code
        if status == 401:
            told = "does not take this key" if self._has_key else "asks for a key"
            return Refused(f"{self.server} {told}: set IIDQ_API_KEY, or give --api-key", status)
        body = _object(response.content)
        faults = [(str(fault.get("field")), str(fault.get("message"))) for fault in _objects(body.get("errors"))]
        said = "; ".join(f"{field}: {message}" for field, message in faults) or body.get("error")
        if not isinstance(said, str):
            return Refused(f"{self.server} answered HTTP {status}, and not as iidq does", status)
        return Refused(f"{said} (HTTP {status})", status, faults)


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
