"""A delivery, its states, and the result of each attempt: delivered, tried again later, or given up. Pure.

             the job ends             2xx
    waiting ──────────────▶ pending ───────▶ delivered
       ▲                    │ ▲   │
       │         any other  └─┘   └────────▶ gave_up    410, a URL that a rule forbids, or the last attempt failed
       │
       └── from any state when the job is put back in line: the next end is a new event

The first transition and the way back are made by a trigger (``webhook_delivery_follow``), so that every way to end a
job counts.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from iidq.errors import FetchRefused, IidqError

# Seconds from each failed attempt to the next, as Standard Webhooks recommends; the last attempt is three days later.
_MINUTE, _HOUR = 60.0, 3600.0
_DELAYS_SECONDS = (
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
MAX_ATTEMPTS: Final = len(_DELAYS_SECONDS) + 1
MAX_RETRY_AFTER_SECONDS: Final = 24 * _HOUR
"""Upper bound for a receiver's ``Retry-After``."""
_JITTER = 0.2
_GONE = 410
_MAY_SET_RETRY_AFTER = frozenset({429, 503})


class DeliveryState(StrEnum):
    """State of a delivery, as stored and as shown to clients."""

    WAITING = "waiting"
    """The job has not ended."""
    PENDING = "pending"
    """The job has ended; an attempt is due, under way, or scheduled."""
    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    GAVE_UP = "gave_up"
    """No further attempt will be made."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An attempt to deliver an event."""

    job_id: UUID
    """Job that ended; key of the row."""
    event_id: UUID
    """Id of this end of the job, new after each retry by hand; sent as ``webhook-id``."""
    attempt: int
    """Number of this attempt, from 1; with ``event_id`` the fence of :func:`delivery_store.settle`."""
    url: str
    """Where the event is posted."""
    host: str
    """Host of ``url``, for the bound of deliveries per host."""


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """How an attempt ended, as it is stored."""

    state: DeliveryState
    """Next state: delivered, pending (another attempt follows) or gave_up."""
    status: int | None = None
    """HTTP status of the answer; None without one."""
    error: str | None = None
    """Why the attempt failed, beginning with a code; None after a success."""
    delay_seconds: float | None = None
    """Wait before the next attempt; set exactly for a pending delivery."""


def after_answer(status: int, *, attempt: int, draw: float, retry_after_seconds: float | None = None) -> DeliveryResult:
    """Return the result of an answer: 2xx delivers, 410 (Gone, RFC 9110) gives up, any other status is a failure.

    A redirect is a failure, because its target was not checked; a new URL belongs in the submission.
    ``retry_after_seconds`` counts for 429 and 503 alone. ``draw`` is a random number in [0, 1).
    """
    if 200 <= status < 300:
        return DeliveryResult(DeliveryState.DELIVERED, status)
    if status == _GONE:
        return DeliveryResult(DeliveryState.GAVE_UP, status, "webhook.gone: the receiver answered 410 Gone")
    redirect = ", and redirects are not followed" if 300 <= status < 400 else ""
    error = f"webhook.refused: the receiver answered {status}{redirect}; expected 2xx"
    retry_after_seconds = retry_after_seconds if status in _MAY_SET_RETRY_AFTER else None
    return _failed(attempt, error, draw, status, retry_after_seconds)


def after_failure(error: IidqError, *, attempt: int, draw: float) -> DeliveryResult:
    """Return the result without an answer: a URL that a rule forbids is given up at once, any other error retried."""
    if isinstance(error, FetchRefused):
        return DeliveryResult(DeliveryState.GAVE_UP, error=str(error))
    return _failed(attempt, str(error), draw)


def _failed(
    attempt: int, error: str, draw: float, status: int | None = None, retry_after_seconds: float | None = None
) -> DeliveryResult:
    delay = delay_seconds(attempt, draw=draw, retry_after_seconds=retry_after_seconds)
    state = DeliveryState.GAVE_UP if delay is None else DeliveryState.PENDING
    return DeliveryResult(state, status, error, delay)


def delay_seconds(failed_attempts: int, *, draw: float, retry_after_seconds: float | None = None) -> float | None:
    """Return the wait after ``failed_attempts`` (1 or more) failures; None gives up.

    ``draw``, a random number in [0, 1), adds up to a fifth, so that deliveries with a common failure do not return
    together. A longer ``Retry-After`` is respected, up to a day.
    """
    if failed_attempts >= MAX_ATTEMPTS:
        return None
    planned = _DELAYS_SECONDS[failed_attempts - 1]
    if retry_after_seconds is not None:
        planned = max(planned, min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS))
    return planned * (1.0 + _JITTER * draw)
