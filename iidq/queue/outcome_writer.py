"""Stores the outcomes of all attempts of a worker: many in one statement, through flickers of the database."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

import psycopg

from iidq import logs, metrics
from iidq.background import keep_running
from iidq.database import Connection, Database, concerns_one_row, is_passing
from iidq.errors import DatabaseRefusal, DatabaseUnavailable, IidqError
from iidq.queue import store
from iidq.queue.job import JobStatus
from iidq.queue.outcome import Outcome
from iidq.queue.row_faults import end_refused
from iidq.queue.store import Fence

_LARGEST_BATCH = 1000
# Rounds of the event loop in which the claim for the slots just freed goes first: sent after the outcomes, it left a
# slot idle for 2.0 ms between two jobs instead of 1.4.
_ROUNDS_FOR_THE_CLAIM = 4
_FIRST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 2.0
# How often a row that somebody else holds locked is tried again.
_LOCKED_RETRY_SECONDS = 1.0
_NOT_STORABLE = "internal: the result cannot be stored; see the worker's log"

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
                return
            lost = {(outcome.id, outcome.attempt) for outcome in outcomes}
            if not of_one_row:
                # A bug of ours. The jobs come back when their leases run out.
                logs.attempt_crashed(outcome.id, outcome.attempt, error)
            elif outcome.failure != _NOT_STORABLE:
                # Postgres refuses this very result; left alone, the job would come back when its lease runs out.
                logs.attempt_crashed(outcome.id, outcome.attempt, error)
                await self._write([Outcome(outcome.id, outcome.attempt, JobStatus.FAILED, failure=_NOT_STORABLE)])
                return
            elif await self._end_refused(outcome, error):
                lost = set()
        self._settle(outcomes, lost)

    async def _end_refused(self, outcome: Outcome, error: Exception) -> bool:
        return await end_refused(
            self._database, "outcome", outcome.id, error, worker_id=self._worker_id, attempt=outcome.attempt
        )

    async def _store(self, outcomes: Sequence[Outcome]) -> set[Fence]:
        """Return the lost ones.

        Raises DatabaseUnavailable only for a locked row; on any other loss of the database it tries again.
        """
        delay_seconds, faults, tried = _FIRST_RETRY_SECONDS, self._database.faults, False

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
                    faults.stands("outcomes", error, _LOCKED_RETRY_SECONDS)
                if not passes or getattr(error, "code", None) == "database.locked":
                    raise
                faults.stands("outcomes", error, delay_seconds)
                await asyncio.sleep(delay_seconds * random.uniform(0.5, 1.0))  # noqa: S311
                delay_seconds = min(_LONGEST_RETRY_SECONDS, delay_seconds * 2)
            else:
                metrics.step_ended("store", perf_counter() - started)
                faults.over("outcomes")
                return lost
