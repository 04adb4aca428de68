"""Stores the progress and the outcomes of all attempts of a worker, many in one statement.

Progress may be lost. An outcome is written until the database has answered:

put() ─▶ batch ─▶ store ─┬─▶ stored or lost ─▶ settle()
                         ├─ database away ──── tried again, with backoff
                         ├─ fault of a row ─── outcomes written singly; the job of that row fails
                         └─ row locked, or a right missing ── tried again every second; other outcomes go on
"""

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
from iidq.database.steady import wait_at_most
from iidq.errors import DatabaseRefusal, DatabaseUnavailable, IidqError, RowRefused
from iidq.observability import logs, metrics
from iidq.queue import store
from iidq.queue.job import JobStatus
from iidq.queue.notify.announcer import ChangeAnnouncer
from iidq.queue.outcome import Outcome, storable_text
from iidq.queue.processing.execution import Attempt
from iidq.queue.row_faults import each_apart, end_refused, refusal
from iidq.queue.store import Fence

_LARGEST_BATCH = 1000
# Passes of the event loop that let the claim for the slots just freed go first: a slot is idle for 1.4 ms, not 2.0.
_PASSES_FOR_THE_CLAIM = 4
_FIRST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 2.0
# How often a row that another transaction holds locked is tried again.
_LOCKED_RETRY_SECONDS = 1.0
# How often a batch is tried when an operator's function fails with an error that passes by itself elsewhere.
_TRIES_OF_CODE = 3
_FAULT_LASTS_SECONDS = 60.0

_PROGRESS_INTERVAL_SECONDS = 0.25
# While watchers get each step at once, the rows serve only clients that poll.
_RELAYED_PROGRESS_INTERVAL_SECONDS = 2.0
# How long the job of a row that refuses its progress is left out.
_REFUSED_PROGRESS_REST_SECONDS = 30.0

Settle = Callable[[Sequence[Outcome], set[Fence]], None]
"""Called with an answered batch, and the part of the batch that was not stored: the lease was lost."""


class OutcomeWriter:
    """Writes outcomes until the database has answered, then calls ``settle``."""

    def __init__(self, database: Database, worker_id: str, settle: Settle) -> None:
        self._database = database
        self._worker_id = worker_id
        self._settle = settle
        self._waiting: deque[Outcome] = deque()
        self._locked: list[Outcome] = []
        self._refused: set[Fence] = set()
        self._more = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def put(self, outcome: Outcome) -> None:
        """Store ``outcome`` with the next batch. Returns at once."""
        self._waiting.append(outcome)
        if self._writer is None or self._writer.done():
            self._writer = keep_running(self._write_all, "outcomes")
        elif self._locked:
            self._more.set()

    async def written(self) -> None:
        """Return when everything put so far is settled."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])

    def abandon(self) -> None:
        """Stop writing: the process ends. Jobs without a stored outcome come back when the lease runs out."""
        if self._writer is not None:
            self._writer.cancel()

    async def _write_all(self) -> None:
        while self._waiting or self._locked:
            if not self._waiting:
                await self._wait_for_locks()
            for _ in range(_PASSES_FOR_THE_CLAIM):
                await asyncio.sleep(0)
            await self._write([self._waiting.popleft() for _ in range(min(len(self._waiting), _LARGEST_BATCH))])

    async def _wait_for_locks(self) -> None:
        self._more.clear()
        await wait_at_most(self._more, _LOCKED_RETRY_SECONDS)
        self._waiting.extend(self._locked)
        self._locked.clear()

    async def _write(self, outcomes: Sequence[Outcome]) -> None:
        """Store and settle a batch; after the fault of a row, write the outcomes singly."""
        try:
            lost = await self._store(outcomes)
        except Exception as error:
            await self._write_apart(outcomes, error)
            return
        if self._refused:
            self._refused.difference_update((outcome.id, outcome.attempt) for outcome in outcomes if not lost)
        dropped = await self._dropped(outcomes, lost) if lost else []
        for outcome in dropped:
            await self._refuse(outcome, RowRefused("a trigger that drops the row"))
        self._settle([outcome for outcome in outcomes if outcome not in dropped], lost)

    async def _write_apart(self, outcomes: Sequence[Outcome], error: Exception) -> None:
        """Handle a batch after ``error``."""
        passes = isinstance(error, DatabaseUnavailable | DatabaseRefusal)
        if not passes and not concerns_one_row(error):
            # A bug of ours. The jobs come back when their leases run out.
            logs.attempt_crashed(outcomes[0].id, outcomes[0].attempt, error)
            self._settle(outcomes, {(outcome.id, outcome.attempt) for outcome in outcomes})
        elif len(outcomes) > 1:
            for outcome in outcomes:
                await self._write([outcome])
        elif passes:
            # Another transaction holds the row, or an operator has to grant a right. The others must not wait.
            self._locked.extend(outcomes)
        else:
            await self._refuse(outcomes[0], error)

    async def _dropped(self, outcomes: Sequence[Outcome], lost: set[Fence]) -> list[Outcome]:
        """Return lost outcomes of attempts that still hold the row: a trigger has dropped the change silently."""
        suspects = [outcome for outcome in outcomes if (outcome.id, outcome.attempt) in lost]
        try:
            held = await self._database.run(
                lambda connection: store.find_held(connection, suspects, worker_id=self._worker_id)
            )
        except (IidqError, psycopg.Error):
            return []
        return [outcome for outcome in suspects if (outcome.id, outcome.attempt) in held]

    async def _refuse(self, outcome: Outcome, error: Exception) -> None:
        """End the job of a result that Postgres refuses with ``error``; if the end is refused, too, give the job up.

        Otherwise the job would come back when the lease runs out, as if the worker had died.
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
        """Return the fences of lost outcomes. While the database is away, try again.

        Raise DatabaseUnavailable only for the fault of a row: a lock, or a failing function of an operator.
        """
        delay_seconds, faults, tried = _FIRST_RETRY_SECONDS, self._database.faults, False
        tries_of_code = _TRIES_OF_CODE if len(outcomes) > 1 else 1

        async def write(connection: Connection) -> set[Fence]:
            nonlocal tried
            again, tried = tried, True
            if again:
                # An earlier try may hold the rows while it waits for a standby; this one would wait as well.
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


