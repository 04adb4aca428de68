"""Decisions around a claim: where to start the scan, when to wake other workers, when to act next. Pure.

All times are the event loop's, in seconds.
"""

from math import inf

FROM_HEAD = -inf
"""Scan from the head of the line."""

# How long a job in front of the cursor may stay unseen.
_FULL_SCAN_INTERVAL_SECONDS = 1.0
# A full scan waits for 20 times the duration of the last one: at most a twentieth of the worker's time.
_FULL_SCAN_SHARE = 20.0
# How often the other workers are woken at most.
_WAKE_INTERVAL_SECONDS = 0.05
# Added to the time of a due row, so that it is due by the database's clock.
_DUE_MARGIN_SECONDS = 0.01


class ScanCursor:
    """Remember where the index scan of the next claim starts.

    Claimed rows leave dead index entries at the head of the line. While a transaction is open, vacuum cannot remove
    dead entries, and a scan from the head passes all of them: 3 ms after 50,000 jobs. So a claim starts where the last
    claim ended. An occasional full scan finds rows in front of the cursor: a higher priority, a released job, a slow
    insert.
    """

    def __init__(self) -> None:
        self._reached = FROM_HEAD
        self._stale_at = -inf
        self.full_scan_at: float | None = None
        """When the loop has to claim although nothing was announced; None: not needed."""

    def start(self, now: float) -> float:
        """Return where a claim starts, in seconds of ``iidq_claim_order``; :data:`FROM_HEAD` is a full scan."""
        return FROM_HEAD if now >= self._stale_at else self._reached

    def reset(self) -> None:
        """Make the next claim a full scan."""
        self._stale_at = -inf

    def finish(self, began: float, ended: float, started_from: float, reached: float | None, *, short: bool) -> None:
        """Record a claim. ``reached``: the new cursor, None for an empty claim; ``short``: free slots were left."""
        if reached is not None:
            self._reached = reached
        if started_from == FROM_HEAD:
            self._stale_at = ended + max(_FULL_SCAN_INTERVAL_SECONDS, _FULL_SCAN_SHARE * (ended - began))
            self.full_scan_at = None
        elif short:
            # Rows in front of the cursor were announced before and will not be announced again.
            self.full_scan_at = self._stale_at


class WakeOthers:
    """Decide when to wake all other workers, because there are more jobs than free slots here.

    Only the designated worker answers an announcement, so that a single job does not wake every worker. Without a free
    slot, the designated worker passes the announcement on.
    """

    def __init__(self) -> None:
        self.designated = True
        """Whether this worker answers announcements. True until the first sweep, so that a new worker answers, too."""
        self._wanted = self._backlog_announced = False
        self._earliest = 0.0

    def due_at(self) -> float | None:
        """Return when to wake the others; None: not needed."""
        return self._earliest if self._wanted else None

    def request(self) -> None:
        """Record a job without a free slot here."""
        self._wanted = True

    def claimed(self, *, short: bool, room: bool) -> None:
        """Record a claim. ``short``: no job is left; ``room``: free slots are left. A backlog wakes once."""
        if short:
            self._backlog_announced = False
        elif not room and self.designated and not self._backlog_announced:
            self._backlog_announced = self._wanted = True

    def sent(self, now: float) -> None:
        """Record that the others are woken now."""
        self._wanted = False
        self._earliest = now + _WAKE_INTERVAL_SECONDS


class Schedule:
    """When a worker's loop sweeps, wakes the others, and claims next."""

    def __init__(self) -> None:
        self.cursor = ScanCursor()
        self.others = WakeOthers()
        self.work_may_wait = True
        """Whether a claim may find a job."""
        self.next_sweep = 0.0
        self.next_claim = 0.0
        """No claim before this time: the last claim failed."""

    def scan_all(self) -> None:
        """Claim from the head of the line: a job may have come in anywhere."""
        self.cursor.reset()
        self.work_may_wait = True

    def sweep_by(self, when: float) -> None:
        """Sweep soon after ``when``, the time at which a row falls due, or earlier."""
        self.next_sweep = min(self.next_sweep, when + _DUE_MARGIN_SECONDS)

    def claim_due(self, now: float) -> bool:
        """Return whether to claim now, given a free slot."""
        if self.cursor.full_scan_at is not None and now >= self.cursor.full_scan_at:
            self.work_may_wait = True
        return self.work_may_wait and now >= self.next_claim

    def claim_failed(self, retry_at: float) -> None:
        """Claim again at ``retry_at``, after a sweep: announcements may have been missed meanwhile."""
        self.next_claim = retry_at
        self.next_sweep = min(self.next_sweep, retry_at)

    def next_event(self, *, room: bool) -> float:
        """Return when the loop has something to do again, unless it is woken before."""
        event = self.next_sweep
        if (wake_at := self.others.due_at()) is not None:
            event = min(event, wake_at)
        if room and self.work_may_wait:
            event = min(event, self.next_claim)
        elif room and self.cursor.full_scan_at is not None:
            # After a failed claim ``full_scan_at`` may be past.
            event = min(event, max(self.cursor.full_scan_at, self.next_claim))
        return event
