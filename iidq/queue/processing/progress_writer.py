"""Stores the progress of a worker's running attempts, many in one statement, a few times a second at most."""

import asyncio
import contextlib
from collections.abc import Sequence

import psycopg

from iidq.database.pool import Database
from iidq.errors import IidqError
from iidq.queue import store
from iidq.queue.notify.changes import ChangeAnnouncer
from iidq.queue.processing.execution import Attempt
from iidq.queue.row_faults import each_apart
from iidq.queue.store import Fence

_INTERVAL_SECONDS = 0.25
# While watchers get each step at once, the rows serve only clients that poll.
_RELAYED_INTERVAL_SECONDS = 2.0
# How long the job of a row that refuses its progress is left out.
_REFUSED_REST_SECONDS = 30.0


class ProgressWriter:
    """Collects the steps of attempts and stores the last of each."""

    def __init__(self, database: Database, worker_id: str, changes: ChangeAnnouncer) -> None:
        self._database = database
        self._worker_id = worker_id
        self._changes = changes
        self._waiting: dict[Fence, int] = {}
        self._any = asyncio.Event()

    def step(self, attempt: Attempt, percent: int) -> None:
        """Record that ``attempt`` has reached ``percent``. Progress never goes back."""
        # 100 belongs to the stored result. A value out of range would fail the statement for all attempts.
        attempt.progress = max(attempt.progress, min(percent, 99))
        job = attempt.job
        self._waiting[job.id, job.attempt] = attempt.progress
        self._any.set()
        self._changes.progressed(job.id, job.attempt, attempt.progress)

    def forget(self, attempt: Attempt) -> None:
        """Drop a step that is not stored yet."""
        if attempt.progress:
            self._waiting.pop((attempt.job.id, attempt.job.attempt), None)

    async def run(self) -> None:
        """Store steps until cancelled."""
        while True:
            await self._any.wait()
            relayed = self._changes.relays_progress
            await asyncio.sleep(_RELAYED_INTERVAL_SECONDS if relayed else _INTERVAL_SECONDS)
            self._any.clear()
            if not self._waiting:
                continue
            resting = set(self._database.faults.resting("progress", _REFUSED_REST_SECONDS))
            steps = [(fence, percent) for fence, percent in self._waiting.items() if fence[0] not in resting]
            self._waiting.clear()
            # Steps that cannot be stored now are replaced by later ones.
            with contextlib.suppress(IidqError, psycopg.Error):
                await each_apart(steps, self._store, self._leave_out)

    async def _store(self, steps: Sequence[tuple[Fence, int]]) -> None:
        async with self._database.connection() as connection:
            stored = await store.report_progress(connection, steps, worker_id=self._worker_id)
        if not self._changes.relays_progress:
            for job_id, _ in stored:
                self._changes.changed(job_id)

    async def _leave_out(self, step: tuple[Fence, int], error: Exception) -> None:
        """Log a row that refuses its progress. The attempt goes on."""
        self._database.faults.row_refused("progress", step[0][0], error)
