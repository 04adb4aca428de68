"""One claimed job, one attempt: run the handler under its deadline and decide what the row shall say.

handler returns ───────────────▶ completed
handler raises, or takes too long
    permanent, or tried enough ─▶ failed
    temporary ──────────────────▶ queued again after a backoff, charged
cancelled by a drain ───────────▶ queued again at once, uncharged
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from iidq.errors import AttemptTimedOut, IidqError, TemporaryFault
from iidq.observability import logs
from iidq.queue.backoff import RetryPolicy
from iidq.queue.job import ClaimedJob
from iidq.queue.outcome import Outcome

Progress = Callable[[int], None]
Handler = Callable[[ClaimedJob, Progress], Awaitable[dict[str, Any]]]

# What a client reads of an error that nobody foresaw; the log has its stack.
_UNFORESEEN = IidqError("an unexpected error; see the worker's log")


async def run_attempt(job: ClaimedJob, handler: Handler, progress: Progress, *, policy: RetryPolicy) -> Outcome:
    """Run one attempt to its outcome. Raises nothing but CancelledError, and that only where its task is cancelled."""
    try:
        return Outcome.completed(job, await handler(job, progress))
    except IidqError as error:
        return _after_failure(job, error, policy)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Nobody asked for it: something inside the handler was cancelled. Released uncharged, it could loop for ever.
        logs.attempt_crashed(job.id, job.attempt, error)
        return _after_failure(job, _UNFORESEEN, policy)
    except Exception as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # What a handler makes of being cancelled is not what ended it.
            raise asyncio.CancelledError from error
        logs.attempt_crashed(job.id, job.attempt, error)
        return _after_failure(job, _UNFORESEEN, policy)


def timed_out(job: ClaimedJob, timeout_seconds: float, policy: RetryPolicy) -> Outcome:
    """The outcome of an attempt that was cancelled because it took too long."""
    return _after_failure(job, AttemptTimedOut(f"no outcome within {timeout_seconds:g} s"), policy)


def _after_failure(job: ClaimedJob, error: IidqError, policy: RetryPolicy) -> Outcome:
    delay_seconds = policy.delay_seconds(
        retry_count=job.retry_count,
        max_attempts=job.max_attempts,
        # A bug may be one of the moment; only a fault known as permanent ends the job at once.
        temporary=error.temporary or error is _UNFORESEEN,
        draw=random.random(),  # noqa: S311
        wish_seconds=error.retry_after_seconds if isinstance(error, TemporaryFault) else None,
    )
    failure = str(error)
    logs.attempt_failed(job.id, job.attempt, failure, delay_seconds)
    if delay_seconds is None:
        return Outcome.failed(job, failure)
    return Outcome.retried(job, failure, delay_seconds)
