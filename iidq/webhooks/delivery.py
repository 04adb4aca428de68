"""What a delivery is and which states it passes through. Pure.

             the job ends             2xx
    waiting ──────────────▶ pending ───────▶ delivered
       ▲                    │ ▲   │
       │         any other  └─┘   └────────▶ gave_up    410, a URL that a rule forbids, or tried often enough
       │
       └── from any of them when the job is put back in line: its next end is an event of its own

The first step and the way back are a trigger's (``webhook_delivery_follow``), so that it is the same who ends the job.
"""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class DeliveryState(StrEnum):
    """How far a delivery has come, as stored and as shown to clients."""

    WAITING = "waiting"
    PENDING = "pending"
    DELIVERED = "delivered"
    GAVE_UP = "gave_up"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver one event; ``attempt`` counts from 1 and is part of the fence."""

    job_id: UUID
    event_id: UUID
    attempt: int
    url: str
    host: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of an attempt. ``delay_seconds`` is set where another one follows (pending)."""

    state: DeliveryState
    status: int | None = None
    error: str | None = None
    delay_seconds: float | None = None
