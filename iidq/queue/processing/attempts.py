"""The attempts under way in one worker, each from its claim to the moment its outcome is stored.

start ──▶ handler, under a deadline ──▶ outcome ──▶ stored, many in one statement ──▶ settled
  │ ▲        │
  ▼ │        └─ lost or cancelled: interrupted, nothing is stored
 stands by, until a slot is free; after a while it is given back
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from uuid import UUID

import psycopg

from iidq.database.pool import Database
from iidq.errors import IidqError
from iidq.observability import logs, metrics, traces
from iidq.queue import store
from iidq.queue.backoff import RetryPolicy
from iidq.queue.job import FINAL, ClaimedJob, JobStatus
from iidq.queue.notify.announcer import ChangeAnnouncer
from iidq.queue.outcome import Outcome, OutcomeKind
from iidq.queue.processing.attempt import Attempt, Deadline
from iidq.queue.processing.claim_ahead import ClaimAhead
from iidq.queue.processing.execution import Handler, run_attempt, timed_out
from iidq.queue.processing.outcome_writer import OutcomeWriter
from iidq.queue.processing.standing_by import StandingBy
from iidq.queue.row_faults import each_apart
from iidq.queue.store import Fence
from iidq.settings import Settings

_PROGRESS_INTERVAL_SECONDS = 0.25
# While watchers see each step at once, the rows are only for those who poll.
_RELAYED_PROGRESS_INTERVAL_SECONDS = 2.0
# How long a job is left out whose row refuses its progress.
_REFUSED_PROGRESS_RESTS_SECONDS = 30.0
# After the drain's deadline: how long outcomes may still take to reach a database that is away.
_LAST_WRITE_SECONDS = 5.0


class Attempts:
    """Runs claimed jobs and stores how they end.

    ``freed`` is called when a slot or the memory of an outcome has become free; ``back_in_line`` when a job of ours was
    stored as queued again, with the seconds until it is due, or None for one that was given back; ``callback_due`` when
    a job that names a callback has ended. ``ahead`` is told how long each job took.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        handler: Handler,
        worker_id: str,
        *,
        changes: ChangeAnnouncer,
        ahead: ClaimAhead,
        freed: Callable[[], None],
        back_in_line: Callable[[float | None], None],
        callback_due: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._handler = handler
        self._worker_id = worker_id
        self._changes = changes
        self._ahead = ahead
        self._freed = freed
        self._back_in_line = back_in_line
        self._callback_due = callback_due
        self._policy = RetryPolicy(settings.retry_backoff_ms / 1000)
        self._under_way: dict[Fence, Attempt] = {}
        self._standing_by = StandingBy(self._give_up)
        # From the drain on nothing begins: what is started all the same, after a lost claim, goes back.
        self._closing = False
        # What one handler leaves in its context is not the next one's.
        self._context = contextvars.copy_context()
        self._progressed: dict[Fence, int] = {}
        self._any_progress = asyncio.Event()
        self._outcomes = OutcomeWriter(database, worker_id, self._settle)
        self.executing = 0
        """Handlers that run: slots in use."""

    @property
    def held(self) -> Mapping[Fence, object]:
        """What this worker holds leases of; changes under whoever looks."""
        return self._under_way

    @property
    def standing_by(self) -> int:
        """Claimed jobs that have no slot yet."""
        return len(self._standing_by)

    def start(self, jobs: Sequence[ClaimedJob]) -> None:
        """Run the jobs of one claim; those beyond the free slots stand by for the next ones."""
        slots = 0 if self._closing else self._settings.worker_concurrency - self.executing
        begun: list[Attempt] = []
        for job in jobs:
            fence = (job.id, job.attempt)
            before = self._under_way.get(fence)
            if before is not None and not before.lost:
                # The one that runs, or its outcome on the way, serves this claim, too.
                before.claimed_again = job
                continue
            attempt = self._under_way[fence] = Attempt(job)
            if len(begun) < slots:
                begun.append(attempt)
            else:
                self._standing_by.add(attempt)
        self._begin(begun)
        if self._closing:
            self._give_all_back()

    def _begin(self, attempts: list[Attempt]) -> None:
        if not attempts:
            return
        self.executing += len(attempts)
        started, deadline = perf_counter(), Deadline(attempts, self._settings.job_timeout_seconds)
        for attempt in attempts:
            attempt.started, attempt.deadline = started, deadline
            run = self._traced(attempt) if traces.on() else self._run(attempt)
            attempt.task = asyncio.create_task(run, context=self._context.copy())

    def _give_back(self, attempt: Attempt) -> None:
        """It stands by, and there is no slot for it."""
        self._standing_by.take(attempt)
        attempt.ended = True
        self._outcomes.put(Outcome.released(attempt.job))

    def _give_up(self, attempt: Attempt) -> None:
        self._ahead.waited_in_vain()
        self._give_back(attempt)

    def _give_all_back(self) -> int:
        attempts = self._standing_by.all()
        for attempt in attempts:
            self._give_back(attempt)
        return len(attempts)

    async def _run(self, attempt: Attempt) -> Outcome | None:
        job = attempt.job
        fence = (job.id, job.attempt)

        def progress(percent: int) -> None:
            # 100 is the stored result's; a step out of range would spoil the report of all running jobs.
            attempt.progress = max(attempt.progress, min(percent, 99))
            self._progressed[fence] = attempt.progress
            self._any_progress.set()
            self._changes.progressed(job.id, job.attempt, attempt.progress)

        logs.attempt_started(job.id, job.attempt, job.type)
        outcome: Outcome | None = None
        attempt.entered = True
        try:
            if attempt.interrupted:
                raise asyncio.CancelledError
            outcome = await run_attempt(job, self._handler, progress, policy=self._policy)
        except asyncio.CancelledError:
            outcome = self._timed_out(job) if attempt.timed_out else Outcome.released(job)
        finally:
            if attempt.lost:
                # Whatever the handler made of it: the lease may be another attempt's here by now.
                outcome = None
            attempt.ended = True
            now = perf_counter()
            attempt.seconds = now - (attempt.started or now)
            self.executing -= 1
            self._ahead.ended(now, attempt.seconds)
            if follower := self._standing_by.take_next():
                self._begin([follower])
            if attempt.progress:
                self._progressed.pop(fence, None)
            if attempt.deadline is not None:
                attempt.deadline.met()
            if outcome is not None:
                self._outcomes.put(outcome)
            elif self._under_way.get(fence) is attempt:
                del self._under_way[fence]
            self._freed()
        return outcome

    def _timed_out(self, job: ClaimedJob) -> Outcome:
        return timed_out(job, self._settings.job_timeout_seconds, self._policy)

    async def _traced(self, attempt: Attempt) -> Outcome | None:
        job = attempt.job
        attempt.settled = asyncio.get_running_loop().create_future()
        with traces.attempt(job.trace_context, job.id, job.attempt, job.type) as span:
            outcome = await self._run(attempt)
            if outcome is not None:
                with traces.span("store"):
                    await attempt.settled
                traces.attempt_ended(span, outcome.kind, outcome.failure)
        return outcome

    def _settle(self, outcomes: Sequence[Outcome], lost: set[Fence]) -> None:
        ended: list[tuple[OutcomeKind, float | None]] = []
        for outcome in outcomes:
            fence = (outcome.id, outcome.attempt)
            attempt = self._under_way.pop(fence)
            job = attempt.job
            if attempt.settled is not None and not attempt.settled.done():
                attempt.settled.set_result(None)
            if fence not in lost:
                ended.append((outcome.kind, attempt.seconds))
                logs.attempt_ended(job.id, job.attempt, outcome.status)
                self._changes.changed(job.id)
                if job.has_callback and outcome.status in FINAL:
                    self._callback_due()
                if outcome.status is JobStatus.QUEUED:
                    self._back_in_line(outcome.delay_seconds)
            else:
                metrics.lease_lost(attempt.seconds)
                logs.lease_lost(job.id, job.attempt)
                if attempt.claimed_again is not None:
                    self.start([attempt.claimed_again])
        metrics.attempts_ended(ended)
        self._freed()

    # Interrupting

    def cancel(self, job_id: UUID) -> None:
        """The job was cancelled: stop its attempt; its outcome would be dropped."""
        for attempt in self._interrupt({fence for fence in self._under_way if fence[0] == job_id}):
            logs.attempt_cancelled(attempt.job.id, attempt.job.attempt)
            metrics.attempts_ended([("cancelled", attempt.so_far())])

    def lose(self, fences: set[Fence]) -> None:
        """Their leases are gone: stop these attempts."""
        for attempt in [self._under_way[fence] for fence in fences if fence in self._under_way]:
            if attempt.claimed_again is not None and not attempt.ended:
                # The one that is gone may be the first of its two claims. If not, the next renewal tells again.
                attempt.claimed_again = None
                fences = fences - {(attempt.job.id, attempt.job.attempt)}
        for attempt in self._interrupt(fences):
            logs.lease_lost(attempt.job.id, attempt.job.attempt)
            metrics.lease_lost(attempt.so_far())

    def _interrupt(self, fences: set[Fence]) -> list[Attempt]:
        found = [self._under_way[fence] for fence in fences if fence in self._under_way]
        interrupted = [attempt for attempt in found if not attempt.ended and not attempt.lost]
        for attempt in interrupted:
            attempt.lost = True
            if attempt.task is None:
                self._standing_by.take(attempt)
                del self._under_way[attempt.job.id, attempt.job.attempt]
                self._freed()
            attempt.interrupt()
        return interrupted

    # Reporting

    async def report_progress(self) -> None:
        """Store how far the attempts are, now and then, until cancelled."""
        while True:
            await self._any_progress.wait()
            relayed = self._changes.publishes_progress
            await asyncio.sleep(_RELAYED_PROGRESS_INTERVAL_SECONDS if relayed else _PROGRESS_INTERVAL_SECONDS)
            self._any_progress.clear()
            if not self._progressed:
                continue
            resting = set(self._database.faults.resting("progress", _REFUSED_PROGRESS_RESTS_SECONDS))
            progressed = [told for told in self._progressed.items() if told[0][0] not in resting]
            self._progressed.clear()
            # Progress is for onlookers: what cannot be written now is overtaken by the next.
            with contextlib.suppress(IidqError, psycopg.Error):
                await each_apart(progressed, self._report, self._leave_out)

    async def _report(self, progressed: Sequence[tuple[Fence, int]]) -> None:
        async with self._database.connection() as connection:
            stored = await store.report_progress(connection, progressed, worker_id=self._worker_id)
        if not self._changes.publishes_progress:
            for job_id, _ in stored:
                self._changes.changed(job_id)

    async def _leave_out(self, progressed: tuple[Fence, int], error: Exception) -> None:
        """The row refuses its progress; its attempt goes on, and its end will tell."""
        self._database.faults.row_refused("progress", progressed[0][0], error)

    # Ending

    async def drain(self, deadline_seconds: float, hurry: asyncio.Event) -> int:
        """Let running ones end until the deadline or ``hurry``, then give the rest back, as at once what stands by.

        Returns how many were given back.
        """
        self._closing = True
        never_begun = self._give_all_back()
        settling = asyncio.create_task(self._all_settled())
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait([settling, hurrying], timeout=deadline_seconds, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        given_back = [attempt for attempt in self._under_way.values() if not attempt.ended]
        for attempt in given_back:
            attempt.interrupt()
        await asyncio.wait([settling], timeout=_LAST_WRITE_SECONDS)
        settling.cancel()
        self._outcomes.abandon()
        return never_begun + len(given_back)

    async def _all_settled(self) -> None:
        while tasks := [each.task for each in self._under_way.values() if each.task is not None and not each.ended]:
            await asyncio.wait(tasks)
        await self._outcomes.written()
