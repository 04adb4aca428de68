"""An attempt at a claimed job: the handler under a deadline, and the outcome.

handler returns ───────────────▶ completed
handler raises, or takes too long
    permanent, or last attempt ─▶ failed
    temporary ──────────────────▶ queued again after a backoff, charged
cancelled by a drain ───────────▶ queued again at once, uncharged
lease lost, or job cancelled ───▶ no outcome
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from time import perf_counter
from typing import Any

from iidq.errors import AttemptTimedOut, IidqError, TemporaryFault
from iidq.observability import logs
from iidq.queue.backoff import RetryPolicy
from iidq.queue.job import ClaimedJob
from iidq.queue.outcome import Outcome

Progress = Callable[[int], None]
"""Reports the percentage that a handler has reached, 0 to 99."""
Handler = Callable[[ClaimedJob, Progress], Awaitable[dict[str, Any]]]
"""Runs a job and returns the result. Raises an IidqError when there is none."""

# Shown to clients in place of an unexpected error; the log has the stack.
_UNEXPECTED = IidqError("an unexpected error; see the worker's log")


class Phase(Enum):
    """How far an attempt has come in this worker."""

    CLAIMED = auto()
    """The task has not taken the first step."""
    RUNNING = auto()
    """The handler runs."""
    ENDED = auto()
    """The outcome is being stored."""


class Interruption(Enum):
    """Why an attempt was interrupted."""

    TIMED_OUT = auto()
    """At its deadline; charged."""
    RELEASED = auto()
    """By a drain; uncharged."""
    LOST = auto()
    """The lease is gone, or the job was cancelled; nothing may be stored."""


@dataclass(slots=True, eq=False)
class Attempt:
    """A claimed job in a worker, until the outcome is stored."""

    job: ClaimedJob
    phase: Phase = Phase.CLAIMED
    interruption: Interruption | None = None
    """Set from the first interruption on; None: none so far."""
    deadline: "Deadline | None" = None
    """Shared by all attempts of a claim; None before the start."""
    task: asyncio.Task[Outcome | None] | None = None
    progress: int = 0
    """The largest percentage reported so far."""
    claimed_again: ClaimedJob | None = None
    """The same attempt, claimed a second time: a crash of the database had undone the first claim."""
    stored: asyncio.Future[None] | None = None
    """Done when the outcome is stored; None where traces are off."""
    ended_at: float | None = None
    """When the handler ended, by ``perf_counter``; None before."""

    def interrupt(self, reason: Interruption) -> None:
        """Cancel the handler, unless it has ended. The first reason counts, but a lost lease always does."""
        if self.interruption is None or reason is Interruption.LOST:
            self.interruption = reason
        # A task cancelled before its first step would never free its slot; its first step reads ``interruption``.
        if self.task is not None and self.phase is Phase.RUNNING:
            self.task.cancel()

    def end(self) -> None:
        """Leave the deadline and stop the time."""
        self.phase = Phase.ENDED
        if self.deadline is not None:
            self.ended_at = perf_counter()
            self.deadline.leave()

    def seconds(self) -> float | None:
        """Return how long the attempt has run; None if it never started."""
        if self.deadline is None:
            return None
        return (self.ended_at or perf_counter()) - self.deadline.began


class Deadline:
    """The deadline of all attempts of a claim, with a single timer: a timer each cost 4 µs of 30 per job.

    ``began`` is by ``perf_counter``: the event loop's clock does not move while a handler blocks the loop.
    """

    __slots__ = ("_attempts", "_left", "_timer", "began")

    def __init__(self, attempts: Sequence[Attempt], seconds: float) -> None:
        self.began = perf_counter()
        self._attempts = attempts
        self._left = len(attempts)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._pass)

    def leave(self) -> None:
        """Record that an attempt has ended."""
        self._left -= 1
        if not self._left:
            self._timer.cancel()
            self._attempts = ()

    def _pass(self) -> None:
        for attempt in self._attempts:
            attempt.interrupt(Interruption.TIMED_OUT)


async def run_attempt(job: ClaimedJob, handler: Handler, progress: Progress, *, policy: RetryPolicy) -> Outcome:
    """Run the handler and return the outcome. Raise only CancelledError, and only if the task is cancelled."""
    try:
        return Outcome.completed(job, await handler(job, progress))
    except IidqError as error:
        return _after_failure(job, error, policy)
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Errors of a handler that is being cancelled do not count.
            raise asyncio.CancelledError from error
        # A CancelledError from inside the handler is an error, too: released uncharged, the job could loop for ever.
        logs.attempt_crashed(job.id, job.attempt, error)
        return _after_failure(job, _UNEXPECTED, policy)


def interrupted(attempt: Attempt, timeout_seconds: float, policy: RetryPolicy) -> Outcome:
    """Return the outcome of an attempt that was cancelled."""
    if attempt.interruption is Interruption.TIMED_OUT:
        return _after_failure(attempt.job, AttemptTimedOut(f"no outcome within {timeout_seconds:g} s"), policy)
    return Outcome.released(attempt.job)


def _after_failure(job: ClaimedJob, error: IidqError, policy: RetryPolicy) -> Outcome:
    delay_seconds = policy.delay_seconds(
        retry_count=job.retry_count,
        max_attempts=job.max_attempts,
        # An unexpected error may pass; only a fault known as permanent fails the job at once.
        temporary=error.temporary or error is _UNEXPECTED,
        draw=random.random(),  # noqa: S311
        wish_seconds=error.retry_after_seconds if isinstance(error, TemporaryFault) else None,
    )
    failure = str(error)
    logs.attempt_failed(job.id, job.attempt, failure, delay_seconds)
    if delay_seconds is None:
        return Outcome.failed(job, failure)
    return Outcome.retried(job, failure, delay_seconds)
