"""A second way for hints between processes, beside Postgres' notifications: what the queue expects of it. Pure.

As with notifications, any may be lost, so nothing depends on one. ``redis/redis_hint_bus.py`` has one through Redis.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol
from uuid import UUID

from iidq.queue.identifiers import parse_job_id

PROGRESS_CHANNEL: Final = "iidq_progress"
"""How far running jobs are, step by step; through a relay alone, never through Postgres."""


class Relay(Protocol):
    """Hints under the channels' names of ``announcements.py``."""

    def carries(self, channel: str) -> bool:
        """Whether what is published there gets through at present, as far as one can know."""

    def hears(self, channel: str) -> bool:
        """Whether this process hears what is published there."""

    def publish(self, channel: str, payload: str) -> None:
        """Pass a hint on, one line of text. Returns at once; what cannot be sent is dropped."""

    async def deliver(self, channel: str, payloads: Sequence[str]) -> bool:
        """Pass hints on now; whether somebody hears them. Never takes long."""

    async def run(self, heard: Mapping[str, Callable[[str], None]], connected: Callable[[], None]) -> None:
        """Hear until cancelled; ``connected`` is called when hints may have been missed."""


class NoRelay:
    """There is only Postgres."""

    def carries(self, channel: str) -> bool:
        """Nothing gets through."""
        return False

    def hears(self, channel: str) -> bool:
        """Nothing is heard."""
        return False

    def publish(self, channel: str, payload: str) -> None:
        """Dropped."""

    async def deliver(self, channel: str, payloads: Sequence[str]) -> bool:
        """Nobody hears."""
        return False

    async def run(self, heard: Mapping[str, Callable[[str], None]], connected: Callable[[], None]) -> None:
        """Over at once."""


NO_RELAY: Final = NoRelay()


def progress_line(job_id: UUID, attempt: int, percent: int) -> str:
    """A step of a running job, as it is published."""
    return f"{job_id} {attempt} {percent}"


def read_progress(line: str) -> tuple[str, int, int] | None:
    """The job's id as text, the attempt and how far it is (0 to 99); None for what is no such line."""
    words = line.split(" ")
    if len(words) != 3 or not all(word.isascii() and word.isdigit() and len(word) <= 9 for word in words[1:]):
        return None
    attempt, percent = int(words[1]), int(words[2])
    return (words[0], attempt, percent) if parse_job_id(words[0]) and percent < 100 else None
