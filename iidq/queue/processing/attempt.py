"""What a worker knows of one attempt, from its claim to the moment its outcome is stored."""

import asyncio
from time import perf_counter

from iidq.queue.job import ClaimedJob
from iidq.queue.outcome import Outcome


class Deadline:
    """When attempts that begin together must have ended. One timer for all: one each cost 4 µs of 30 per job."""

    __slots__ = ("_attempts", "_left", "_timer")

    def __init__(self, attempts: list["Attempt"], seconds: float) -> None:
        self._attempts = attempts
        self._left = len(attempts)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._pass)

    def met(self) -> None:
        """One of the attempts has ended."""
        self._left -= 1
        if not self._left:
            self._timer.cancel()
            self._attempts = []

    def _pass(self) -> None:
        for attempt in self._attempts:
            # One that was interrupted before is not charged for being slow to clean up.
            attempt.timed_out = not attempt.interrupted
            attempt.interrupt()


class Attempt:
    """One claimed job in this worker: it stands by, runs, or has ended and its outcome is on its way."""

    __slots__ = (
        "claimed_again",
        "deadline",
        "ended",
        "entered",
        "interrupted",
        "job",
        "lost",
        "progress",
        "seconds",
        "settled",
        "started",
        "task",
        "timed_out",
    )

    def __init__(self, job: ClaimedJob) -> None:
        self.job = job
        self.task: asyncio.Task[Outcome | None] | None = None
        self.deadline: Deadline | None = None
        self.started: float | None = None
        # How long it ran; None where it never began.
        self.seconds: float | None = None
        self.progress = 0
        self.entered = self.interrupted = self.timed_out = self.ended = self.lost = False
        # A crash of the database undid the claim, and this worker got the same attempt anew.
        self.claimed_again: ClaimedJob | None = None
        # For its trace: where traces are on, there once the outcome is stored.
        self.settled: asyncio.Future[None] | None = None

    def interrupt(self) -> None:
        """Cancel the handler, unless it has ended."""
        self.interrupted = True
        # A task that is cancelled before its first step would never come to free its slot; it looks at the flag.
        if self.task is not None and self.entered and not self.ended:
            self.task.cancel()

    def so_far(self) -> float | None:
        """Seconds since it began; None where it has not."""
        return None if self.started is None else perf_counter() - self.started
