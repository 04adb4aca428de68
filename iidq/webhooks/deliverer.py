"""Delivers the ends of jobs as webhooks, in a worker process but with separate connections and slots.

A receiver that hangs holds only a few slots, and no failure here ends the worker. The table ``iidq_webhook_delivery``
holds the due deliveries. The deliverer is woken by the end of a job of this process, and polls for others every second
while jobs with a callback exist.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import psycopg

from iidq.concurrency.background import keep_running
from iidq.database.connections import Connection
from iidq.database.faults import Faults
from iidq.database.pool import Database, open_database
from iidq.database.sqlstates import concerns_one_row
from iidq.database.steady import try_step, wait_at_most
from iidq.errors import GatewayFault, IidqError, RowRefused, TriggerFault
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.observability import logs, metrics
from iidq.queue.job import Job
from iidq.queue.read.readers import find
from iidq.queue.row_faults import each_apart, refusal
from iidq.queue.store import confirm
from iidq.setting_values.checks import signing_keys
from iidq.settings import Settings
from iidq.webhooks import delivery_store
from iidq.webhooks.delivery import (
    MAX_ATTEMPTS,
    Delivery,
    DeliveryResult,
    DeliveryState,
    after_answer,
    after_failure,
)
from iidq.webhooks.event import event_body, event_headers
from iidq.webhooks.sending import Sender

JobShape = Callable[[Job], Mapping[str, Any]]

SLOTS: Final = 32
"""Deliveries at a time in one process."""
SLOTS_PER_HOST: Final = 4
"""Deliveries at a time to one host."""
POOL_SIZE: Final = 2
"""Database connections of the deliverer."""

_POLL_SECONDS = 1.0
_RETRY_SECONDS = 1.5
# Added to the attempt's deadline for reading the job and storing the result on a slow database.
_LEASE_MARGIN_SECONDS = 30.0
# How long the end of the process waits for receivers; other workers deliver the rest.
_GRACE_SECONDS = 2.0
_SETTLE_TRIES = 5
# How many rows that refuse every change a claim skips.
_MOST_SKIPPED = 250


class Deliverer:
    """Claims and sends due deliveries and stores the results, until :meth:`stop`."""

    def __init__(
        self, settings: Settings, database: Database, sender: Sender, keys: tuple[bytes, ...], shape: JobShape
    ) -> None:
        self._shape = shape
        self._database = database
        self._sender = sender
        self._keys = keys
        self._poll_seconds = settings.poll_interval_seconds
        self._lease_seconds = settings.webhook_timeout_seconds + _LEASE_MARGIN_SECONDS
        self._running: dict[asyncio.Task[None], Delivery] = {}
        self._wake = asyncio.Event()
        self._backlog = False
        self._failed = False
        self._pause_seconds = 0.0
        self._stopping = False

    def wake(self) -> None:
        """Poll at once, because a job with a callback has ended."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until stopped."""
        while not self._stopping:
            self._wake.clear()
            try:
                retry_seconds = await try_step(
                    self._database.faults, "webhooks", self._start_due(), _RETRY_SECONDS, self._poll_seconds
                )
            except Exception as error:
                retry_seconds = max(_RETRY_SECONDS, self._poll_seconds) * random.uniform(0.3, 1.0)  # noqa: S311
                logs.webhooks_crashed(error)
            self._failed = retry_seconds > 0
            if self._failed:
                await asyncio.sleep(retry_seconds)
            else:
                await wait_at_most(self._wake, self._pause_seconds)

    async def stop(self, run: asyncio.Task[None]) -> None:
        """End ``run``, wait a short grace for running deliveries, and release the rest."""
        # Not by cancellation: Python 3.11's wait_for, used by psycopg, can lose it. A cancelled claim would also keep
        # its deliveries until their lease runs out.
        self._stopping = True
        self._wake.set()
        await asyncio.wait([run, *self._running], timeout=_GRACE_SECONDS)
        run.cancel()
        unfinished = dict(self._running)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished, timeout=_GRACE_SECONDS)
            # If this fails, the deliveries become due when their lease runs out.
            with contextlib.suppress(IidqError, psycopg.Error):
                async with self._database.connection() as connection:
                    await delivery_store.release(connection, list(unfinished.values()))

    async def _start_due(self) -> None:
        """Start due deliveries while slots are free; set the seconds until the next poll."""
        slots = SLOTS - len(self._running)
        if slots <= 0:
            self._backlog = True
            self._pause_seconds = self._poll_seconds
            return
        outlook = await self._database.run(delivery_store.poll)
        longest = _POLL_SECONDS if outlook.waiting else self._poll_seconds
        # Jittered, so that workers that started together do not poll together.
        pause_seconds = longest * random.uniform(0.75, 1.25)  # noqa: S311
        self._backlog = outlook.due_seconds is not None and outlook.due_seconds <= 0
        if not self._backlog:
            due_seconds = pause_seconds if outlook.due_seconds is None else outlook.due_seconds + 0.01
            self._pause_seconds = min(pause_seconds, due_seconds)
            return
        try:
            claimed = await self._claim(slots)
        except Exception as error:
            if not concerns_one_row(error):
                raise
            claimed = await self._claim_apart(slots)
        # No claim although deliveries are due: their hosts are busy, or other workers have claimed them.
        self._pause_seconds = 0.0 if claimed else min(pause_seconds, _POLL_SECONDS)

    async def _claim(self, slots: int, only: Sequence[UUID] | None = None) -> int:
        async with self._database.connection() as connection:
            if self._failed:
                # While commits stall, each abandoned claim would hold one more process of the server.
                await confirm(connection)
            claimed = await delivery_store.claim(
                connection,
                slots=slots,
                per_host=SLOTS_PER_HOST,
                running=Counter(delivery.host for delivery in self._running.values()),
                lease_seconds=self._lease_seconds,
                only=only,
            )
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self._running[task] = delivery
            task.add_done_callback(self._ended)
        return len(claimed)

    async def _claim_apart(self, slots: int) -> int:
        """Claim although a row refuses to be claimed, and give up that row's delivery.

        Where a trigger of the operator fails, the delivery waits until the trigger is fixed.
        """
        claimed = 0
        faulty: list[TriggerFault] = []

        async def claim(ids: Sequence[UUID]) -> None:
            nonlocal claimed
            if claimed < slots:
                claimed += await self._claim(slots - claimed, ids)

        async def refuse(job_id: UUID, error: Exception) -> None:
            if isinstance(error, TriggerFault):
                self._database.faults.row_refused("webhook", job_id, error)
                faulty.append(error)
            else:
                await self._refuse(job_id, error)

        ids = await self._database.run(lambda connection: delivery_store.due(connection, slots + _MOST_SKIPPED))
        await each_apart(ids, claim, refuse)
        if faulty and not claimed:
            raise faulty[0]
        return claimed

    async def _refuse(self, job_id: UUID, error: Exception) -> None:
        """Give up a delivery because its row refuses changes."""
        self._database.faults.row_refused("webhook", job_id, error)
        # A row that refuses even this is found again at the next poll.
        with contextlib.suppress(IidqError, psycopg.Error):
            async with self._database.connection() as connection:
                await delivery_store.refuse(connection, job_id, error=refusal(error, "the delivery"))

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if self._backlog:
            self._wake.set()

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            result = await self._attempt(delivery)
        except (IidqError, psycopg.Error) as error:
            # The job could not be read; the attempt is repeated when its lease runs out.
            logs.database_lost("webhook", error, self._lease_seconds)
            return
        except Exception as error:
            logs.webhook_crashed(delivery.job_id, delivery.event_id, delivery.attempt, error)
            crash = GatewayFault("the delivery failed; see the worker's log", code="internal")
            result = after_failure(crash, attempt=delivery.attempt, draw=random.random())  # noqa: S311
        if result is None:
            return
        await self._settle(delivery, result)

    async def _attempt(self, delivery: Delivery) -> DeliveryResult | None:
        """Make one attempt; return None if the job was put back in line or removed."""
        if delivery.attempt > MAX_ATTEMPTS:
            # The last attempt left no result.
            error = "webhook.lost: the worker fell silent during the last attempt"
            return DeliveryResult(DeliveryState.GAVE_UP, error=error)
        job = await self._database.run(lambda connection: find(connection, delivery.job_id))
        if job is None or job.completed_at is None:
            return None
        body = event_body(self._shape(job))
        headers = event_headers(self._keys, delivery.event_id, int(time.time()), body)
        draw = random.random()  # noqa: S311
        try:
            answer = await self._sender.post(delivery.url, headers, body)
        except IidqError as error:
            return after_failure(error, attempt=delivery.attempt, draw=draw)
        return after_answer(
            answer.status, attempt=delivery.attempt, draw=draw, retry_after_seconds=answer.retry_after_seconds
        )

    async def _settle(self, delivery: Delivery, result: DeliveryResult) -> None:
        begun = False

        async def settle(connection: Connection) -> bool:
            nonlocal begun
            again, begun = begun, True
            if again:
                # An earlier try may still wait for a standby.
                await confirm(connection)
            return await delivery_store.settle(connection, delivery, result)

        for tried in range(1, _SETTLE_TRIES + 1):
            try:
                stored = await self._database.run(settle)
            except (IidqError, psycopg.Error) as error:
                if self._stopping:
                    return
                if isinstance(error, RowRefused):
                    # Otherwise the receiver would get the same event at every attempt left.
                    await self._refuse(delivery.job_id, error)
                    return
                # If no try succeeds, the attempt is repeated when its lease runs out.
                pause_seconds = random.uniform(0.5, 1.0) * tried  # noqa: S311
                self._database.faults.failed("webhook", error, pause_seconds, self._lease_seconds)
                await asyncio.sleep(pause_seconds)
                continue
            if stored:
                self._report(delivery, result)
            return

    def _report(self, delivery: Delivery, result: DeliveryResult) -> None:
        attempt = (delivery.job_id, delivery.event_id, delivery.attempt, delivery.host)
        metrics.webhook_tried(result.state.value, result.error)
        match result.state:
            case DeliveryState.DELIVERED:
                logs.webhook_delivered(*attempt)
            case DeliveryState.PENDING:
                # The next attempt may be due before the next poll.
                self._wake.set()
                logs.webhook_failed(*attempt, result.error, result.delay_seconds)
            case _:
                logs.webhook_given_up(*attempt, result.error)


def _no_deliverer() -> None:
    """Do nothing: no secret, no signature, no delivery."""


@asynccontextmanager
async def open_deliverer(
    settings: Settings, shape: JobShape, faults: Faults | None = None
) -> AsyncIterator[Callable[[], None]]:
    """Run a :class:`Deliverer` and yield its ``wake``; without ``WEBHOOK_SECRET`` yield a function without effect.

    ``shape`` makes a job's JSON, the same as a GET shows. Raise :class:`SettingsFault` for an item of
    ``FETCH_ALLOW_PRIVATE`` that is neither host nor CIDR.
    """
    if settings.webhook_secret is None:
        yield _no_deliverer
        return
    sender = Sender(
        FetchPolicy.opening(settings.fetch_allow_private),
        timeout_seconds=settings.webhook_timeout_seconds,
    )
    keys = signing_keys(settings.webhook_secret.get_secret_value())
    async with open_database(settings, pool_size=POOL_SIZE, faults=faults) as database:
        deliverer = Deliverer(settings, database, sender, keys, shape)
        running = keep_running(deliverer.run, "webhooks")
        try:
            yield deliverer.wake
        finally:
            await deliverer.stop(running)
