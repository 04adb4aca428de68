"""Read the outline of the queue, one bounded statement: the ids and versions of jobs by state, no rows. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, Final

from iidq.bullmq.keys import ENDED, BullState

MOST_LISTED: Final = 100_000
"""Most ids of each state; of more waiting jobs, the first in line."""
MOST_WHOLE: Final = 5_000
"""Most jobs with a hash: at each end of the line, and of the delayed jobs that are due first."""
# Newest jobs by creation among which ended ones are searched; jobs that were seen before are found by their ids.
_NEWEST_LATELY: Final = 1_000
_NEWEST: Final = 10_000
# Longest time between the start and the commit of a transaction that ends a job.
_OVERLAP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """An ended job."""

    version: str
    """Version of the row (xmin)."""
    state: BullState
    """Completed or failed."""
    at_ms: int
    """Time of the end, in ms since 1970."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The queue in one snapshot."""

    at: datetime
    """Time of the snapshot by the clock of the database."""
    paused: bool
    """Whether the queue is paused."""
    waiting: list[str]
    """Ids of waiting jobs, first in line first."""
    active: list[str]
    """Ids of running jobs, longest running first."""
    delayed: dict[str, int]
    """Due time of each delayed job by id, in ms since 1970."""
    unfinished: frozenset[str]
    """Ids of all waiting, running and delayed jobs."""
    whole: dict[str, str]
    """Row versions, by id, of the unfinished jobs that get a hash."""
    ended: dict[str, Ended] = field(default_factory=dict)
    """Jobs that ended since the last outline."""


def outline_parameters(since: datetime | None, *, most_failed: int) -> dict[str, Any]:
    """Return the parameters of the statement "outline"; ``since`` None takes the newest ended jobs of any time."""
    return {
        "most": MOST_LISTED,
        "most_whole": MOST_WHOLE,
        "newest": _NEWEST if since is None else _NEWEST_LATELY,
        "since": since,
        "overlap_seconds": _OVERLAP_SECONDS,
        "most_failed": most_failed,
    }


def parse_outline(row: tuple[Any, ...]) -> Outline:
    """Return the outline of the statement's row; 100,000 jobs take some tens of milliseconds."""
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
