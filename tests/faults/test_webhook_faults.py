"""Receivers hang, redirect or are away, and workers die during a delivery: other jobs and receivers see no effect."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.settings import load_settings
from iidq.web.reply.wire import job_shape
from iidq.webhooks.deliverer import open_deliverer
from tests.eventually import eventually
from tests.faults.conftest import StartWorker
from tests.job_rows import insert, scalar
from tests.webhooks import (
    LOOPBACK,
    SECRET,
    Received,
    Receiver,
    always,
    cancel,
    delivery,
    insert_with_callback,
    make_due,
    never,
    receiving,
)

Pg = psycopg.Connection[Any]
_HOUR = 3600.0


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver with a success for every event, until changed."""
    async with receiving() as receiver:
        yield receiver


@asynccontextmanager
async def delivering(database_url: str, **overrides: Any) -> AsyncIterator[None]:
    usual: dict[str, Any] = {"webhook_secret": SECRET, "fetch_allow_private": LOOPBACK, "poll_interval_seconds": 0.1}
    async with open_deliverer(load_settings(database_url=database_url, **(usual | overrides)), job_shape):
        yield


async def test_a_receiver_that_hangs_delays_nobody_else(
    ledger: Pg, database_url: str, receiver: Receiver, start_worker: StartWorker
) -> None:
    """A worker with many hanging deliveries verifies jobs and delivers to other receivers."""
    async with receiving(never) as hanging:
        stuck = [insert_with_callback(ledger, hanging.url, manifestUri="test:sleep:0") for _ in range(40)]
        start_worker(
            database_url,
            WEBHOOK_SECRET=SECRET,
            WEBHOOK_TIMEOUT_SECONDS="60",
            FETCH_ALLOW_PRIVATE="127.0.0.1",
            POLL_INTERVAL_SECONDS="0.1",
        )
        await eventually(lambda: hanging.received)
        plain = insert(ledger, manifestUri="test:sleep:0")
        told = insert_with_callback(ledger, receiver.url, manifestUri="test:sleep:0")
        await eventually(lambda: delivery(ledger, told)["state"] == "delivered")
        ended = "SELECT count(*) FROM \"VerificationJob\" WHERE status = 'completed'"
        await eventually(lambda: scalar(ledger, ended) == 42)
        assert scalar(ledger, 'SELECT status FROM "VerificationJob" WHERE id = %s', plain) == "completed"
        # Four deliveries at most hang at one receiver.
        assert len(hanging.received) == 4
        assert {delivery(ledger, job_id)["state"] for job_id in stuck} == {"pending"}


async def test_a_hanging_receiver_is_tried_again(ledger: Pg, database_url: str, receiver: Receiver) -> None:
    """A delivery to a hanging receiver ends at its deadline with ``fetch.timeout``, and the next attempt delivers."""
    receiver.answer = never
    job_id = insert_with_callback(ledger, receiver.url)
    cancel(ledger, job_id)
    async with delivering(database_url, webhook_timeout_seconds=0.2):
        await eventually(lambda: delivery(ledger, job_id)["lastError"])
        assert delivery(ledger, job_id)["lastError"].startswith("fetch.timeout: ")
        receiver.answer = always(200)
        make_due(ledger)
        await eventually(lambda: delivery(ledger, job_id)["state"] == "delivered")


