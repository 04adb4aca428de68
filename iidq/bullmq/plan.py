"""Compute the commands to bring BullMQ's keys up to date. Pure.

:func:`survey` compares the outline of the queue with the keys and selects the rows to read. :func:`plan` makes the
commands from the rows. Rows over the bound of a round are left for the next round.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

from iidq.bullmq.keys import (
    ENDED,
    META,
    OURS,
    BullState,
    bull_state,
    delayed_score,
    job_fields,
    job_key,
    milliseconds,
)
from iidq.bullmq.list_edits import Command, list_edits, set_edits
from iidq.bullmq.outline import Outline
from iidq.queue.identifiers import parse_job_id
from iidq.queue.job import Job, JobStatus

MOST_ENDED: Final = 1_000
"""Completed jobs that are shown, and failed ones: the newest."""
EXPIRY_SECONDS: Final = 3600
"""Expiry of every key, in seconds since its last write."""
_ROWS_PER_ROUND: Final = 1_000

_UNKNOWN: Final = ""


@dataclass(slots=True)
class Shown:
    """The content of the keys, as last written or read by the present process."""

    wait: list[str] = field(default_factory=list)
    """Ids of waiting jobs, from the head of the list: the next job is last."""
    active: list[str] = field(default_factory=list)
    """Ids of running jobs, latest first."""
    delayed: dict[str, int] = field(default_factory=dict)
    """Scores of delayed jobs by id."""
    completed: dict[str, int] = field(default_factory=dict)
    """End of each completed job by id, in ms since 1970."""
    failed: dict[str, int] = field(default_factory=dict)
    """End of each failed job by id, in ms since 1970."""
    paused: bool = False
    """Whether the queue is paused."""
    versions: dict[str, str] = field(default_factory=dict)
    """Row version of each written hash by id, oldest write first; empty for a hash that must be written again."""
    unresolved: set[str] = field(default_factory=set)
    """Ids of jobs that left the waiting or running jobs; their new state is not read yet."""

    def doubt_hashes(self, most: int) -> None:
        """Mark up to ``most`` hashes to be written again: another client may have changed or removed them."""
        for job_id in list(islice(self.versions, most)):
            self.versions[job_id] = _UNKNOWN


@dataclass(frozen=True, slots=True)
class Survey:
    """The rows to read in this round."""

    outline: Outline
    """The queue's state in Postgres."""
    unresolved: set[str]
    """Ids of jobs that left the waiting or running jobs."""
    to_read: list[str]
    """Ids of the rows to read, at most :data:`_ROWS_PER_ROUND`."""
    more: bool
    """Whether further rows are left for the next round."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Commands to send, hashes before moves: a reader of a list then finds the hash of every job in the list."""

    hashes: list[tuple[Command, ...]]
    """Commands for jobs' hashes, one group per job."""
    moves: list[Command]
    """Commands for the lists, sorted sets and the pause."""
    shown: Shown
    """The content of the keys after these commands."""


def survey(shown: Shown, outline: Outline) -> Survey:
    """Compare the keys with the outline; return the rows to read."""
    was_unfinished = shown.unresolved.union(shown.wait, shown.active, shown.delayed)
    unresolved = {
        job_id for job_id in was_unfinished - outline.unfinished if job_id not in outline.ended and _is_ours(job_id)
    }
    known = shown.versions
    stale = [
        *(
            job_id
            for state in ENDED.values()
            for job_id in _ended(shown, outline, state)
            if not known.get(job_id) or known[job_id] != _version(outline, job_id, known[job_id])
        ),
        *unresolved,
        *(job_id for job_id, version in outline.whole.items() if known.get(job_id) != version),
    ]
    return Survey(outline, unresolved, stale[:_ROWS_PER_ROUND], len(stale) > _ROWS_PER_ROUND)