class ProgressWriter:
    """Collects the steps of attempts and stores the last of each."""

    def __init__(self, database: Database, worker_id: str, changes: ChangeAnnouncer) -> None:
        self._database = database
        self._worker_id = worker_id
        self._changes = changes
        self._waiting: dict[Fence, int] = {}
        self._any = asyncio.Event()

    def step(self, attempt: Attempt, percent: int) -> None:
        """Record the progress of ``attempt``, which never goes back."""
        # 100 belongs to the stored result. A value out of range would fail the statement for all attempts.
        attempt.progress = max(attempt.progress, min(percent, 99))
        job = attempt.job
        self._waiting[job.id, job.attempt] = attempt.progress
        self._any.set()
        self._changes.progressed(job.id, job.attempt, attempt.progress)

    def forget(self, attempt: Attempt) -> None:
        """Drop the step of ``attempt``, unless stored already."""
        if attempt.progress:
            self._waiting.pop((attempt.job.id, attempt.job.attempt), None)

    async def run(self) -> None:
        """Store steps until cancelled."""
        while True:
            await self._any.wait()
            relayed = self._changes.publishes_progress
            await asyncio.sleep(_RELAYED_PROGRESS_INTERVAL_SECONDS if relayed else _PROGRESS_INTERVAL_SECONDS)
            self._any.clear()
            if not self._waiting:
                continue
            resting = set(self._database.faults.refused_rows("progress", _REFUSED_PROGRESS_REST_SECONDS))
            steps = [(fence, percent) for fence, percent in self._waiting.items() if fence[0] not in resting]
            self._waiting.clear()
            # Steps that cannot be stored now are replaced by later ones.
            with contextlib.suppress(IidqError, psycopg.Error):
                await each_apart(steps, self._store, self._leave_out)

    async def _store(self, steps: Sequence[tuple[Fence, int]]) -> None:
        async with self._database.connection() as connection:
            stored = await store.report_progress(connection, steps, worker_id=self._worker_id)
        if not self._changes.publishes_progress:
            for job_id, _ in stored:
                self._changes.changed(job_id)

    async def _leave_out(self, step: tuple[Fence, int], error: Exception) -> None:
        """Log the refusal of a row. The attempt goes on."""
        self._database.faults.row_refused("progress", step[0][0], error)
