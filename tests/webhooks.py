"""The far side of a webhook: a real HTTP server on loopback, and rows as a submission with a callback makes them."""

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
    """One request, checked as a receiver should."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """What is told."""
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def event_id(self) -> str:
        """By which the receiver knows repetitions."""
        return self.headers["webhook-id"]

    def is_signed_with(self, secret: str) -> bool:
        """Whether one of the signatures is right."""
        signed = f"{self.event_id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return wanted in self.headers["webhook-signature"].split(" ")


Answer = Callable[[Received], Awaitable[Response]]


async def thanks(_: Received) -> Response:
    """Taken."""
    return Response(status_code=204)


def always(status: int, **headers: str) -> Answer:
    """The same answer to all."""

    async def answer(_: Received) -> Response:
        return Response("<html>", status, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer


async def never(_: Received) -> Response:
    """Takes the request and hangs."""
    await asyncio.sleep(3600)
    raise AssertionError


@dataclass(slots=True)
class Receiver:
    """Where it listens, what came, and how it answers from now on."""

    url: str = ""
    answer: Answer = thanks
    received: list[Received] = field(default_factory=list)


@asynccontextmanager
async def receiving(answer: Answer = thanks) -> AsyncIterator[Receiver]:
    """A receiver that listens until the block ends."""
    receiver = Receiver(answer=answer)

    async def take(request: Request) -> Response:
        received = Received(dict(request.headers), await request.body())
        receiver.received.append(received)
        answering = asyncio.ensure_future(receiver.answer(received))
        gone = asyncio.ensure_future(request.receive())
        # A receiver that hangs ends with its caller.
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
    """A waiting job that named a callback."""
    with sql.transaction():
        job_id = insert(sql, hasCallback=True, **columns)
        sql.execute('INSERT INTO iidq_webhook_delivery ("jobId", url) VALUES (%s, %s)', [job_id, url])
    return job_id


def cancel(sql: psycopg.Connection[Any], job_id: UUID) -> None:
    """End it."""
    sql.execute("SELECT cancel_job(%s)", [job_id])


def delivery(sql: psycopg.Connection[Any], job_id: UUID) -> dict[str, Any]:
    """The row of its delivery, and in how many seconds the next attempt is due."""
    with sql.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            """SELECT *, extract(epoch FROM "nextAt" - now())::float8 AS due_seconds
               FROM iidq_webhook_delivery WHERE "jobId" = %s""",
            [job_id],
        ).fetchone()
    assert row is not None
    return row


def make_due(sql: psycopg.Connection[Any]) -> None:
    """What is pending is due now: time passes."""
    sql.execute("""UPDATE iidq_webhook_delivery SET "nextAt" = now() WHERE state = 'pending'""")
