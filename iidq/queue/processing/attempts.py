"""All attempts of a worker, from the claim to the report of the end.

claimed ───▶ started ───▶ ran ───▶ recorded ───▶ reported
start()      _begin()     _run()   _record()     _report()
  │                         │
  │                         └─ lease lost or job cancelled: interrupted and forgotten
  └─ draining, or no free slot: released at once, uncharged

claimed    The attempt is under way: the worker renews the lease.
started    The attempt has a slot, a deadline and a task.
ran        The handler has returned, raised or was interrupted: ``execution.py`` makes the outcome.
recorded   The slot is free, and the outcome is with the ``OutcomeWriter``, which stores many in a statement.
reported   The outcome is committed, or the lease was lost: logs, metrics, traces, watchers, webhooks, the loop.
"""

import asyncio
import contextvars
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from uuid import UUID

from iidq.database.pool import Database
from iidq.observability import logs, metrics, traces
from iidq.queue.backoff import RetryPolicy
from iidq.queue.job import ClaimedJob
from iidq.queue.notify.announcer import ChangeAnnouncer
from iidq.queue.outcome import Outcome, OutcomeKind
from iidq.queue.processing.execution import (
    Attempt,
    Deadline,
    Handler,
    Interruption,
    Phase,
    interrupted,
    run_attempt,
)
from iidq.queue.processing.writers import OutcomeWriter, ProgressWriter
from iidq.queue.store import Fence
from iidq.settings import Settings

# After the drain's deadline: how long outcomes may still take to reach a database that is away.
_LAST_WRITE_SECONDS = 5.0


