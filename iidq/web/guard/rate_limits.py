"""How many requests a client may make per minute. Pure: counts in memory, the time comes in as an argument.

The minute slides in steps of ten seconds: what counts is the present step and the five before it. A client gets at
most its limit in each such minute, and so in any 50 seconds. Only admitted requests count: who keeps knocking gets
its share all the same. Other processes' counts are added by ``rate_sharing``.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from iidq.settings import Settings

WINDOW_SECONDS: Final = 60
STEP_SECONDS: Final = 10
STEPS: Final = WINDOW_SECONDS // STEP_SECONDS
REMEMBERED_CLIENTS: Final = 10_000
"""Per limit; whoever has not been seen for longest is forgotten first. About 7 MB when full."""

_KEY_HOLDER: Final = "key"

RawHeader = tuple[bytes, bytes]


class Verdict(NamedTuple):
    """What a limit says to one request."""

    admitted: bool
    limit: int
    remaining: int
    """So many more are admitted during ``reset_seconds``."""
    reset_seconds: int
    """When there will be more: of a refused request, when it will be admitted. 1 to 60."""


class Addition(NamedTuple):
    """Requests of one client in one step that the other processes have not been told of."""

    client: str
    step: int
    requests: int


@dataclass(slots=True)
class _Client:
    newest: int
    total: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    """Step → requests, of all processes as far as known."""
    untold: dict[int, int] = field(default_factory=dict)
    """Step → those of them that only this process knows of."""

    def advance(self, step: int) -> None:
        self.newest = step
        for old in [known for known in self.counts if known <= step - STEPS]:
            self.total -= self.counts.pop(old)
            self.untold.pop(old, None)

    def learn(self, counts: Mapping[int, int]) -> None:
        for step, requests in counts.items():
            if step > self.newest - STEPS:
                self.counts[step] = max(self.counts.get(step, 0), requests + self.untold.get(step, 0))
        self.total = sum(self.counts.values())

    def seconds_to_wait(self, limit: int, now: float) -> int:
        """Until the next step leaves the window, or of a client at its limit until one more fits."""
        excess = max(self.total - limit + 1, 1)
        for step in sorted(self.counts):
            excess -= self.counts[step]
            if excess <= 0:
                return max(1, math.ceil((step + STEPS) * STEP_SECONDS - now))
        return WINDOW_SECONDS


class SlidingWindow:
    """Counts the requests of many clients; bounded in memory."""

    def __init__(self, capacity: int = REMEMBERED_CLIENTS) -> None:
        self._capacity = capacity
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._untold: dict[str, _Client] = {}

    def admit(self, client: str, limit: int, now: float) -> Verdict:
        """Count one request at ``now`` (seconds, of the clock that all processes share) unless it is one too many."""
        step = int(now // STEP_SECONDS)
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client(step)
            if len(self._clients) > self._capacity:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
            if step > known.newest:
                known.advance(step)
        if known.total >= limit:
            return Verdict(False, limit, 0, known.seconds_to_wait(limit, now))
        # A clock that was set back counts on in the newest step.
        step = known.newest
        known.total += 1
        known.counts[step] = known.counts.get(step, 0) + 1
        known.untold[step] = known.untold.get(step, 0) + 1
        if len(self._untold) < self._capacity:
            self._untold[client] = known
        return Verdict(True, limit, limit - known.total, known.seconds_to_wait(limit, now))

    @property
    def untold_clients(self) -> int:
        """How many clients have requests that the other processes have not been told of."""
        return len(self._untold)

    def take_untold(self, most: int) -> list[Addition]:
        """What to tell the other processes, of at most ``most`` clients; give it back if that failed."""
        taken = []
        for client in list(self._untold)[:most]:
            known = self._untold.pop(client)
            taken += [Addition(client, step, requests) for step, requests in known.untold.items()]
            known.untold = {}
        return taken

    def give_back(self, additions: Iterable[Addition]) -> None:
        """These could not be told."""
        for client, step, requests in additions:
            known = self._clients.get(client)
            if known is not None and step in known.counts:
                known.untold[step] = known.untold.get(step, 0) + requests
                self._untold[client] = known

    def learn(self, client: str, counts: Mapping[int, int]) -> None:
        """What all processes together have told of this client: step → requests."""
        known = self._clients.get(client)
        if known is not None:
            known.learn(counts)


class RateLimits:
    """The limits of the settings: one for submissions, one for everything else; each per client.

    A client is an address, or whoever presents the API key, from any address: ``RATE_LIMIT_KEY_FACTOR`` times as much.
    A batch is one submission: it is bounded by itself, and closed to strangers where a key is set.
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
        """Whether there is any limit at all."""
        return any(self._limits.values())

    def admit(self, kind: str, client: str, holds_key: bool, now: float) -> Verdict | None:
        """Count a request of this kind ("submit" or "read"); None where it is not limited."""
        limit = self._limits[kind]
        if holds_key:
            limit, client = limit * self._key_factor, _KEY_HOLDER
        return self.windows[kind].admit(client, limit, now) if limit else None


def rate_limit_headers(kind: str, verdict: Verdict) -> list[RawHeader]:
    """What the client may still do, in the form of draft-ietf-httpapi-ratelimit-headers (08 to 11) and of its draft 06.

    The older three are what the replaced system's clients read.
    """
    limit, remaining, reset = verdict.limit, verdict.remaining, verdict.reset_seconds
    return [
        (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (kind.encode(), limit, WINDOW_SECONDS)),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (kind.encode(), remaining, reset)),
        (b"ratelimit-limit", b"%d" % limit),
        (b"ratelimit-remaining", b"%d" % remaining),
        (b"ratelimit-reset", b"%d" % reset),
    ]
