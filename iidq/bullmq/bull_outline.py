"""Which jobs stand where, as one bounded statement tells it: ids and versions, no rows. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, Final

from iidq.bullmq.bull_keys import ENDED, BullState

MOST_LISTED: Final = 100_000
"""Of each state; of more waiting jobs than that, these are the first in line."""
MOST_WHOLE: Final = 5_000
"""At each end of the line, and of the delayed jobs that are due first: shown with their fields."""
# How far back, by creation, ended jobs are looked for; those that were seen in line or running are found anyway.
_NEWEST_LATELY: Final = 1_000
_NEWEST: Final = 10_000
# A transaction that ended a job may have begun so long before its commit.
_OVERLAP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended: the row's version, where it stands, and when it ended (ms since 1970)."""

    version: str
    state: BullState
    at_ms: int


@dataclass(frozen=True, slots=True)
class Outline:
    """The queue as one snapshot shows it; ``at`` is its time by the database's clock.

    ``waiting`` is in order, first in line first; ``delayed`` has the time at which each is due (ms since 1970).
    ``whole`` has the rows' versions of those unfinished jobs that are shown with their fields.
    """

    at: datetime
    paused: bool
    waiting: list[str]
    active: list[str]
    delayed: dict[str, int]
    unfinished: frozenset[str]
    whole: dict[str, str]
    ended: dict[str, Ended] = field(default_factory=dict)


def outline_parameters(since: datetime | None, *, most_failed: int) -> dict[str, Any]:
    """Of the statement "outline": it tells of jobs that ended after ``since``, or of the newest whenever they ended."""
    return {
        "most": MOST_LISTED,
        "most_whole": MOST_WHOLE,
        "newest": _NEWEST if since is None else _NEWEST_LATELY,
        "since": since,
        "overlap_seconds": _OVERLAP_SECONDS,
        "most_failed": most_failed,
    }


def parse_outline(row: tuple[Any, ...]) -> Outline:
    """The outline in Python's terms; a hundred thousand jobs take some tens of milliseconds."""
    at, paused, waiting, line_ends, active, delayed, ended = row
    line = waiting.split(",") if waiting else []
    running = dict(_items(active))
    later = list(_items(delayed))
    due = {job_id: int(due_ms) for job_id, _, due_ms in later}
    return Outline(
        at=at,
        paused=paused,
        waiting=line,
        active=list(running),
        delayed=due,
        unfinished=frozenset(chain(line, running, due)),
        whole=running | dict(_items(line_ends)) | {job_id: version for job_id, version, _ in later[:MOST_WHOLE]},
        ended={job_id: Ended(version, ENDED[status], int(at_ms)) for job_id, version, status, at_ms in _items(ended)},
    )


def _items(text: str | None) -> Iterator[Any]:
    return (item.split(" ") for item in text.split(",")) if text else iter(())
