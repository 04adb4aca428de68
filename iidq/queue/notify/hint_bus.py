"""The queue's interface to a second transport for hints, in addition to Postgres' notifications. Pure.

Hints may be lost, as notifications may. ``redis/redis_hint_bus.py`` implements the interface with Redis.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol
from uuid import UUID

from iidq.queue.identifiers import parse_job_id

PROGRESS_CHANNEL: Final = "iidq_progress"
"""Progress of running jobs, step by step; sent through a hint bus only, never through Postgres."""


class HintBus(Protocol):
    """Hints under the channel names of ``channels.py``."""

    def is_up(self, channel: str) -> bool:
        """Return whether hints on the channel are sent at present, as far as is known."""

    def is_subscribed(self, channel: str) -> bool:
        """Return whether this process receives the channel."""

    def publish(self, channel: str, payload: str) -> None:
        """Send a hint, a line of text, soon. Return at once; drop hints that cannot be sent."""

    async def publish_now(self, channel: str, payloads: Sequence[str]) -> bool:
        """Send hints, within a short bound; return whether a subscriber received them."""

    async def run(self, heard: Mapping[str, Callable[[str], None]], connected: Callable[[], None]) -> None:
        """Receive until cancelled; call ``connected`` when hints may have been missed."""


class NoHintBus:
    """No transport: Postgres' notifications alone carry hints."""

    def is_up(self, channel: str) -> bool:
        """Return False."""
        return False

    def is_subscribed(self, channel: str) -> bool:
        """Return False."""
        return False

    def publish(self, channel: str, payload: str) -> None:
        """Drop the hint."""

    async def publish_now(self, channel: str, payloads: Sequence[str]) -> bool:
        """Return False."""
        return False

    async def run(self, heard: Mapping[str, Callable[[str], None]], connected: Callable[[], None]) -> None:
        """Return at once."""


NO_HINT_BUS: Final = NoHintBus()


def progress_line(job_id: UUID, attempt: int, percent: int) -> str:
    """Return a step of a running job as published."""
    return f"{job_id} {attempt} {percent}"


def read_progress(line: str) -> tuple[str, int, int] | None:
    """Return the job's id as text, the attempt and the percent (0 to 99); None for any other line."""
    words = line.split(" ")
    if len(words) != 3 or not all(word.isascii() and word.isdigit() and len(word) <= 9 for word in words[1:]):
        return None
    attempt, percent = int(words[1]), int(words[2])
    return (words[0], attempt, percent) if parse_job_id(words[0]) and percent < 100 else None
