"""Readings of the queue's health for tests without a database."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from iidq.queue.read.queue_health import QueueHealth

_EMPTY = QueueHealth(
    at=datetime(2026, 11, 24, tzinfo=UTC),
    state="idle",
    pause_reason=None,
    paused_at=None,
    waiting=0,
    delayed=0,
    active=0,
    completed=0,
    failed=0,
    cancelled=0,
    oldest_waiting_seconds=None,
    next_due_at=None,
    oldest_active_seconds=None,
    expired_leases=0,
    workers=0,
    slots=0,
    running=0,
    listening_workers=0,
    upkeep_age_seconds=None,
)


def queue_health(**changes: Any) -> QueueHealth:
    """Return the health of an empty queue, with changes."""
    return replace(_EMPTY, **changes)
