"""What becomes of a delivery after an attempt: delivered, tried again later, or given up. Pure."""

from iidq.errors import FetchRefused, IidqError
from iidq.webhooks.delivery import DeliveryState, Settlement
from iidq.webhooks.schedule import delay_seconds

_GONE = 410
_ASKS_FOR_TIME = frozenset({429, 503})


def judge_answer(status: int, *, attempt: int, draw: float, asked_seconds: float | None = None) -> Settlement:
    """By the answer's status: 2xx is a delivery, 410 the end (RFC 9110: gone for good), all else a failed attempt.

    A redirect is one too: where it leads nobody has checked, and the receiver's new URL belongs in the submission.
    ``asked_seconds``, from ``Retry-After``, counts with 429 and 503 alone. ``draw`` is a random number in [0, 1).
    """
    if 200 <= status < 300:
        return Settlement(DeliveryState.DELIVERED, status)
    if status == _GONE:
        return Settlement(DeliveryState.GAVE_UP, status, "webhook.gone: the receiver answered 410 Gone")
    what = ", and redirects are not followed" if 300 <= status < 400 else ""
    error = f"webhook.refused: the receiver answered {status}{what}; expected 2xx"
    asked_seconds = asked_seconds if status in _ASKS_FOR_TIME else None
    return _failed(attempt, error, draw, status, asked_seconds)


def judge_failure(error: IidqError, *, attempt: int, draw: float) -> Settlement:
    """Without an answer: a URL that a rule forbids is given up at once, everything else tried again."""
    if isinstance(error, FetchRefused):
        return Settlement(DeliveryState.GAVE_UP, error=str(error))
    return _failed(attempt, str(error), draw)


def _failed(
    attempt: int, error: str, draw: float, status: int | None = None, asked_seconds: float | None = None
) -> Settlement:
    delay = delay_seconds(attempt, draw=draw, asked_seconds=asked_seconds)
    state = DeliveryState.GAVE_UP if delay is None else DeliveryState.PENDING
    return Settlement(state, status, error, delay)
