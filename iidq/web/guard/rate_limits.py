"""Limits of requests per client and minute. Pure but for the clock: counts in memory, the time is an argument.

The minute slides in buckets of ten seconds: the present bucket and the five before count. A client gets at most the
limit in each such minute, and so in any 50 seconds. Only admitted requests count, so a client with refused requests
still gets a full share. ``rate_sharing`` adds the counts of other processes.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from iidq.rate_window import BUCKET_SECONDS, BUCKETS, WINDOW_SECONDS
from iidq.settings import Settings
from iidq.web.reply.wire import RawHeader

REMEMBERED_CLIENTS: Final = 10_000
"""Clients per limit; beyond, the client idle for longest is forgotten. About 7 MB when full."""

_KEY_HOLDER: Final = "key"


class Decision(NamedTuple):
    """Decision of a limit on one request."""

    admitted: bool
    """The request is within the limit."""
    limit: int
    """Requests per minute."""
    remaining: int
    """Further requests admitted during ``reset_seconds``."""
    reset_seconds: int
    """Seconds (1 to 60) until more are admitted; of a refused request, until it would be admitted."""


class Addition(NamedTuple):
    """Requests of a client in a bucket, not yet shared with other processes."""

    client: str
    """The client that the limit counts."""
    bucket: int
    """Number of the bucket."""
    requests: int
    """Requests not yet shared."""


@dataclass(slots=True)
class _Client:
    newest: int
    """Newest bucket with a request."""
    total: int = 0
    """Requests within the window."""
    counts: dict[int, int] = field(default_factory=dict)
    """Bucket → requests of all processes, as far as known."""
    unshared: dict[int, int] = field(default_factory=dict)
    """Bucket → requests that only this process has counted."""

    def advance(self, bucket: int) -> None:
        self.newest = bucket
        for old in [known for known in self.counts if known <= bucket - BUCKETS]:
            self.total -= self.counts.pop(old)
            self.unshared.pop(old, None)

    def learn(self, counts: Mapping[int, int]) -> None:
        for bucket, requests in counts.items():
            if bucket > self.newest - BUCKETS:
                self.counts[bucket] = max(self.counts.get(bucket, 0), requests + self.unshared.get(bucket, 0))
        self.total = sum(self.counts.values())

    def seconds_to_wait(self, limit: int, now: float) -> int:
        """Return the time until the next bucket leaves the window, or at the limit until one more request fits."""
        excess = max(self.total - limit + 1, 1)
        for bucket in sorted(self.counts):
            excess -= self.counts[bucket]
            if excess <= 0:
                return max(1, math.ceil((bucket + BUCKETS) * BUCKET_SECONDS - now))
        return WINDOW_SECONDS


class SlidingWindow:
    """Count the requests of many clients in bounded memory."""

    def __init__(self, capacity: int = REMEMBERED_CLIENTS) -> None:
        self._capacity = capacity
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._unshared: dict[str, _Client] = {}

    def admit(self, client: str, limit: int, now: float) -> Decision:
        """Count one request at ``now`` (seconds of the shared clock), unless it exceeds the limit."""
        bucket = int(now // BUCKET_SECONDS)
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client(bucket)
            if len(self._clients) > self._capacity:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
            if bucket > known.newest:
                known.advance(bucket)
        if known.total >= limit:
            return Decision(False, limit, 0, known.seconds_to_wait(limit, now))
        # If the clock was set back, the newest bucket counts on.
        bucket = known.newest
        known.total += 1
        known.counts[bucket] = known.counts.get(bucket, 0) + 1
        known.unshared[bucket] = known.unshared.get(bucket, 0) + 1
        if len(self._unshared) < self._capacity:
            self._unshared[client] = known
        return Decision(True, limit, limit - known.total, known.seconds_to_wait(limit, now))

    @property
    def unshared_clients(self) -> int:
        """Number of clients with requests that other processes have not received."""
        return len(self._unshared)

    def take_unshared(self, most: int) -> list[Addition]:
        """Return and clear the unshared requests of at most ``most`` clients; use :meth:`give_back` on failure."""
        taken = []
        for client in list(self._unshared)[:most]:
            known = self._unshared.pop(client)
            taken += [Addition(client, bucket, requests) for bucket, requests in known.unshared.items()]
            known.unshared = {}
        return taken

    def give_back(self, additions: Iterable[Addition]) -> None:
        """Take back additions that could not be shared."""
        for client, bucket, requests in additions:
            known = self._clients.get(client)
            if known is not None and bucket in known.counts:
                known.unshared[bucket] = known.unshared.get(bucket, 0) + requests
                self._unshared[client] = known

    def learn(self, client: str, counts: Mapping[int, int]) -> None:
        """Take over the totals of all processes for this client: bucket → requests."""
        known = self._clients.get(client)
        if known is not None:
            known.learn(counts)


class RateLimits:
    """Limits per client: for submissions, and for all other requests.

    A client is an address, or the holder of the API key at any address, with ``RATE_LIMIT_KEY_FACTOR`` times as much.
    A batch counts as a single submission, because batches are bounded and need a set API key.
    """

    def __init__(self, settings: Settings) -> None:
        self.windows = {"submit": SlidingWindow(), "read": SlidingWindow()}
        self._limits = {
            "submit": settings.rate_limit_submit_per_minute,
            "read": settings.rate_limit_read_per_minute,
        }
        self._key_factor = settings.rate_limit_key_factor

    @property
    def enforced(self) -> bool:
        """Whether any limit is set."""
        return any(self._limits.values())

    def admit(self, kind: str, client: str, holds_key: bool, now: float) -> Decision | None:
        """Count a request of this kind ("submit" or "read"); return None if the kind is not limited."""
        limit = self._limits[kind]
        if holds_key:
            limit, client = limit * self._key_factor, _KEY_HOLDER
        return self.windows[kind].admit(client, limit, now) if limit else None


class SharedClock:
    """Seconds since 1970 by the clock shared by all processes; by the local clock before :meth:`set`."""

    def __init__(self) -> None:
        self._ahead_seconds = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the present time, which runs steadily between two calls of :meth:`set`."""
        return time.monotonic() + self._ahead_seconds

    def set(self, now: float) -> None:
        """Take over the shared clock's time."""
        self._ahead_seconds = now - time.monotonic()


def rate_limit_headers(kind: str, decision: Decision) -> list[RawHeader]:
    """Return the RateLimit headers of draft-ietf-httpapi-ratelimit-headers (08 to 11) and of its draft 06.

    Clients of the replaced system read the older three.
    """
    limit, remaining, reset = decision.limit, decision.remaining, decision.reset_seconds
    return [
        (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (kind.encode(), limit, WINDOW_SECONDS)),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (kind.encode(), remaining, reset)),
        (b"ratelimit-limit", b"%d" % limit),
        (b"ratelimit-remaining", b"%d" % remaining),
        (b"ratelimit-reset", b"%d" % reset),
    ]
