"""Present faults of one process because of the database; each change is logged once."""

import time
from math import inf
from typing import Final
from uuid import UUID

import psycopg

from iidq.errors import NOT_MIGRATED, DatabaseRefusal, IidqError, RowRefused
from iidq.observability import logs

_ROW_KNOWN_SECONDS: Final = 3600.0
_ROWS_KNOWN: Final = 10_000
_ROWS_LOGGED: Final = 100
"""Refused rows of one step that are logged one by one."""


class Faults:
    """The last error of each part of the process until the part succeeds, and the rows that refuse a step."""

    def __init__(self) -> None:
        # With the time of expiry, by the monotonic clock.
        self._last: dict[str, tuple[BaseException, float]] = {}
        # By step: the time of each row's last refusal, oldest first.
        self._rows: dict[str, dict[UUID, float]] = {}

    def failed(self, part: str, error: BaseException, retry_in_seconds: float, lasts_seconds: float = inf) -> None:
        """Store the error of ``part``; log the error unless the last one was the same.

        The error expires after ``lasts_seconds``, for parts that report no success.
        """
        last, until = self._last.get(part, (None, 0.0))
        now = time.monotonic()
        self._last[part] = error, now + lasts_seconds
        if last is not None and now < until and sentences(last) == sentences(error):
            return
        if _only_an_operator_helps(error):
            logs.database_refuses(part, error)
        else:
            logs.database_lost(part, error, retry_in_seconds)

    def succeeded(self, part: str) -> None:
        """Remove the error of ``part``; log the return where there was an error."""
        if self._last and self._last.pop(part, None) is not None:
            logs.database_back(part)

    def row_refused(self, step: str, job_id: UUID, error: BaseException) -> None:
        """Store that the job's row refuses ``step``; log the refusal at most once per hour."""
        rows, now = self._rows.setdefault(step, {}), time.monotonic()
        last = rows.pop(job_id, -inf)
        rows[job_id] = now
        if len(rows) > _ROWS_KNOWN:
            del rows[next(iter(rows))]
        if now - last > _ROW_KNOWN_SECONDS and len(rows) <= _ROWS_LOGGED:
            logs.row_refused(step, job_id, error)

    def refused_rows(self, step: str, seconds: float) -> list[UUID]:
        """Return the jobs with rows that refused ``step`` within the last ``seconds``."""
        rows = self._rows.get(step)
        if not rows:
            return []
        since = time.monotonic() - seconds
        return [job_id for job_id, at in list(rows.items()) if at > since]

    def for_operators(self) -> list[str]:
        """Return the faults that only an operator can end, as sentences without values of statements."""
        now = time.monotonic()
        # A copy: the thread that renews leases writes, too.
        errors = [error for error, until in list(self._last.values()) if now < until and _only_an_operator_helps(error)]
        return list(dict.fromkeys(sentence for error in errors for sentence in sentences(error)))


def sentences(error: BaseException) -> list[str]:
    """Return the named obstacles of the error, or else its general message."""
    if isinstance(error, psycopg.Error):
        return [f"Postgres refuses a statement (SQLSTATE {error.sqlstate})"]
    return getattr(error, "__notes__", None) or [str(error)]


def _only_an_operator_helps(error: BaseException) -> bool:
    if isinstance(error, psycopg.Error):
        return error.sqlstate is not None
    return isinstance(error, DatabaseRefusal | RowRefused) or (
        isinstance(error, IidqError) and error.code == NOT_MIGRATED
    )
