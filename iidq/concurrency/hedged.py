"""A hedged request: sources start in order, each with a head start, and the first good answer wins.

The next source starts after a failure, or at the end of the latest head start. After the first good answer the rest is
cancelled.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from iidq.errors import IidqError

Source = TypeVar("Source")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class HedgedRequest(Generic[Source, Answer]):
    """A request to one source."""

    source: Source
    """The source."""
    task: asyncio.Task[Answer]
    """The request; cancelled if another source won first."""
    fault: IidqError | None = None
    """The reason why the source did not win; None for the winner and for a cancelled request."""


@dataclass(slots=True)
class Race(Generic[Source, Answer]):
    """The course of a hedged request."""

    attempts: list[HedgedRequest[Source, Answer]] = field(default_factory=list)
    """Every source that was started, in the order of the starts."""
    failed: list[HedgedRequest[Source, Answer]] = field(default_factory=list)
    """The attempts with a fault, in the order of the failures."""
    winner: HedgedRequest[Source, Answer] | None = None
    """The attempt with the first good answer; None if every source failed."""

    @property
    def overtaken(self) -> list[HedgedRequest[Source, Answer]]:
        """Return the attempts that started before the winner and had not ended."""
        if self.winner is None:
            return []
        return [attempt for attempt in self.attempts[: self.attempts.index(self.winner)] if attempt.fault is None]

    def settle(self, losing: tuple[type[IidqError], ...]) -> None:
        """Sort newly ended attempts into failures and the winner."""
        for attempt in self.attempts:
            if attempt.fault is not None or not attempt.task.done():
                continue
            try:
                attempt.task.result()
            except losing as fault:
                attempt.fault = fault
                self.failed.append(attempt)
            else:
                self.winner = self.winner or attempt


async def race(
    sources: Sequence[Source],
    request: Callable[[Source], Coroutine[Any, Any, Answer]],
    *,
    head_start_seconds: float,
    losing: tuple[type[IidqError], ...],
) -> Race[Source, Answer]:
    """Run ``request`` on the sources until the first answer, or until all have failed.

    A fault of the ``losing`` types counts against the source. Any other error ends the race and is raised. No request
    is left running.
    """
    course: Race[Source, Answer] = Race()
    waiting = list(reversed(sources))
    try:
        while waiting or len(course.failed) < len(course.attempts):
            if waiting:
                source = waiting.pop()
                course.attempts.append(HedgedRequest(source, asyncio.create_task(request(source))))
            await asyncio.wait(
                [attempt.task for attempt in course.attempts if attempt.fault is None],
                timeout=head_start_seconds if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            course.settle(losing)
            if course.winner is not None:
                break
        return course
    finally:
        tasks = [attempt.task for attempt in course.attempts]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