def plan(shown: Shown, surveyed: Survey, rows: Mapping[str, tuple[str, Job] | None], *, backoff_ms: int) -> Plan:
    """Return the commands of this round; ``rows`` has the version and job of each row to read, None if deleted."""
    outline = surveyed.outline
    versions = dict(shown.versions)
    hashes: list[tuple[Command, ...]] = []
    # The rows were read after the outline, so their states are newer.
    states: dict[str, BullState | None] = {}
    ended_ms: dict[str, int] = {}
    for job_id, row in rows.items():
        if row is None:
            states[job_id] = None
            continue
        version, job = row
        state = states[job_id] = bull_state(job, queued_as=_queued_as(job, outline))
        if job.completed_at is not None:
            ended_ms[job_id] = milliseconds(job.completed_at)
        cancelled = job.status is JobStatus.CANCELLED
        if state is not None or (cancelled and job_id in versions):
            key = job_key(job_id)
            fields = chain.from_iterable(job_fields(job, state=state, backoff_ms=backoff_ms).items())
            # Written whole: a job that runs again has fewer fields than it had at its end.
            hashes.append((("DEL", key), ("HSET", key, *fields), ("EXPIRE", key, EXPIRY_SECONDS)))
        versions.pop(job_id, None)
        if state is not None:
            versions[job_id] = version

    def is_in(job_id: str, state: BullState) -> bool:
        return states.get(job_id, state) is state

    arrived = {state: [job_id for job_id, found in states.items() if found is state] for state in BullState}
    left_line = {job_id for job_id in states if not is_in(job_id, BullState.WAIT)}
    running = [job_id for job_id in outline.active if is_in(job_id, BullState.ACTIVE)]
    active = list(dict.fromkeys([*running, *arrived[BullState.ACTIVE]]))

    def ended(state: BullState) -> dict[str, int]:
        found = _ended(shown, outline, state) | {job_id: ended_ms[job_id] for job_id in arrived[state]}
        return _newest({job_id: at_ms for job_id, at_ms in found.items() if is_in(job_id, state)})

    after = Shown(
        # BullMQ's order: the next job is last in the line, the latest running job first.
        wait=[job_id for job_id in reversed(outline.waiting) if job_id not in left_line],
        active=active[::-1],
        delayed={
            job_id: delayed_score(due_ms)
            for job_id, due_ms in outline.delayed.items()
            if is_in(job_id, BullState.DELAYED)
        },
        completed=ended(BullState.COMPLETED),
        failed=ended(BullState.FAILED),
        paused=outline.paused,
        unresolved=surveyed.unresolved - rows.keys(),
    )
    shown_ids = {*outline.whole, *after.active, *after.completed, *after.failed}
    dropped = [job_id for job_id in versions if job_id not in shown_ids]
    hashes += [(("DEL", job_key(job_id)),) for job_id in dropped]
    for job_id in dropped:
        del versions[job_id]
    after.versions = versions
    return Plan(hashes, _moves(shown, after), after)


def ownership(version: str) -> list[Command]:
    """Return the commands to mark the keys as iidq's; BullMQ writes the field "version" on opening the queue."""
    return [
        ("HSET", META, OURS, version),
        ("HSETNX", META, "version", f"iidq:{version}"),
        *expiries(),
    ]


def expiries() -> list[Command]:
    """Return the commands to prolong every key but the hashes."""
    return [("EXPIRE", key, EXPIRY_SECONDS) for key in (META, *(state.key for state in BullState))]


def _moves(shown: Shown, after: Shown) -> list[Command]:
    moves = [
        *list_edits(BullState.WAIT.key, shown.wait, after.wait),
        *list_edits(BullState.ACTIVE.key, shown.active, after.active),
        *set_edits(BullState.DELAYED.key, shown.delayed, after.delayed),
        *set_edits(BullState.COMPLETED.key, shown.completed, after.completed),
        *set_edits(BullState.FAILED.key, shown.failed, after.failed),
    ]
    if shown.paused != after.paused:
        moves.append(("HSET", META, "paused", 1) if after.paused else ("HDEL", META, "paused"))
    return [*moves, *expiries()] if moves else []


def _queued_as(job: Job, outline: Outline) -> BullState:
    if str(job.id) in outline.delayed or job.run_at > outline.at:
        return BullState.DELAYED
    return BullState.WAIT


def _ended(shown: Shown, outline: Outline, state: BullState) -> dict[str, int]:
    """Return the newest ended jobs in ``state`` by id, with the time of their end."""
    before = shown.completed if state is BullState.COMPLETED else shown.failed
    found = {
        job_id: at_ms
        for job_id, at_ms in before.items()
        if job_id not in outline.unfinished
        and job_id not in outline.ended
        and (job_id in shown.versions or _is_ours(job_id))
    }
    found |= {job_id: item.at_ms for job_id, item in outline.ended.items() if item.state is state}
    return _newest(found)


def _version(outline: Outline, job_id: str, known: str) -> str:
    """Return the version of an ended job; ``known`` if the outline lacks the job."""
    ended = outline.ended.get(job_id)
    return ended.version if ended else known


def _is_ours(job_id: str) -> bool:
    """Return whether this can be a job's id; another client may have put any text into a list or set."""
    return str(parse_job_id(job_id)) == job_id


def _newest(ended: dict[str, int]) -> dict[str, int]:
    if len(ended) <= MOST_ENDED:
        return ended
    return dict(heapq.nlargest(MOST_ENDED, ended.items(), key=_by_end))


def _by_end(item: tuple[str, int]) -> tuple[int, str]:
    # A fixed order for ends in the same millisecond, so that the choice is stable between rounds.
    return item[1], item[0]
