"""Where in line a worker's next claim begins to look. Pure; times are the event loop's, in seconds.

Claimed rows leave dead entries at the head of the index. While somebody's transaction is open, nothing can remove
them, and every claim would walk over all that were claimed since: 3 ms after 50,000 jobs. So a claim begins where the
one before came to, and looks at the whole line only now and then, for what came in before that place: a job of higher
priority, one that was given back, a row whose insert took long.
"""

from math import inf

WHOLE = -inf
"""From the head of the line."""

# How late a job may be found that stands before the place where claims begin.
_WHOLE_INTERVAL_SECONDS = 1.0
# Looking at the whole line may take a twentieth of a worker's time, whatever it costs.
_WHOLE_SHARE = 20.0


class ClaimSpan:
    """Remembers how far claims have come; ``look_at`` is when the whole line must be looked at, or None."""

    def __init__(self) -> None:
        self._reached = WHOLE
        self._whole_due = -inf
        self.look_at: float | None = None

    def begin(self, now: float) -> float:
        """Where the claim that begins now looks from, as seconds of ``iidq_claim_order``; :data:`WHOLE` is the head."""
        return WHOLE if now >= self._whole_due else self._reached

    def widen(self) -> None:
        """Something may stand anywhere in line: the next claim looks from its head."""
        self._whole_due = -inf

    def end(self, began: float, ended: float, looked_from: float, reached: float | None, *, short: bool) -> None:
        """A claim has ended. ``reached`` is what Postgres says of it (None: nothing was there); short: slots stay."""
        if reached is not None:
            self._reached = reached
        if looked_from == WHOLE:
            self._whole_due = ended + max(_WHOLE_INTERVAL_SECONDS, _WHOLE_SHARE * (ended - began))
            self.look_at = None
        elif short:
            # What stands before has not been looked at, and nobody will announce it again.
            self.look_at = self._whole_due
