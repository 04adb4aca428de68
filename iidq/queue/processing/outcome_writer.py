"""Stores the outcomes of all attempts of a worker: many in one statement, through flickers of the database."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

import psycopg

from iidq.concurrency.background import keep_running
from iidq.database.connections import Connection
from iidq.database.pool import Database
from iidq.database.sqlstates import concerns_one_row, fault_of_code, is_passing
from iidq.errors import DatabaseRefusal, DatabaseUnavailable, IidqError, RowRefused
from iidq.observability import logs, metrics
from iidq.queue import store
from iidq.queue.job import JobStatus
from iidq.queue.outcome import Outcome, storable_text
from iidq.queue.row_faults import end_refused, refusal
from iidq.queue.store import Fence

_LARGEST_BATCH = 1000
# Rounds of the event loop in which the claim for the slots just freed goes first: sent after the outcomes, it left a
# slot idle for 2.0 ms between two jobs instead of 1.4.
_ROUNDS_FOR_THE_CLAIM = 4
_FIRST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 2.0
# How often a row that somebody else holds locked is tried again.
_LOCKED_RETRY_SECONDS = 1.0
# How often a batch is tried that a function of the operator's fails with what passes by itself elsewhere.
_TRIES_OF_CODE = 3
_FAULT_LASTS_SECONDS = 60.0

Settle = Callable[[Sequence[Outcome], set[Fence]], None]


class OutcomeWriter:
    """Writes until the database has answered; then ``settle`` is told the batch, and which of it was not stored.

    These had lost their lease, and nothing was written for them.
    """

    def __init__(self, database: Database, worker_id: str, settle: Settle) -> None:
        self._database = database
        self._worker_id = worker_id
        self._settle = settle
        self._waiting: deque[Outcome] = deque()
        self._locked: list[Outcome] = []
        self._refused: set[Fence] = set()
        self._asked = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def put(self, outcome: Outcome) -> None:
        """Store it with the next batch. Returns at once."""
        self._waiting.append(outcome)
        if self._writer is None or self._writer.done():
            self._writer = keep_running(self._write_all, "outcomes")
        elif self._locked:
            self._asked.set()

    async def written(self) -> None:
        """Return when everything put so far is settled."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])

    def abandon(self) -> None:
        """Write no more: the process ends, and what is not stored comes back when its lease runs out."""
        if self._writer is not None:
            self._writer.cancel()

    async def _write_all(self) -> None:
        while self._waiting or self._locked:
            if not self._waiting:
                await self._wait_for_locks()
            for _ in range(_ROUNDS_FOR_THE_CLAIM):
                await asyncio.sleep(0)
            await self._write([self._waiting.popleft() for _ in range(min(len(self._waiting), _LARGEST_BATCH))])

    async def _wait_for_locks(self) -> None:
        self._asked.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOCKED_RETRY_SECONDS):
                await self._asked.wait()
        self._waiting.extend(self._locked)
        self._locked.clear()

    async def _write(self, outcomes: Sequence[Outcome]) -> None:
        """Store and settle a batch; what spoils it is found by writing its outcomes one by one."""
        try:
            lost = await self._store(outcomes)
        except Exception as error:
            kept = isinstance(error, DatabaseUnavailable | DatabaseRefusal)
            of_one_row = kept or concerns_one_row(error)
            if of_one_row and len(outcomes) > 1:
                for outcome in outcomes:
                    await self._write([outcome])
                return
            outcome = outcomes[0]
            if kept:
                # Another transaction holds the row, or an operator has to grant a right. The others must not wait.
                self._locked.append(outcome)
            elif of_one_row:
                await self._refuse(outcome, error)
            else:
                # A bug of ours. The jobs come back when their leases run out.
                logs.attempt_crashed(outcome.id, outcome.attempt, error)
                self._settle(outcomes, {(outcome.id, outcome.attempt) for outcome in outcomes})
            return
        if self._refused:
            self._refused.difference_update((outcome.id, outcome.attempt) for outcome in outcomes if not lost)
        dropped = await self._dropped(outcomes, lost) if lost else []
        for outcome in dropped:
            await self._refuse(outcome, RowRefused("a trigger that drops the row"))
        self._settle([outcome for outcome in outcomes if outcome not in dropped], lost)

    async def _dropped(self, outcomes: Sequence[Outcome], lost: set[Fence]) -> list[Outcome]:
        """Of the lost, those whose attempt holds its row: a trigger did without the change, and raised nothing."""
        asked = [outcome for outcome in outcomes if (outcome.id, outcome.attempt) in lost]
        try:
            held = await self._database.run(
                lambda connection: store.find_held(connection, asked, worker_id=self._worker_id)
            )
        except (IidqError, psycopg.Error):
            return []
        return [outcome for outcome in asked if (outcome.id, outcome.attempt) in held]

    async def _refuse(self, outcome: Outcome, error: Exception) -> None:
        """End the job of a result that Postgres refuses with that error; if even this is refused, give it up.

        Left alone, the job would come back when its lease runs out, as if the worker had fallen silent.
        """
        fence = (outcome.id, outcome.attempt)
        if fence not in self._refused:
            self._refused.add(fence)
            self._database.faults.row_refused("result", outcome.id, error)
            failure = storable_text(refusal(error, "the result"))
            await self._write([Outcome(*fence, JobStatus.FAILED, failure=failure)])
            return
        self._refused.discard(fence)
        ended = await end_refused(
            self._database, "outcome", outcome.id, error, worker_id=self._worker_id, attempt=outcome.attempt
        )
        self._settle([outcome], set() if ended else {fence})

    async def _store(self, outcomes: Sequence[Outcome]) -> set[Fence]:
        """Return the lost ones.

        Raises DatabaseUnavailable only for what one row may bring about: a lock, or a function of the operator's that
        fails. On any other loss of the database it tries again.
        """
        delay_seconds, faults, tried = _FIRST_RETRY_SECONDS, self._database.faults, False
        tries_of_code = _TRIES_OF_CODE if len(outcomes) > 1 else 1

        async def write(connection: Connection) -> set[Fence]:
            nonlocal tried
            again, tried = tried, True
            if again:
                # An earlier try may still wait for a standby: it holds the rows, and the next one would wait likewise.
                await store.confirm(connection)
            return await store.store_outcomes(connection, outcomes, worker_id=self._worker_id, again=again)

        while True:
            try:
                started = perf_counter()
                lost = await self._database.run(write)
            except (IidqError, psycopg.Error) as error:
                passes = is_passing(error)
                if not passes and isinstance(error, DatabaseRefusal | DatabaseUnavailable):
                    faults.failed("outcomes", error, _LOCKED_RETRY_SECONDS)
                if not passes or getattr(error, "code", None) == "database.locked":
                    raise
                if (fault := fault_of_code(error)) is None:
                    faults.failed("outcomes", error, delay_seconds)
                else:
                    tries_of_code -= 1
                    if tries_of_code <= 0:
                        faults.failed("outcomes of some jobs", fault, _LOCKED_RETRY_SECONDS, _FAULT_LASTS_SECONDS)
                        raise
                await asyncio.sleep(delay_seconds * random.uniform(0.5, 1.0))  # noqa: S311
                delay_seconds = min(_LONGEST_RETRY_SECONDS, delay_seconds * 2)
            else:
                metrics.step_ended("store", perf_counter() - started)
                faults.succeeded("outcomes")
                return lost
