"""The far end of a webhook: a real HTTP server on loopback, and rows as made by a submission with a callback."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.embedded.endpoint import serve_locally
from tests.job_rows import insert

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
LOOPBACK = ("127.0.0.0/8",)


@dataclass(frozen=True, slots=True)
class Received:
    """A received request, with the checks of a receiver."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """Return the event."""
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def event_id(self) -> str:
        """Return the event's id, by which a receiver recognises repetitions."""
        return self.headers["webhook-id"]

    def is_signed_with(self, secret: str) -> bool:
        """Return whether one of the signatures is right."""
        signed = f"{self.event_id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return wanted in self.headers["webhook-signature"].split(" ")


Answer = Callable[[Received], Awaitable[Response]]


async def thanks(_: Received) -> Response:
    """Answer with 204."""
    return Response(status_code=204)


def always(status: int, **headers: str) -> Answer:
    """Return the same answer for all requests."""

    async def answer(_: Received) -> Response:
        return Response("<html>", status, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer


async def never(_: Received) -> Response:
    """Take the request and hang."""
    await asyncio.sleep(3600)
    raise AssertionError


@dataclass(slots=True)
class Receiver:
    """A receiver of webhooks: its URL, its answer from now on, and the requests so far."""

    url: str = ""
    answer: Answer = thanks
    received: list[Received] = field(default_factory=list)


@asynccontextmanager
async def receiving(answer: Answer = thanks) -> AsyncIterator[Receiver]:
    """Yield a receiver, listening until the block ends."""
    receiver = Receiver(answer=answer)

    async def take(request: Request) -> Response:
        received = Received(dict(request.headers), await request.body())
        receiver.received.append(received)
        answering = asyncio.ensure_future(receiver.answer(received))
        gone = asyncio.ensure_future(request.receive())
        # A hanging receiver ends with its caller.
        await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not answering.done():
            answering.cancel()
            return Response(status_code=500)
        return answering.result()

    async with serve_locally(Starlette(routes=[Route("/{path:path}", take, methods=["POST"])])) as url:
        receiver.url = f"{url}/hook"
        yield receiver


def insert_with_callback(sql: psycopg.Connection[Any], url: str, **columns: Any) -> UUID:
    """Insert a waiting job with a callback."""
    with sql.transaction():
        job_id = insert(sql, hasCallback=True, **columns)
        sql.execute('INSERT INTO iidq_webhook_delivery ("jobId", url) VALUES (%s, %s)', [job_id, url])
    return job_id


def cancel(sql: psycopg.Connection[Any], job_id: UUID) -> None:
    """Cancel the job."""
    sql.execute("SELECT cancel_job(%s)", [job_id])


def delivery(sql: psycopg.Connection[Any], job_id: UUID) -> dict[str, Any]:
    """Return the row of the job's delivery, with the seconds until the next attempt."""
    with sql.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            """SELECT *, extract(epoch FROM "nextAt" - now())::float8 AS due_seconds
               FROM iidq_webhook_delivery WHERE "jobId" = %s""",
            [job_id],
        ).fetchone()
    assert row is not None
    return row


def make_due(sql: psycopg.Connection[Any]) -> None:
    """Make all pending deliveries due now."""
    sql.execute("""UPDATE iidq_webhook_delivery SET "nextAt" = now() WHERE state = 'pending'""")
