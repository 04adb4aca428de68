"""What BullMQ's keys hold, what they should hold, and the commands between the two. Pure.

A look goes in two steps: :func:`survey` compares the outline of the queue with what is shown and says which rows are to
be read; :func:`plan` makes the commands when they are. What cannot be read in one look is left for the next.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

from iidq.bullmq.bull_keys import (
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
from iidq.bullmq.bull_lists import Command, list_edits, set_edits
from iidq.bullmq.bull_outline import Outline
from iidq.queue.identifiers import parse_job_id
from iidq.queue.job import Job, JobStatus

MOST_ENDED: Final = 1_000
"""Completed jobs that are shown, and failed ones: the newest."""
EXPIRY_SECONDS: Final = 3600
"""Every key goes away when nobody has kept it for so long."""
_ROWS_PER_LOOK: Final = 1_000

_UNKNOWN: Final = ""


@dataclass(slots=True)
class Shown:
    """What the keys hold, as far as the process that keeps them wrote or read it. Lists begin with the head.

    ``versions``: of the rows whose hashes were written, the longest unwritten first; empty for one to be written anew.
    ``unresolved`` jobs were in line or running and are not any more; what became of them has not been read yet.
    """

    wait: list[str] = field(default_factory=list)
    active: list[str] = field(default_factory=list)
    delayed: dict[str, int] = field(default_factory=dict)
    completed: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    paused: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    unresolved: set[str] = field(default_factory=set)

    def doubt_hashes(self, most: int) -> None:
        """Have up to so many hashes written anew: somebody may have changed or removed them."""
        for job_id in list(islice(self.versions, most)):
            self.versions[job_id] = _UNKNOWN


@dataclass(frozen=True, slots=True)
class Survey:
    """Which rows are to be read for this look; ``more``: others are left for the next."""

    outline: Outline
    unresolved: set[str]
    to_read: list[str]
    more: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """``hashes`` first, then ``moves``: so that whoever follows a list finds the jobs that it names."""

    hashes: list[tuple[Command, ...]]
    moves: list[Command]
    shown: Shown


def survey(shown: Shown, outline: Outline) -> Survey:
    """Compare the two."""
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
    return Survey(outline, unresolved, stale[:_ROWS_PER_LOOK], len(stale) > _ROWS_PER_LOOK)


def plan(shown: Shown, surveyed: Survey, rows: Mapping[str, tuple[str, Job] | None], *, backoff_ms: int) -> Plan:
    """The commands of this look; ``rows`` are those that were to be read, with their versions, or None if gone."""
    outline = surveyed.outline
    versions = dict(shown.versions)
    hashes: list[tuple[Command, ...]] = []
    # Of a row that was read we know more than the outline does: it was read later.
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

    def stands(job_id: str, state: BullState) -> bool:
        return states.get(job_id, state) is state

    arrived = {state: [job_id for job_id, found in states.items() if found is state] for state in BullState}
    left_line = {job_id for job_id in states if not stands(job_id, BullState.WAIT)}
    running = [job_id for job_id in outline.active if stands(job_id, BullState.ACTIVE)]
    active = list(dict.fromkeys([*running, *arrived[BullState.ACTIVE]]))

    def ended(state: BullState) -> dict[str, int]:
        found = _ended(shown, outline, state) | {job_id: ended_ms[job_id] for job_id in arrived[state]}
        return _newest({job_id: at_ms for job_id, at_ms in found.items() if stands(job_id, state)})

    after = Shown(
        # The next one last, and of those that run the latest first: so BullMQ moves them.
        wait=[job_id for job_id in reversed(outline.waiting) if job_id not in left_line],
        active=active[::-1],
        delayed={
            job_id: delayed_score(due_ms)
            for job_id, due_ms in outline.delayed.items()
            if stands(job_id, BullState.DELAYED)
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
    """Says who keeps the keys; ``version`` is iidq's. BullMQ writes its own into the field "version" when it comes."""
    return [
        ("HSET", META, OURS, version),
        ("HSETNX", META, "version", f"iidq:{version}"),
        *expiries(),
    ]


def expiries() -> list[Command]:
    """Everything but the hashes stays for a while."""
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
    """The newest ones in ``state``, by what was shown and what the outline tells: id → when it ended."""
    before = shown.completed if state is BullState.COMPLETED else shown.failed
    found = {
        job_id: at_ms
        for job_id, at_ms in before.items()
        if job_id not in outline.unfinished
        and job_id not in outline.ended
        and (job_id in shown.versions or _is_ours(job_id))
    }
    found |= {job_id: told.at_ms for job_id, told in outline.ended.items() if told.state is state}
    return _newest(found)


def _version(outline: Outline, job_id: str, known: str) -> str:
    """The version of a job that has ended; where it did not end lately, as it was known."""
    told = outline.ended.get(job_id)
    return told.version if told else known


def _is_ours(job_id: str) -> bool:
    """Whether it can be a job's id; what somebody else put into a list or set may be anything."""
    return str(parse_job_id(job_id)) == job_id


def _newest(ended: dict[str, int]) -> dict[str, int]:
    if len(ended) <= MOST_ENDED:
        return ended
    return dict(heapq.nlargest(MOST_ENDED, ended.items(), key=_by_end))


def _by_end(item: tuple[str, int]) -> tuple[int, str]:
    # Ends of the same millisecond in an order of their own, lest the choice change with every look.
    return item[1], item[0]