class Attempts:
    """Runs claimed jobs and stores their outcomes.

    ``freed`` is called when a slot, or the memory of an outcome, is free again. ``stored`` is called with each
    committed outcome and the job.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        handler: Handler,
        worker_id: str,
        *,
        changes: ChangeAnnouncer,
        freed: Callable[[], None],
        stored: Callable[[ClaimedJob, Outcome], None],
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._freed = freed
        self._stored = stored
        self._policy = RetryPolicy(settings.retry_backoff_ms / 1000)
        self._outcomes = OutcomeWriter(database, worker_id, self._report)
        self.progress = ProgressWriter(database, worker_id, changes)
        self._under_way: dict[Fence, Attempt] = {}
        self._draining = False
        # Each handler gets a copy, so that it sees no context variable of another handler.
        self._context = contextvars.copy_context()
        self.executing = 0
        """Handlers that run: slots in use."""

    @property
    def held(self) -> Mapping[Fence, object]:
        """Live view of every leased attempt, keyed by (id, attempt)."""
        return self._under_way

    # The pipeline

    def start(self, jobs: Sequence[ClaimedJob]) -> None:
        """Start the jobs of a claim; release the rest when no slot is free."""
        free = 0 if self._draining else self._settings.worker_concurrency - self.executing
        begun: list[Attempt] = []
        for job in jobs:
            fence = (job.id, job.attempt)
            before = self._under_way.get(fence)
            if before is not None and before.interruption is not Interruption.LOST:
                # The attempt that runs or is being stored serves this claim, too.
                before.claimed_again = job
                continue
            attempt = self._under_way[fence] = Attempt(job)
            if len(begun) < free:
                begun.append(attempt)
            else:
                attempt.end()
                self._outcomes.put(Outcome.released(job))
        if begun:
            self._begin(begun)

    def _begin(self, attempts: Sequence[Attempt]) -> None:
        self.executing += len(attempts)
        deadline = Deadline(attempts, self._settings.job_timeout_seconds)
        for attempt in attempts:
            attempt.deadline = deadline
            run = self._run_traced(attempt) if traces.on() else self._run(attempt)
            attempt.task = asyncio.create_task(run, context=self._context.copy())

    async def _run(self, attempt: Attempt) -> Outcome | None:
        job = attempt.job
        logs.attempt_started(job.id, job.attempt, job.type)
        outcome: Outcome | None = None
        attempt.phase = Phase.RUNNING
        try:
            if attempt.interruption is not None:
                raise asyncio.CancelledError
            progress = partial(self.progress.step, attempt)
            outcome = await run_attempt(job, self._handler, progress, policy=self._policy)
        except asyncio.CancelledError:
            outcome = interrupted(attempt, self._settings.job_timeout_seconds, self._policy)
        finally:
            if attempt.interruption is Interruption.LOST:
                # The handler may have returned a result, but another attempt may hold the lease by now.
                outcome = None
            self._record(attempt, outcome)
        return outcome

    async def _run_traced(self, attempt: Attempt) -> Outcome | None:
        job = attempt.job
        attempt.stored = asyncio.get_running_loop().create_future()
        with traces.attempt(job.trace_context, job.id, job.attempt, job.type) as span:
            outcome = await self._run(attempt)
            if outcome is not None:
                with traces.span("store"):
                    await attempt.stored
                traces.attempt_ended(span, outcome.kind, outcome.failure)
        return outcome

    def _record(self, attempt: Attempt, outcome: Outcome | None) -> None:
        attempt.end()
        self.executing -= 1
        self.progress.forget(attempt)
        if outcome is not None:
            self._outcomes.put(outcome)
        else:
            self._forget(attempt)
        self._freed()

    def _forget(self, attempt: Attempt) -> None:
        fence = (attempt.job.id, attempt.job.attempt)
        # After a crash of the database, a second attempt of the same number may be in its place.
        if self._under_way.get(fence) is attempt:
            del self._under_way[fence]

    def _report(self, outcomes: Sequence[Outcome], lost: Collection[Fence]) -> None:
        """Take over a batch from the outcome writer; outcomes in ``lost`` were not stored."""
        ended: list[tuple[OutcomeKind, float | None]] = []
        for outcome in outcomes:
            fence = (outcome.id, outcome.attempt)
            attempt = self._under_way.pop(fence)
            if attempt.stored is not None and not attempt.stored.done():
                attempt.stored.set_result(None)
            if fence in lost:
                self._report_lost(attempt)
                if attempt.claimed_again is not None:
                    self.start([attempt.claimed_again])
            else:
                ended.append((outcome.kind, attempt.seconds()))
                logs.attempt_ended(outcome.id, outcome.attempt, outcome.status)
                self._stored(attempt.job, outcome)
        metrics.attempts_ended(ended)
        self._freed()

    def _report_lost(self, attempt: Attempt) -> None:
        logs.lease_lost(attempt.job.id, attempt.job.attempt)
        metrics.lease_lost(attempt.seconds())

    # Interruptions

    def cancel(self, job_id: UUID) -> None:
        """Stop the attempt of a cancelled job: no outcome could be stored."""
        for attempt in self._lose({fence for fence in self._under_way if fence[0] == job_id}):
            logs.attempt_cancelled(attempt.job.id, attempt.job.attempt)
            metrics.attempts_ended([("cancelled", attempt.seconds())])

    def lose(self, fences: Collection[Fence]) -> None:
        """Stop attempts without a lease, as found by a renewal.

        An attempt claimed twice is spared once, since only the first claim may be gone. The next renewal decides.
        """
        gone: set[Fence] = set()
        for fence in fences:
            attempt = self._under_way.get(fence)
            if attempt is not None and attempt.claimed_again is not None and attempt.phase is not Phase.ENDED:
                attempt.claimed_again = None
            else:
                gone.add(fence)
        for attempt in self._lose(gone):
            self._report_lost(attempt)

    def _lose(self, fences: Collection[Fence]) -> list[Attempt]:
        """Interrupt running attempts; return the interrupted."""
        found = [attempt for fence in fences if (attempt := self._under_way.get(fence)) is not None]
        running = [
            attempt
            for attempt in found
            if attempt.phase is not Phase.ENDED and attempt.interruption is not Interruption.LOST
        ]
        for attempt in running:
            attempt.interrupt(Interruption.LOST)
        return running

    # The end

    async def drain(self, deadline_seconds: float, hurry: asyncio.Event) -> int:
        """Let attempts end until the deadline or ``hurry``, then release the rest; return how many were released."""
        self._draining = True
        reporting = asyncio.create_task(self._all_reported())
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait([reporting, hurrying], timeout=deadline_seconds, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        released = self._running()
        for attempt in released:
            attempt.interrupt(Interruption.RELEASED)
        await asyncio.wait([reporting], timeout=_LAST_WRITE_SECONDS)
        reporting.cancel()
        self._outcomes.abandon()
        return len(released)

    async def _all_reported(self) -> None:
        while tasks := [attempt.task for attempt in self._running() if attempt.task is not None]:
            await asyncio.wait(tasks)
        await self._outcomes.written()

    def _running(self) -> list[Attempt]:
        return [attempt for attempt in self._under_way.values() if attempt.phase is not Phase.ENDED]