async def test_an_answer_that_never_ends_is_cut_off(ledger: Pg, database_url: str) -> None:
    """A receiver's endless body is cut off; the status counts."""
    asked = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                await writer.drain()
        except OSError:
            asked.set()
        finally:
            writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with server:
        job_id = insert_with_callback(ledger, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        cancel(ledger, job_id)
        async with delivering(database_url):
            await eventually(lambda: delivery(ledger, job_id)["state"] == "delivered")
            await eventually(asked.is_set)


async def test_a_redirect_is_not_followed(ledger: Pg, database_url: str, receiver: Receiver) -> None:
    """A redirect is not followed, to a private or to a reachable address: the attempt fails and is repeated later."""
    async with receiving() as inner:
        for number, location in enumerate(("http://169.254.169.254/latest", inner.url)):
            receiver.answer = always(307, Location=location)
            job_id = insert_with_callback(ledger, receiver.url)
            cancel(ledger, job_id)
            async with delivering(database_url):
                await eventually(partial(_answered, ledger, job_id, 307))
            row = delivery(ledger, job_id)
            assert (row["state"], len(receiver.received)) == ("pending", number + 1)
            assert "redirects are not followed" in row["lastError"]
            assert "169.254" not in row["lastError"]
        assert inner.received == []


async def test_a_name_that_leads_to_a_private_address_is_never_called(
    ledger: Pg, database_url: str, receiver: Receiver
) -> None:
    """A callback name that resolves to a private address is given up at once, without a connection."""
    url = receiver.url.replace("127.0.0.1", "localhost")
    job_id = insert_with_callback(ledger, url)
    cancel(ledger, job_id)
    # Another network is allowed, so that the port alone refuses nothing.
    async with delivering(database_url, fetch_allow_private=("10.1.0.0/16",)):
        await eventually(lambda: delivery(ledger, job_id)["state"] == "gave_up")
    assert delivery(ledger, job_id)["lastError"].startswith("fetch.refused.address: ")
    assert receiver.received == []


async def test_a_receiver_that_answers_500_for_an_hour(ledger: Pg, database_url: str, receiver: Receiver) -> None:
    """After failures an event is due in about 5 s, 5 min, 30 min and 2 h; each attempt sends the same signed event."""
    receiver.answer = always(500)
    job_id = insert_with_callback(ledger, receiver.url)
    cancel(ledger, job_id)
    waits = []
    async with delivering(database_url):
        for attempt in range(1, 5):
            await eventually(partial(_failed, ledger, job_id, attempt))
            waits.append(delivery(ledger, job_id)["due_seconds"])
            if attempt == 4:
                receiver.answer = always(200)
            make_due(ledger)
        await eventually(lambda: delivery(ledger, job_id)["state"] == "delivered")
    for wait, planned in zip(waits, (5, 300, 1800, 2 * _HOUR), strict=True):
        assert planned - 3 < wait <= planned * 1.2
    assert sum(waits[:3]) < _HOUR < sum(waits)
    assert len({received.event_id for received in receiver.received}) == 1
    assert len({received.body for received in receiver.received}) == 1
    assert [received.is_signed_with(SECRET) for received in receiver.received] == [True] * 5
    assert delivery(ledger, job_id)["attempts"] == 5


def _answered(sql: Pg, job_id: UUID, status: int) -> bool:
    return bool(delivery(sql, job_id)["lastStatus"] == status)


def _failed(sql: Pg, job_id: UUID, attempt: int) -> bool:
    """Return whether the given attempt has failed; while it runs, ``due_seconds`` is the end of its claim instead."""
    row = delivery(sql, job_id)
    planned = (5, 300, 1800, 2 * _HOUR)[attempt - 1]
    return bool(row["attempts"] == attempt and planned - 3 < row["due_seconds"] <= planned * 1.2)


async def test_an_event_is_given_up_after_ten_attempts(ledger: Pg, database_url: str, receiver: Receiver) -> None:
    """An event is given up after ten attempts, and the job shows the last status."""
    receiver.answer = always(500)
    job_id = insert_with_callback(ledger, receiver.url)
    cancel(ledger, job_id)
    ledger.execute("UPDATE iidq_webhook_delivery SET attempts = 9")
    async with delivering(database_url):
        await eventually(lambda: delivery(ledger, job_id)["state"] == "gave_up")
    row = delivery(ledger, job_id)
    assert (row["attempts"], row["lastStatus"], row["nextAt"]) == (10, 500, None)


async def test_gone_is_gone(ledger: Pg, database_url: str, receiver: Receiver) -> None:
    """A receiver with status 410 gets no second attempt."""
    receiver.answer = always(410)
    job_id = insert_with_callback(ledger, receiver.url)
    cancel(ledger, job_id)
    async with delivering(database_url):
        await eventually(lambda: delivery(ledger, job_id)["state"] == "gave_up")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(("asked", "least"), [("120", 120), ("99999999", 86_400)])
async def test_an_overloaded_receiver_gets_the_time_it_asks_for(
    ledger: Pg, database_url: str, receiver: Receiver, asked: str, least: float
) -> None:
    """The ``Retry-After`` of a 503 delays the next attempt; more than a day counts as a day."""
    receiver.answer = always(503, Retry_After=asked)
    job_id = insert_with_callback(ledger, receiver.url)
    cancel(ledger, job_id)
    async with delivering(database_url):
        await eventually(lambda: delivery(ledger, job_id)["lastStatus"] == 503)
    assert least - 5 < delivery(ledger, job_id)["due_seconds"] <= least * 1.2


async def test_a_worker_killed_while_it_delivers(
    ledger: Pg, database_url: str, receiver: Receiver, start_worker: StartWorker
) -> None:
    """The event of a killed worker is delivered by another worker after the claim's end, under the same id."""
    receiver.answer = never
    environment = {"WEBHOOK_SECRET": SECRET, "FETCH_ALLOW_PRIVATE": "127.0.0.1", "WEBHOOK_TIMEOUT_SECONDS": "60"}
    job_id = insert_with_callback(ledger, receiver.url, manifestUri="test:sleep:0")
    worker = start_worker(database_url, **environment)
    await eventually(lambda: receiver.received)
    worker.signal(signal.SIGKILL)
    worker.exit_code()
    receiver.answer = always(200)
    # No other worker may try before the claim's end: now the claim ends.
    assert delivery(ledger, job_id)["due_seconds"] > 60
    make_due(ledger)
    second = start_worker(database_url, **environment)
    await eventually(lambda: delivery(ledger, job_id)["state"] == "delivered")
    assert len({received.event_id for received in receiver.received}) == 1
    assert len(receiver.received) == delivery(ledger, job_id)["attempts"] == 2
    second.signal(signal.SIGTERM)
    assert second.exit_code() == 0


async def test_a_worker_that_is_stopped_while_it_delivers(
    ledger: Pg, database_url: str, receiver: Receiver, start_worker: StartWorker
) -> None:
    """A worker stopped during a delivery does not wait for the receiver: the event is due at once, uncharged."""
    receiver.answer = never
    job_id = insert_with_callback(ledger, receiver.url, manifestUri="test:sleep:0")
    worker = start_worker(
        database_url, WEBHOOK_SECRET=SECRET, FETCH_ALLOW_PRIVATE="127.0.0.1", WEBHOOK_TIMEOUT_SECONDS="60"
    )
    await eventually(lambda: receiver.received)
    worker.signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.exit_code) == 0
    row = delivery(ledger, job_id)
    assert (row["state"], row["attempts"]) == ("pending", 0)
    assert row["due_seconds"] <= 0


async def test_a_database_that_restarts_between_attempt_and_note(own_server: Any, receiver: Receiver) -> None:
    """A restart of the database after an attempt may repeat the event under the same id, and the event is delivered."""
    asked = asyncio.Event()
    restarted = asyncio.Event()

    async def answer(_: Received) -> Any:
        asked.set()
        await restarted.wait()
        return await always(200)(_)

    receiver.answer = answer
    with psycopg.connect(own_server.url, autocommit=True) as sql:
        job_id = insert_with_callback(sql, receiver.url)
        cancel(sql, job_id)
    async with delivering(own_server.url):
        await asked.wait()
        await asyncio.to_thread(own_server.stop)
        restarted.set()
        await asyncio.to_thread(own_server.start)
        with psycopg.connect(own_server.url, autocommit=True) as sql:
            await eventually(lambda: delivery(sql, job_id)["state"] == "delivered")
    assert len({received.event_id for received in receiver.received}) == 1
